"""Section `tests`: the checkout's tests marked `gpu`, counted, and the first line of each failure."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ptbr_slm.bench.gpu.results import Answer, SectionRequest

ROOT = Path(__file__).resolve().parents[3]
MARK = "mark.gpu"
OUTCOMES = {
    "PASSED": "passed",
    "FAILED": "failed",
    "ERROR": "failed",
    "SKIPPED": "skipped",
    "XFAIL": "skipped",
}
_RESULT = re.compile(rf"^(\S+::.+?) ({'|'.join(OUTCOMES)})\b", re.MULTILINE)
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+(?:::.+?)?)(?: - (.*))?$", re.MULTILINE)
_REASON = re.compile(r"^SKIPPED \[(\d+)\] (\S+?): (.*)$", re.MULTILINE)
SHOWN = 20


def measure_tests(request: SectionRequest, answer: Answer) -> None:
    """Run them in a process of their own. What was through when the time was over is counted too."""
    if importlib.util.find_spec("pytest") is None:
        answer.missing("pytest", "absent", "falta o pacote pytest (pip install pytest)")
        return
    files = test_files(ROOT / "tests")
    if not files:
        answer.missing("pytest", "absent", "não há testes ao lado do pacote: rode de um checkout")
        return
    began = time.monotonic()
    words, finished = _run(files, request.left_s - 5)
    add_results(answer, words, finished, time.monotonic() - began)


def test_files(folder: Path) -> list[Path]:
    """Files that mark a test `gpu`: the others may need packages that are not here."""
    return sorted(path for path in folder.rglob("test_*.py") if MARK in path.read_text(encoding="utf-8"))


def _run(files: list[Path], seconds: float) -> tuple[str, bool]:
    """(what pytest wrote, whether it came to its end)."""
    # Our own options ask for plugins that may be absent, and take an unknown one for an error.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-rfEs", "--tb=line", "--color=no"]
    command += ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", *map(str, files)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A plugin that another project left broken is none of these tests' business.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "240"},
    )
    try:
        return process.communicate(timeout=max(1.0, seconds))[0], True
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], False


def add_results(answer: Answer, words: str, finished: bool, seconds: float) -> None:
    """Lines and checks of what pytest wrote with -v -rfEs."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for _, outcome in _RESULT.findall(words):
        counts[OUTCOMES[outcome]] += 1
    for test, message in _FAILURE.findall(words)[:SHOWN]:
        message = message or _why_not_collected(words, test)
        lacks = "ModuleNotFoundError" in message and "::" not in test
        answer.missing(test, "absent" if lacks else "error", message or "falhou")
    if not sum(counts.values()):
        if not answer.lines:
            last = next((line for line in reversed(words.splitlines()) if line.strip()), "nada")
            answer.missing("pytest", "error", f"o pytest não rodou teste nenhum: {last.strip()}")
        return
    answer.facts["tests"] = counts
    if counts["passed"] + counts["failed"]:
        answer.line("pytest", **counts, seconds=seconds, finished=finished)
    else:
        reasons = [reason for _, _, reason in _REASON.findall(words)]
        why = reasons[0] if reasons else "sem razão dita"
        answer.missing("pytest", "absent", f"todos os {counts['skipped']} foram pulados: {why}", **counts)
    skipped: Counter[str] = Counter()
    for count, _, reason in _REASON.findall(words):
        skipped[reason] += int(count)
    for reason, count in skipped.items():
        answer.note(f"{count} pulado(s): {reason}")
    if not finished:
        answer.note("O tempo acabou antes do último teste: os números contam os que terminaram.")
    ran = counts["passed"] + counts["failed"]
    answer.check("failed", "testes que falharam", float(counts["failed"]) if ran else None, high=0)


def _why_not_collected(words: str, path: str) -> str:
    """The first exception that pytest wrote below this file's heading; empty where there is none."""
    _, _, below = words.partition(f"ERROR collecting {path} ")
    found = re.search(r"^E +(.+)$", below, re.MULTILINE)
    return found[1] if found else ""
