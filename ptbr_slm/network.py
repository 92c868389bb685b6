"""Addresses of this machine, and the error where a port cannot be opened."""

from __future__ import annotations

from ptbr_slm.errors import SlmError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What only this machine reaches."""
LAST_PORT = 65_535
"""The largest TCP port."""


def port_error(host: str | None, port: int, hint: str) -> SlmError:
    """E_PORT. hint: what to type instead."""
    return SlmError(
        "E_PORT",
        f"não consegui abrir a porta {port}: está ocupada, não é permitida, ou o endereço não é daqui.",
        where=f"{host or LOOPBACK[0]}:{port}",
        hint=hint,
    )
