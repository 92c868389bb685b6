"""A stand-in for the program that Gradio's share links run (frpc), which is fetched from the internet."""

from __future__ import annotations

import os
from pathlib import Path

SPEAKS = 'echo "start proxy success: http://127.0.0.1:$5"'
"""The link leads straight to the port that was to be shared: `frpc http -n TOKEN -l PORT ...`."""
SILENT = ":"


def environment(home: Path) -> dict[str, str]:
    """For a process that shall look for the program under `home`, and reach nothing else."""
    return {
        "HF_HOME": str(home),
        "GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }


def install(program: Path, says: str = SPEAKS) -> Path:
    """Write it; a file `pid` beside it has the process that ran last."""
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\necho $$ >"{program.parent}/pid"\n{says}\nexec sleep 600\n')
    program.chmod(0o755)
    return program


def runs(program: Path) -> bool:
    """Whether the process of its last run lives."""
    try:
        os.kill(int((program.parent / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True
