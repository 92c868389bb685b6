"""What the inference benchmarks are asked on the command line, the same word for the same thing in all."""

from __future__ import annotations

import argparse
from pathlib import Path


def speed_parser(description: str | None) -> argparse.ArgumentParser:
    """--size, --threads and --write."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="85m", help="a named size of ptbr_slm.config (default: 85m)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    return parser


def contest_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Those, and --rounds and --folder: of a benchmark of us against the peers."""
    parser = speed_parser(description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--folder", type=Path, default=Path("models/benchmark"), help="where the models are made and kept"
    )
    return parser
