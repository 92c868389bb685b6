"""`ptbr-slm serve` with its threads' processor time written down, and another switch interval if asked.

    python benchmarks/serve_watched.py FILE SECONDS serve MODELO --port N

FILE is rewritten five times a second: {name of a Python thread: seconds of processor time; "others": those
of all threads that Python knows nothing of, which are ONNX Runtime's}. SECONDS is the interpreter's switch
interval; 0 leaves the server's own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from ptbr_slm.cli.main import main as cli
from ptbr_slm.serve.process import server


def thread_times() -> dict[str, float]:
    """Seconds of processor time of each thread so far."""
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    found: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            spent = int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it ended meanwhile
            continue
        name = names.get(task.name, "others")
        found[name] = found.get(name, 0.0) + spent
    return found


def _watch(file: Path) -> None:
    written = file.with_suffix(".new")
    while True:
        written.write_text(json.dumps(thread_times()))
        written.replace(file)
        time.sleep(0.2)


def main() -> None:
    file, interval = Path(sys.argv[1]), float(sys.argv[2])
    if interval:
        server.SWITCH_INTERVAL_S = interval
    threading.Thread(target=_watch, args=(file,), daemon=True, name="watch").start()
    sys.argv = ["ptbr-slm", *sys.argv[3:]]
    cli()


if __name__ == "__main__":
    main()
