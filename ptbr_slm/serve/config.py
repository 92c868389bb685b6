"""What a server is told: each setting with its unit."""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.errors import SlmError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


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

    max_body_bytes: int = 1 << 20
    """Bytes of a request's body; more is refused with 413, counted as they come."""

    drain_s: float = 30.0
    """Seconds that running requests have after SIGTERM; then they are told and cut."""

    def __post_init__(self) -> None:
        if not self.api_keys and not self.insecure and self.host not in LOOPBACK:
            raise SlmError(
                "E_USAGE",
                f"--host {self.host} abre o servidor a outras máquinas, e nenhuma chave o protege.",
                where="--host",
                hint="Ponha uma chave por linha num arquivo e use --api-key-file ARQUIVO; "
                "sem chave, só com --insecure.",
            )
