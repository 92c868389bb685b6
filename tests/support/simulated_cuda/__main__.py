"""`python -m simulated_cuda FILE FOLDER`: plays every case of a Python file on a simulated T4.

FILE has a dictionary CASES of functions (folder, cards) -> plain values. FOLDER/NAME.json gets what a case
returned, or its traceback under "error": one process for all of them, since a process cannot become one
without cards again.
"""

from __future__ import annotations

import json
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from simulated_cuda import machine
from simulated_cuda.device import restart


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    file, folder = sys.argv[1], Path(sys.argv[2])
    with machine() as cards:
        for name, case in runpy.run_path(file)["CASES"].items():
            own = folder / name
            own.mkdir(parents=True)
            restart(cards)
            try:
                body: Any = case(own, cards)
            except Exception:
                body = {"error": traceback.format_exc()}
            (folder / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")


if __name__ == "__main__":
    main()
