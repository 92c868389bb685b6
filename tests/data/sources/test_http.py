"""Downloads over real sockets from a server that misbehaves as networks do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hub_server import (
    HubServer,
    cut_after,
    other_etag,
    refuse,
    serving,
    slow,
    without_ranges,
    wrong_length,
)
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from ptbr_slm.data.sources.http import Changed, HttpClient, RemoteFile
from ptbr_slm.data.sources.origin import RetryPolicy

CONTENT = bytes(range(256)) * 400
PATH = "/store/arquivo.bin"


class Clock:
    """Records what would have been slept."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving(HubServer(files={"/arquivo.bin": CONTENT})) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> HttpClient:
    return HttpClient(policy=RetryPolicy(attempts=4, read_timeout_s=5, sleep=clock))


def remote(server: HubServer) -> RemoteFile:
    return RemoteFile(server.url + PATH, len(CONTENT))


def test_a_file_comes_whole_and_a_part_of_it_goes_on_where_it_ended(server, client, tmp_path):
    path = tmp_path / "arquivo"
    path.write_bytes(CONTENT[:1000])
    client.download(remote(server), path)
    assert path.read_bytes() == CONTENT
    assert [headers["Range"] for headers in server.asked(PATH)] == [f"bytes=1000-{len(CONTENT) - 1}"]
    client.download(remote(server), path)  # nothing is left to ask
    assert len(server.requests) == 1
    assert client.read(remote(server), 300, 700) == CONTENT[300:700]
    assert client.head(server.url + PATH).size == len(CONTENT)


def test_cuts_in_the_middle_are_gone_on_from_and_count_only_while_nothing_comes(
    server, client, clock, tmp_path
):
    server.fail(PATH, *[cut_after(5_000)] * 9)  # more cuts than attempts
    path = tmp_path / "arquivo"
    seen: list[int] = []
    client.download(remote(server), path, progress=seen.append)
    assert path.read_bytes() == CONTENT and sum(seen) == len(CONTENT)
    starts = [int(headers["Range"][6:].split("-")[0]) for headers in server.asked(PATH)]
    assert starts == [5_000 * count for count in range(10)]
    assert all(wait <= 1 for wait in clock.waits)


def test_a_server_that_brings_nothing_ends_the_command_after_growing_waits(server, client, clock, tmp_path):
    server.fail(PATH, *[refuse(503)] * 9)
    error = refusal(client.download, remote(server), tmp_path / "arquivo")
    assert error.code == "E_FETCH" and "503, 4 vezes seguidas" in error.message
    assert error.where == server.url + PATH and "continua de onde parou" in error.hint
    assert len(clock.waits) == 3 and clock.waits[2] > 2 * clock.waits[0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "7"}, 7),
        ({"RateLimit": '"resolvers";r=0;t=41'}, 42),
    ],
)
def test_the_wait_that_a_server_asks_for_is_kept(server, client, clock, tmp_path, headers, expected):
    server.fail(PATH, refuse(429, **headers))
    client.download(remote(server), tmp_path / "arquivo")
    assert clock.waits == [expected]


def test_the_wait_may_be_a_date(server, client, clock, tmp_path):
    def busy(answer):
        date = datetime.now(UTC) + timedelta(hours=0.2)
        refuse(503, Retry_After=format_datetime(date))(answer)

    server.fail(PATH, busy)
    client.download(remote(server), tmp_path / "arquivo")
    assert 600 < clock.waits[0] <= 720


def test_a_wait_of_hours_is_said_and_not_slept(server, client, clock, tmp_path):
    server.fail(PATH, refuse(429, Retry_After="7200"))
    assert "7200 s" in refusal(client.download, remote(server), tmp_path / "arquivo").message
    assert clock.waits == []


def test_a_wrong_length_is_not_believed(server, client, tmp_path):
    server.fail(PATH, wrong_length)
    client.download(remote(server), tmp_path / "arquivo")
    assert (tmp_path / "arquivo").read_bytes() == CONTENT and len(server.requests) == 2


def test_another_etag_between_two_ranges_is_another_file(server, client, tmp_path):
    server.fail(PATH, cut_after(5_000), other_etag)
    with pytest.raises(Changed):
        client.download(remote(server), tmp_path / "arquivo")
    with pytest.raises(Changed):  # the size is part of what a file is
        client.read(replace(remote(server), size=len(CONTENT) + 7), 0, 10)


def test_a_slow_connection_is_opened_again(server, clock, tmp_path):
    policy = RetryPolicy(attempts=4, slowest_bytes_per_s=1e6, slow_window_s=0.1, sleep=clock)
    server.fail(PATH, slow(0.03))
    HttpClient(policy=policy).download(remote(server), tmp_path / "arquivo")
    assert (tmp_path / "arquivo").read_bytes() == CONTENT
    second = server.asked(PATH)[1]["Range"]
    assert 0 < int(second[6:].split("-")[0]) < 10_000


def test_a_silent_server_is_given_up(server, clock, tmp_path):
    policy = RetryPolicy(attempts=2, read_timeout_s=0.1, sleep=clock)
    server.fail(PATH, slow(0.6), slow(0.6), slow(0.6), slow(0.6), slow(0.6))
    error = refusal(HttpClient(policy=replace(policy, attempts=1)).read, remote(server), 0, 5_000)
    assert "não respondeu a tempo" in error.message


def test_a_server_without_ranges_serves_a_whole_file_and_no_part(server, client, tmp_path):
    server.fail(PATH, without_ranges, without_ranges)
    client.download(remote(server), tmp_path / "arquivo")
    assert (tmp_path / "arquivo").read_bytes() == CONTENT
    assert "Range" in refusal(client.read, remote(server), 10, 20).message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuse(404), "404"),
        (refuse(403), "recusou o acesso (403)"),
        (refuse(403, X_Error_Code="GatedRepo"), "exige um pedido de acesso"),
        (refuse(410), "410"),
    ],
)
def test_what_another_attempt_would_not_change_is_said_at_once(server, client, clock, tmp_path, fault, words):
    server.fail(PATH, fault)
    assert words in refusal(client.download, remote(server), tmp_path / "arquivo").message
    assert clock.waits == []


def test_no_network_is_said_in_our_words(client, tmp_path, unused_port):
    error = refusal(client.read, RemoteFile(f"http://127.0.0.1:{unused_port}/x", 10), 0, 10)
    assert "o servidor recusou a conexão, 3 vezes" in error.message and "HTTPConnection" not in str(error)
    assert "URL de HTTP" in refusal(client.get, "arquivo:///x").message


@pytest.fixture
def unused_port() -> int:
    with serving(HubServer()) as gone:
        return gone.port


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(server, clock):
    server.add("ana/textos", "a.bin", CONTENT)
    client = HttpClient("hf_segredo", server.url, RetryPolicy(sleep=clock))
    file = RemoteFile(f"{server.url}/datasets/ana/textos/resolve/abc/a.bin", len(CONTENT))
    assert client.read(file, 0, 10) == CONTENT[:10]
    assert server.asked("/resolve/")[0]["Authorization"] == "Bearer hf_segredo"
    assert "Authorization" not in server.asked("/store/")[0]
    assert "hf_segredo" not in repr(client)
    client.read(RemoteFile(f"http://localhost:{server.port}{PATH}", len(CONTENT)), 0, 10)
    assert "Authorization" not in server.asked(PATH)[0]
    server.fail("/store/", refuse(410))
    assert "segredo" not in str(refusal(client.read, file, 0, 10))


def test_a_token_is_not_sent_in_the_clear():
    client = HttpClient("hf_segredo", "http://espelho.example")
    assert not client._may_send_token("http://espelho.example/api/x")
    client.token_prefix = "https://espelho.example"
    assert client._may_send_token("https://espelho.example/api/x")
    assert not client._may_send_token("https://espelho.example.org/api/x")


def test_the_proxy_of_the_environment_is_used_and_no_proxy_respected(server, clock, monkeypatch, unused_port):
    file = RemoteFile(f"http://textos.example{PATH}", len(CONTENT))  # only a proxy can know this name
    server.files["/arquivo.bin"] = CONTENT
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    client = HttpClient(policy=RetryPolicy(attempts=1, sleep=clock))
    assert client.read(file, 0, 10) == CONTENT[:10]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port}")
    assert "proxy" in refusal(client.read, file, 0, 10).message
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert client.read(remote(server), 0, 10) == CONTENT[:10]


@given(attempt=st.integers(1, 60), first=st.floats(0.01, 10), longest=st.floats(10, 100))
def test_waits_grow_and_stay_below_the_longest(attempt, first, longest):
    policy = RetryPolicy(first_wait_s=first, longest_wait_s=longest)
    assert 0 < policy.wait_s(attempt) <= longest
    assert policy.wait_s(attempt) <= first * 2.0 ** (attempt - 1)
