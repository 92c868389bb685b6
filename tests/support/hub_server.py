"""A web server on this machine that answers as the Hugging Face hub does, and can be told to misbehave.

Large files are redirected to a "store" on another host name (localhost and 127.0.0.1), as the hub redirects
to its own, with `X-Linked-ETag` on the redirect. Shapes are those that huggingface_hub 2.4.0 reads.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Answer:
    """The answer to one request for a file, before a fault changes it."""

    status: int
    headers: dict[str, str]
    body: bytes
    send: int | None = None
    """Bytes after which the connection is cut."""
    pause_s: float = 0.0
    """Between pieces of 512 bytes."""


Fault = Callable[[Answer], None]


def cut_after(count: int) -> Fault:
    """Announce the whole body and close the connection after `count` bytes."""
    return lambda answer: setattr(answer, "send", count)


def refuse(status: int, **headers: str) -> Fault:
    """An error status with headers (underscores stand for hyphens)."""

    def fault(answer: Answer) -> None:
        answer.status, answer.body = status, b"{}"
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return fault


def slow(pause_s: float) -> Fault:
    """512 bytes at a time."""
    return lambda answer: setattr(answer, "pause_s", pause_s)


def other_etag(answer: Answer) -> None:
    """The file has changed."""
    answer.headers["ETag"] = '"outro"'


def wrong_length(answer: Answer) -> None:
    """A range that is announced one byte short."""
    answer.headers["Content-Length"] = str(len(answer.body) - 1)
    answer.body = answer.body[:-1]


def flipped(answer: Answer) -> None:
    """Bits that are wrong, in the first column of the first row group."""
    first = len(answer.body) // 8
    wrong = bytes(byte ^ 0xFF for byte in answer.body[first : first + 64])
    answer.body = answer.body[:first] + wrong + answer.body[first + 64 :]


def without_ranges(answer: Answer) -> None:
    """The whole file, whatever was asked: `HubServer` fills it in."""
    answer.status = 200


def portal(answer: Answer) -> None:
    """A page that asks for a login, where JSON was expected."""
    answer.body = b"<html>Bem-vindo ao Wi-Fi</html>"


@dataclass
class HubServer:
    """Files by their path, faults by a part of the request's path, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """`/repo/owner/name/path` of a dataset's file, or the plain path of another file."""
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    """Part of a path of the store or the API -> what happens to the next requests for it, one each."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path, headers)."""
    cards: dict[str, dict[str, object]] = field(default_factory=dict)
    """Repository -> the YAML of its card."""
    page_size: int = 2
    port: int = 0

    @property
    def url(self) -> str:
        """Of the hub."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, path: str, content: bytes) -> None:
        """A file of a dataset."""
        self.files[f"/repo/{repo}/{path}"] = content

    def fail(self, part: str, *faults: Fault) -> None:
        """Let the next requests whose path holds `part` go wrong, in this order."""
        self.faults.setdefault(part, deque()).extend(faults)

    def asked(self, part: str) -> list[dict[str, str]]:
        """The headers of the requests whose path holds `part`."""
        return [headers for _, path, headers in self.requests if part in path]

    def served_bytes(self) -> int:
        """Sum of the ranges asked from the store."""
        total = 0
        for headers in self.asked("/store/"):
            if found := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", "")):
                total += int(found[2]) - int(found[1]) + 1
        return total


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """Answer until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes: 40 ms each, else

        def do_GET(self) -> None:
            _answer(self, server)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed is no fault of the test."""

    http = Server(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _answer(request: BaseHTTPRequestHandler, server: HubServer) -> None:
    parts = urlsplit(request.path)
    path = unquote(parts.path)
    server.requests.append((request.command, path, dict(request.headers)))
    query = parse_qs(parts.query)
    if found := re.fullmatch(r"/api/datasets/(.+?)/revision/(.+)", path):
        answer = _json({"id": found[1], "sha": COMMIT, "cardData": server.cards.get(found[1], {})})
    elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/(\w+)(?:/(.+))?", path):
        recursive = query.get("recursive") == ["True"]
        answer = _tree(server, found[1], found[3] or "", recursive, int(query.get("cursor", ["0"])[0]))
    elif found := re.fullmatch(r"/datasets/(.+?)/resolve/(\w+)/(.+)", path):
        answer = _redirect(server, f"/repo/{found[1]}/{found[3]}")
    else:
        answer = _file(server, path.removeprefix("/store"), request.headers.get("Range"))
    for part, faults in server.faults.items():
        if part in path and faults:
            fault = faults.popleft()
            fault(answer)
            if fault is without_ranges:
                answer.body = server.files[path.removeprefix("/store")]
                answer.headers.pop("Content-Range", None)
    _send(request, answer)


def _json(value: object) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


SMALL = 64
"""Bytes up to which a file is no large one: git keeps it itself."""


def _tree(server: HubServer, repo: str, folder: str, recursive: bool, first: int) -> Answer:
    root = f"/repo/{repo}/"
    prefix = f"{folder}/" if folder else ""
    paths = sorted(path.removeprefix(root) for path in server.files if path.startswith(root + prefix))
    if not paths:
        return Answer(404, {"X-Error-Code": "EntryNotFound"}, b"")
    entries: list[dict[str, object]] = [
        {"type": "directory", "oid": "d", "size": 0, "path": f"{prefix}outra"}
    ]
    for path in paths:
        if "/" in path.removeprefix(prefix) and not recursive:
            continue
        content = server.files[root + path]
        entry: dict[str, object] = {"type": "file", "size": len(content), "path": path}
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if len(content) > SMALL:
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
        entries.append(entry)
    answer = _json(entries[first : first + server.page_size])
    if first + server.page_size < len(entries):
        url = f"{server.url}/api/datasets/{repo}/tree/{COMMIT}"
        url += f"/{quote(folder, safe='')}" if folder else ""
        more = "recursive=True&" if recursive else ""
        answer.headers["Link"] = f'<{url}?{more}cursor={first + server.page_size}>; rel="next"'
    return answer


def _redirect(server: HubServer, path: str) -> Answer:
    if path not in server.files:
        return Answer(404, {"X-Error-Code": "EntryNotFound"}, b"")
    content = server.files[path]
    headers = {
        "Location": f"http://localhost:{server.port}/store{path}?Signature=segredo",
        "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        "X-Linked-Size": str(len(content)),
        "X-Repo-Commit": COMMIT,
        "ETag": '"pointer"',
    }
    return Answer(302, headers, b"")


def _file(server: HubServer, path: str, wanted: str | None) -> Answer:
    if path not in server.files:
        return Answer(404, {}, b"")
    content = server.files[path]
    headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Accept-Ranges": "bytes"}
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
    if found is None:
        return Answer(200, headers, content)
    first, last = int(found[1]), min(int(found[2]), len(content) - 1)
    if first >= len(content):
        return Answer(416, headers, b"")
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(206, headers, content[first : last + 1])


def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    try:
        request.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        body = answer.body[: answer.send]
        if answer.pause_s:
            for start in range(0, len(body), 512):
                request.wfile.write(body[start : start + 512])
                request.wfile.flush()
                time.sleep(answer.pause_s)
        else:
            request.wfile.write(body)
        if answer.send is not None:
            request.close_connection = True
    except (BrokenPipeError, ConnectionResetError):
        request.close_connection = True
