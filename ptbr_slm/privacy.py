"""Switches off what our dependencies send or store by themselves.

Some libraries report their use unless an environment variable says no, and read it once, when they are
imported. `ptbr_slm/__init__.py` calls `switch_off_telemetry` before any module of ours can import them. A
value that the user has set stays; a library that the user imported before us has already read it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping

SWITCHES = {
    # ONNX Runtime 1.31.1 keeps an identifier of the machine in ~/.cache/Microsoft/DeveloperTools and asks DNS
    # for mobile.events.data.microsoft.com nine seconds after its import; `disable_telemetry_events`, which
    # can only be called then, stops neither.
    "ORT_DISABLE_TELEMETRY": "1",
    # `Blocks(analytics_enabled=False)` covers the page, not what gradio 6.31 sends where a share link fails.
    "GRADIO_ANALYTICS_ENABLED": "False",
    # huggingface_hub, and through it transformers, gradio and trackio.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # wandb sends its own crashes to Sentry, its offline mode included.
    "WANDB_ERROR_REPORTING": "false",
}
"""Environment variable -> the value that switches the sending off."""


def switch_off_telemetry(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set each of `SWITCHES` that is missing or empty."""
    for name, value in SWITCHES.items():
        if not environment.get(name):
            environment[name] = value


def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib, before its first import, a folder of this process for its list of fonts.

    It would write the list to ~/.cache/matplotlib. Does nothing where MPLCONFIGDIR is set or it is imported.
    """
    if "matplotlib" in sys.modules or os.environ.get("MPLCONFIGDIR"):
        return
    folder = tempfile.mkdtemp(prefix="ptbr-slm-matplotlib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["MPLCONFIGDIR"] = folder
