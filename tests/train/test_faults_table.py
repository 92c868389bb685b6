"""FAULTS.md names tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_fault_names_tests_that_exist():
    text = (HERE / "FAULTS.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| (\d+|–) \|", line)]
    assert len(rows) >= 24
    for row in rows:
        for path, _, test in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(::(\w+))?`", row):
            assert (ROOT / path).is_file(), path
            assert test in (ROOT / path).read_text(encoding="utf-8"), test
