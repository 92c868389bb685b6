"""The link that others reach: made, given up in time, and gone with the page."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
from fake_tunnel import SILENT, install, runs

from ptbr_slm.app import open_page
from ptbr_slm.app.launch import open_server
from ptbr_slm.app.share_link import close_link, open_link

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="o túnel de mentira é um script de shell"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def program(gradio, tmp_path, monkeypatch):
    """Where Gradio looks for the tunnel's program; nothing is there yet, and nothing can be fetched."""
    from gradio import networking, tunneling

    found = tmp_path / "frpc"
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(found))
    monkeypatch.setattr(tunneling, "BINARY_FOLDER", tmp_path)
    monkeypatch.setattr(networking, "GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    return found


@pytest.fixture
def demo():
    return SimpleNamespace(
        server_name="127.0.0.1", server_port=7999, share_token="x", share_server_address=None,
        share_server_tls_certificate=None, share_server_protocol="https",
    )  # fmt: skip


def test_a_link_is_given_up_in_time_where_the_tunnel_says_nothing(program, demo):
    install(program, SILENT)
    started = time.monotonic()
    assert open_link(demo, seconds=1) is None
    assert time.monotonic() - started < 10, "Gradio alone waits without end"
    assert not runs(program)


def test_a_link_that_cannot_be_made_is_none_at_once(program, demo, capfd):
    assert open_link(demo) is None  # the program is not there and cannot be fetched
    said = capfd.readouterr()
    assert said.out + said.err == "", "Gradio says it in English"


def test_closing_ends_the_tunnel_of_this_page_alone(program, demo):
    install(program)
    assert open_link(demo) == "https://127.0.0.1:7999"
    close_link(SimpleNamespace(server_port=8001))
    assert runs(program)
    close_link(demo)
    assert not runs(program)


def test_a_shared_page_asks_for_its_login_sends_nobody_elsewhere_and_ends_its_tunnel(program, model_folder):
    httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')
    install(program)
    page = open_page(model_folder)
    served = open_server(page, share=True)
    assert served.share_url and f"usuário: ptbr   senha: {served.password}" in served.text()
    link = served.share_url.replace("https", "http")  # the stand-in leads to the page itself
    with httpx.Client(base_url=link, trust_env=False, timeout=20) as visitor:
        assert visitor.get("/config").status_code == 401
        login = {"username": served.user, "password": served.password}
        assert visitor.post("/login", data=login).status_code == 200
        shown = visitor.get("/").text
    assert "amazonaws" not in shown, "with share=True Gradio has visitors fetch its program from there"
    page.close()
    assert not runs(program)
