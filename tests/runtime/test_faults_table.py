"""FAULTS.md names tests that exist, and every row of E3 that is this area's."""

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_fault_names_tests_that_exist():
    text = (HERE / "FAULTS.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| (\d+|–) \|", line)]
    assert {row.split("|")[1].strip() for row in rows} >= {str(number) for number in range(17, 24)}
    for row in rows:
        tests = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(::(\w+))?`", row)
        assert tests, row
        for path, _, test in tests:
            assert (ROOT / path).is_file(), path
            assert test in (ROOT / path).read_text(encoding="utf-8"), test
