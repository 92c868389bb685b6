"""HTTP downloads that survive a bad network: retries with back-off, and ranges that go on where a file ends.

`requests` does the transport: proxies from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, certificates from
REQUESTS_CA_BUNDLE, credentials dropped when a redirect leaves the host. The retries are ours, since what a
large download needs is to continue inside the body, which no adapter does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from ptbr_slm.data.sources.origin import RetryPolicy, fetch_error
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.version import __version__

USER_AGENT = f"ptbr-slm/{__version__} (corpus fetch; python-requests)"
BLOCK = 1 << 18
RETRIED = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that a later request may not meet (RFC 9110 section 15; 425 is RFC 8470)."""

_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)')
"""`RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers-09), which the hub sends with a 429."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

_NO_HTTP_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)

_HUB_MISSING = {
    "RepoNotFound": (
        "este conjunto não existe no hub, ou é privado.",
        "Confira DONO/NOME na página do conjunto; se é privado, ponha um token de leitura em HF_TOKEN.",
    ),
    "RevisionNotFound": (
        "o conjunto não tem esta revisão.",
        "Use main, ou um commit, ramo ou etiqueta da página do conjunto (Files and versions).",
    ),
    "EntryNotFound": (
        "o conjunto não tem este arquivo ou pasta.",
        "Confira o caminho na página do conjunto (Files and versions).",
    ),
}
"""`X-Error-Code` of the hub (huggingface_hub, utils/_http.py: `hf_raise_for_status`) -> message and hint."""

Progress = Callable[[int], None]
"""Called with the bytes that a download has written since the last call."""


class Changed(Exception):
    """The file on the server is not the one that the download began with."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server, as its headers describe it."""

    url: str
    size: int
    """Bytes."""
    sha256: str = ""
    """Where a listing gives it."""
    identity: str = ""
    """ETag, else Last-Modified, of the answer that described it; empty where none did yet."""


@dataclass(slots=True)
class HttpClient:
    """One session of connections. The token goes to URLs below `token_prefix` only, and is never printed."""

    token: str = field(default="", repr=False)
    token_prefix: str = ""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    note: Callable[[str], None] = lambda text: None
    """Told, in Portuguese, why a request is repeated."""
    _session: requests.Session = field(default_factory=requests.Session, repr=False)
    _answered: bool = False
    _identities: dict[str, str] = field(default_factory=dict)
    """URL -> the identity that its first answer had."""

    def __post_init__(self) -> None:
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})

    def get(self, url: str) -> requests.Response:
        """The whole answer to a small request. Raises E_FETCH."""
        failed = 0
        while True:
            try:
                with self._request("GET", url) as response:
                    response.content  # noqa: B018  (reads the body, which may be cut)
                    return response
            except _Retry as retry:
                failed = self._wait(url, failed + 1, retry)

    def pages(self, url: str) -> Iterator[requests.Response]:
        """The pages of a listing, each naming the next in its `Link` header (RFC 8288). Raises E_FETCH."""
        following: str | None = url
        while following is not None:
            response = self.get(following)
            yield response
            link = response.links.get("next", {}).get("url")
            following = urljoin(following, link) if link else None

    def head(self, url: str) -> RemoteFile:
        """Size and identity of a file, redirects followed. Raises E_FETCH."""
        failed = 0
        while True:
            try:
                with self._request("HEAD", url) as response:
                    length = response.headers.get("Content-Length", "")
                    if not length.isdigit():
                        raise fetch_error("o servidor não diz o tamanho do arquivo", url)
                    return RemoteFile(url, int(length), identity=_identity(response))
            except _Retry as retry:
                failed = self._wait(url, failed + 1, retry)

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a file, in memory. Raises E_FETCH, or Changed."""
        failed = 0
        content = b""
        while len(content) < stop - start:
            before = len(content)
            try:
                for block in self._blocks(file, start + before, stop):
                    content += block
            except _Retry as retry:
                failed = self._wait(file.url, 1 if len(content) > before else failed + 1, retry)
        return content

    def download(
        self,
        file: RemoteFile,
        path: Path,
        *,
        start: int = 0,
        stop: int | None = None,
        progress: Progress = lambda count: None,
    ) -> None:
        """Write bytes `start` to `stop` (default: all) of a file into `path`, going on where `path` ends.

        Raises E_FETCH, E_DISK_FULL, E_PERMISSION, or Changed where the server has another file by now. What
        has arrived stays in `path`.
        """
        stop = file.size if stop is None else stop
        failed = 0
        with os_errors(path):
            output = path.open("ab")
        with output:
            if output.tell() > stop - start:
                output.truncate(0)
            while (done := output.tell()) < stop - start:
                try:
                    for block in self._blocks(file, start + done, stop):
                        with os_errors(path):
                            output.write(block)
                            output.flush()
                        progress(len(block))
                except _Retry as retry:
                    failed = self._wait(file.url, 1 if output.tell() > done else failed + 1, retry)

    def _blocks(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, as many as arrive. Raises _Retry, Changed or E_FETCH."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with self._request("GET", file.url, headers) as response:
            self._check_range(response, file, start, stop)
            left = stop - start
            for block in self._fast_enough(response):
                yield block[:left]
                left -= min(left, len(block))
                if not left:
                    return
            raise _Retry("a conexão foi cortada no meio do arquivo")

    def _check_range(self, response: requests.Response, file: RemoteFile, start: int, stop: int) -> None:
        """Whether the answer is the range asked for, of the file expected."""
        linked, identity = _linked_sha256(response), _identity(response)
        if linked and file.sha256:  # the store behind a redirect may name the same content in its own way
            if linked != file.sha256:
                raise Changed(file.url)
        elif identity and identity != self._identities.setdefault(file.url, file.identity or identity):
            raise Changed(file.url)
        if response.status_code == 200:
            if start == 0 and response.headers.get("Content-Length") == str(file.size):
                return  # a server without ranges; what is too much is not read
            raise fetch_error("o servidor não entrega partes de um arquivo (Range)", file.url)
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (start, stop - 1):
            raise _Retry("o servidor mandou outra parte do arquivo")
        if found[3] not in ("*", str(file.size)):
            raise Changed(file.url)
        length = response.headers.get("Content-Length")
        if length is not None and length != str(stop - start):
            raise _Retry("o servidor anunciou um tamanho errado")

    def _fast_enough(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it arrives; _Retry where the connection fails or stays too slow."""
        policy = self.policy
        began, received = time.monotonic(), 0
        try:
            # read1 gives what has arrived; stream() waits for a whole block, and a slow server is never seen
            while block := response.raw.read1(BLOCK):
                yield block
                received += len(block)
                elapsed = time.monotonic() - began
                if elapsed >= policy.slow_window_s:
                    if received < policy.slowest_bytes_per_s * elapsed:
                        raise _Retry("a conexão ficou lenta demais")
                    began, received = time.monotonic(), 0
        except _NETWORK_ERRORS as error:
            raise _Retry(_reason(error)) from error

    @contextmanager
    def _request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """An answer of 2xx, its body unread. Raises _Retry, Changed or E_FETCH."""
        policy = self.policy
        try:
            response = self._session.request(
                method,
                url,
                headers=headers,
                auth=_Bearer(self.token) if self._may_send_token(url) else None,
                stream=True,
                allow_redirects=True,
                timeout=(policy.connect_timeout_s, policy.read_timeout_s),
            )
        except _NO_HTTP_URL as error:
            raise fetch_error("o endereço não é um URL de HTTP", url) from error
        except requests.exceptions.TooManyRedirects as error:
            raise fetch_error("o servidor redireciona sem parar", url) from error
        except _NETWORK_ERRORS as error:
            raise _Retry(_reason(error)) from error
        self._answered = True
        try:
            with response:
                self._check_status(response, url)
                yield response
        except requests.RequestException as error:  # of a body that `get` reads
            raise _Retry(_reason(error)) from error

    def _check_status(self, response: requests.Response, url: str) -> None:
        status = response.status_code
        if status in RETRIED:
            raise _Retry(f"o servidor respondeu {status}", _asked_wait_s(response))
        if status == 416:
            raise Changed(url)
        if words := _HUB_MISSING.get(response.headers.get("X-Error-Code", "")):
            raise SlmError("E_NOT_FOUND", words[0], where=url.partition("?")[0], hint=words[1])
        if status in (401, 403):
            raise _refused(response, url)
        if status == 404:
            raise fetch_error("o servidor não tem este arquivo (404)", url)
        if status not in (200, 206):
            raise fetch_error(f"o servidor respondeu {status}", url)
        if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
            raise fetch_error("o servidor redireciona para um endereço sem HTTPS", url)

    def _may_send_token(self, url: str) -> bool:
        """Only to the hub, over TLS or to this machine."""
        if not self.token or not self.token_prefix or not url.startswith(self.token_prefix + "/"):
            return False
        parts = urlsplit(url)
        return parts.scheme == "https" or _is_loopback(parts.hostname or "")

    def _wait(self, url: str, failed: int, retry: _Retry) -> int:
        """Wait before the next attempt and return `failed`, the attempts in a row that brought nothing.

        Raises E_FETCH where there is no next one.
        """
        policy = self.policy
        if failed >= (policy.attempts if self._answered else min(policy.attempts, policy.attempts_at_first)):
            raise fetch_error(f"{retry.reason}, {failed} vezes seguidas", url) from retry
        asked = retry.wait_s
        if asked is not None and asked > policy.longest_retry_after_s:
            raise fetch_error(f"{retry.reason} e pede uma espera de {asked:.0f} s", url) from retry
        wait = policy.wait_s(failed) if asked is None else max(asked, 0.0)
        self.note(f"{retry.reason}: tento de novo em {wait:.0f} s ({failed} de {policy.attempts}).")
        policy.sleep(wait)
        return failed


class _Retry(Exception):
    """An attempt that failed in a way that another may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        """What the server asked for."""


@dataclass(frozen=True, slots=True)
class _Bearer(requests.auth.AuthBase):
    """Sets the header of one request; as an `auth` it is dropped where a redirect goes to another host."""

    token: str = field(repr=False)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _refused(response: requests.Response, url: str) -> SlmError:
    """401 and 403: the hub says GatedRepo where its owner wants to be asked first."""
    if response.headers.get("X-Error-Code") == "GatedRepo":
        return fetch_error(
            "o dono deste conjunto exige um pedido de acesso",
            url,
            "Aceite os termos na página do conjunto, crie um token de leitura e ponha-o em HF_TOKEN.",
        )
    hint = "Se HF_TOKEN está definido, ele pode ter vencido: apague-o ou troque-o. Ou use --mirror."
    return fetch_error(f"o servidor recusou o acesso ({response.status_code})", url, hint)


def _linked_sha256(response: requests.Response) -> str:
    """`X-Linked-ETag`, by which the hub names a large file before it redirects; empty elsewhere."""
    for answer in (*response.history, response):
        if linked := answer.headers.get("X-Linked-ETag"):
            return linked.removeprefix("W/").strip('"')
    return ""


def _identity(response: requests.Response) -> str:
    found = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return found.removeprefix("W/").strip('"')


def _asked_wait_s(response: requests.Response) -> float | None:
    """Seconds of `Retry-After` (a number or a date, RFC 9110 section 10.2.3) or of `RateLimit`."""
    if found := _RATE_LIMIT.search(response.headers.get("RateLimit", "")):
        return float(found[1]) + 1
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)


def _reason(error: BaseException) -> str:
    """Why a connection failed, without the words of the library, which hold whole URLs."""
    text = str(error)
    if isinstance(error, requests.exceptions.ProxyError) or "ProxyError" in text:
        return "o proxy não respondeu"
    if isinstance(error, requests.exceptions.SSLError) or "SSLError" in text:
        return "o certificado do servidor não foi aceito"
    if isinstance(error, requests.exceptions.Timeout | TimeoutError) or "timed out" in text:
        return "o servidor não respondeu a tempo"
    if "NameResolution" in text or "getaddrinfo" in text:
        return "o nome do servidor não foi encontrado (sem internet?)"
    if "refused" in text:
        return "o servidor recusou a conexão"
    return "a conexão foi cortada"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
