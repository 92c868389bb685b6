"""What a server is told: each setting with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptbr_slm.errors import SlmError
from ptbr_slm.network import LOOPBACK
from ptbr_slm.runtime.batch import BatchLimits

LONGEST_S = 86_400
"""Seconds of the longest time limit: a day."""


MOST_TEXTS = 4096
"""Texts that may run, or wait, at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Limits and switches of one server."""

    host: str = "127.0.0.1"
    """Address that the server listens on; one that is not this machine's needs `api_keys` or `insecure`."""

    port: int = 8000
    """TCP port; 0 takes a free one."""

    api_keys: tuple[str, ...] = ()
    """Any of them opens the routes; none: they are open to all who reach the port."""

    insecure: bool = False
    """Whether other machines may be answered without a key."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser; none: no page of another origin may."""

    root_path: str = ""
    """Prefix under which a proxy shows the server, such as `/modelo`."""

    max_slots: int = 16
    """Texts of one model that are generated at once."""

    max_waiting: int = 64
    """Texts of one model that wait for a slot; one more is refused with 429. At 16 slots, that is four
    turns: who waits longer than that is better told so."""

    max_waiting_tokens: int = 65_536
    """Tokens of the prompts that wait: a minute of reading at 1,000 tokens/s."""

    max_connections: int = 1000
    """Connections at once; uvicorn answers 503 to the next. Above what a queue admits, so that /health still
    answers while it is full."""

    metrics: bool = True
    """Whether /metrics answers Prometheus."""

    page: bool = False
    """Whether /page shows the page of `ptbr-slm app`; where there are keys it asks for one."""

    max_body_bytes: int = 1 << 20
    """Bytes of a request's body; more is refused with 413, counted as they come."""

    body_timeout_s: float = 30.0
    """Seconds in which a request's body must have come; then 408."""

    write_timeout_s: float = 30.0
    """Seconds that a client may leave what is sent to it unread, once buffers are full; then it is cut."""

    stream_interval_s: float = 0.02
    """Seconds between two events of one stream, each with what has come meanwhile; a text's first and last
    tokens wait for nothing. 0: an event a token. Nobody sees more than fifty a second, and each event costs
    the server and its client as much as some 3 % of a token (decision 0096)."""

    timeout_s: float = 600.0
    """Seconds that one request may generate for, its wait in the queue included (openai's client waits as
    long); then its text ends with the reason `timeout`."""

    drain_s: float = 30.0
    """Seconds that running requests have after SIGTERM; then they are told and cut."""

    @property
    def most_requests(self) -> int:
        """Requests at once for each model: more could not even wait."""
        return self.max_slots + self.max_waiting

    @property
    def batch_limits(self) -> BatchLimits:
        """What each model's batch takes on."""
        return BatchLimits(
            slots=self.max_slots, max_waiting=self.max_waiting, max_waiting_tokens=self.max_waiting_tokens
        )

    def __post_init__(self) -> None:
        if not self.api_keys and not self.insecure and self.host not in LOOPBACK:
            raise SlmError(
                "E_USAGE",
                f"--host {self.host} abre o servidor a outras máquinas, e nenhuma chave o protege.",
                where="--host",
                hint="Ponha uma chave por linha num arquivo e use --api-key-file ARQUIVO; "
                "sem chave, só com --insecure.",
            )
        if self.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.root_path):
            raise SlmError(
                "E_USAGE",
                f"{self.root_path!r} não serve como prefixo.",
                where="--root-path",
                hint="Ele começa por / e não termina por /, como em:  --root-path /modelo",
            )
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise SlmError(
                    "E_USAGE",
                    f"{origin!r} não é uma origem.",
                    where="--cors",
                    hint="Uma origem tem esquema, nome e porta, sem caminho:  --cors https://exemplo.com.br",
                )
        for option, count in (("--max-slots", self.max_slots), ("--max-waiting", self.max_waiting)):
            if not 1 <= count <= MOST_TEXTS:
                raise SlmError(
                    "E_USAGE",
                    f"{option} {count} está fora do intervalo.",
                    where=option,
                    hint=f"Use um número inteiro, de 1 a {MOST_TEXTS}.",
                )
        if not 0 <= self.stream_interval_s <= 1:
            raise SlmError(
                "E_USAGE",
                f"--stream-interval-ms {1000 * self.stream_interval_s:g} está fora do intervalo.",
                where="--stream-interval-ms",
                hint="Use de 0 a 1000 milissegundos.",
            )
        for option, seconds in (("--timeout", self.timeout_s), ("--drain-seconds", self.drain_s)):
            if not 0 <= seconds <= LONGEST_S or (option == "--timeout" and not seconds):
                raise SlmError(
                    "E_USAGE",
                    f"{option} {seconds:g} está fora do intervalo.",
                    where=option,
                    hint=f"Use segundos, até {LONGEST_S}.",
                )
