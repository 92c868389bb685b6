"""The environment of a process that finds the simulated card, and the driver's nvidia-smi."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).parent


def environment() -> dict[str, str]:
    """What to add to `os.environ`."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_HERE / "site"), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(_HERE / "bin"), os.environ.get("PATH", "")]),
    }
