"""Exports one model for `bench gpu`: `python -m ptbr_slm.cli.bench_export ASKED.json ANSWER.json`.

In a process of its own, and up here: what measures lies below the package that exports.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import write_json


def main() -> None:
    """`model`, `output`, `target`, `precision` and `verify` in; seconds, bytes and what verify found out."""
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_json(Path(sys.argv[2]), export(asked))


def export(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer, or `code` and `reason` (Portuguese) of what went wrong."""
    from ptbr_slm_export import export_model

    began = time.perf_counter()
    try:
        report = export_model(
            Path(asked["model"]),
            Path(asked["output"]),
            target=asked["target"],
            precision=asked["precision"],
            verify=asked["verify"],
        )
    except SlmError as error:
        return {"code": error.code, "reason": error.message}
    except ModuleNotFoundError as error:
        return {"code": "E_DEPENDENCY", "reason": f"falta o pacote {error.name}"}
    return {
        "seconds": time.perf_counter() - began,
        "bytes": report.bytes,
        "parity": report.verification and report.verification.as_dict(),
    }


if __name__ == "__main__":
    main()
