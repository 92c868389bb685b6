"""A public link to the page through Gradio's tunnel, made within a time that one can wait for.

`Blocks.launch(share=True)` is not used: it waits without end for a tunnel that says nothing, leaves the
tunnel open when the page closes, and has visitors' browsers fetch the page's program from another host.
"""

from __future__ import annotations

import io
import queue
import threading
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

SECONDS = 45.0
"""Two requests and the tunnel's program (13 MB, fetched once) take five on a good connection."""


def open_link(demo: Any, seconds: float = SECONDS) -> str | None:
    """The address under which everyone reaches this launched `gradio.Blocks`; None where none came."""
    from gradio import networking

    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(
                networking.setup_tunnel(
                    local_host=demo.server_name,
                    local_port=demo.server_port,
                    share_token=demo.share_token,
                    share_server_address=demo.share_server_address,
                    share_server_tls_certificate=demo.share_server_tls_certificate,
                )
            )
        except (
            Exception
        ):  # no network, a proxy, a wrong checksum, a read-only folder: for the caller all the same
            answers.put(None)

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it prints, in English
        threading.Thread(target=ask, name="share-link", daemon=True).start()
        try:
            found = answers.get(timeout=seconds)
        except queue.Empty:
            found = None
    if found is None:
        close_link(demo)
        return None
    return f"{demo.share_server_protocol}://{found.partition('://')[2]}"


def close_link(demo: Any) -> None:
    """End the tunnels to this page. Nothing where there are none."""
    from gradio.tunneling import CURRENT_TUNNELS

    with redirect_stdout(io.StringIO()):
        for tunnel in [one for one in CURRENT_TUNNELS if one.local_port == demo.server_port]:
            CURRENT_TUNNELS.remove(tunnel)
            process = tunnel.proc
            tunnel.kill()
            if process is not None:
                process.wait()  # SIGTERM ends it; without this it would stay a zombie
