"""Write docs/cli.md from the real --help of every verb:  python scripts/generate_cli_docs.py [--check]."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from ptbr_slm.cli.main import app
from ptbr_slm.storage.atomic import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = {"COLUMNS": "80", "NO_COLOR": "1"}
"""The page is the same whatever terminal it is made in."""
COMMON = """# A linha de comando

Gerado por `python scripts/generate_cli_docs.py` a partir do `--help` de cada comando; um teste compara.

Todo comando aceita `--json` (o resultado em JSON na saída padrão; o resto vai para a saída de erros),
`--quiet` e `--debug`. Os códigos de saída e de erro estão em [erros.md](erros.md); as chaves de `--config` e
`--set`, em [configuracao.md](configuracao.md).
"""


def render() -> str:
    """The whole page."""
    parts = [COMMON]
    for words in commands():
        title = " ".join(["ptbr-slm", *words])
        parts.append(f"## `{title}`\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their members, in the order of `ptbr-slm --help`."""

    def walk(node: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, child in getattr(node, "commands", {}).items():
            yield from walk(child, (*words, name))

    yield from walk(typer.main.get_command(app), ())


def help_of(words: tuple[str, ...]) -> str:
    """What `ptbr-slm WORDS --help` prints, without spaces at line ends."""
    result = CliRunner().invoke(app, [*words, "--help"], env=WIDTH, prog_name="ptbr-slm", color=False)
    if result.exit_code != 0:
        raise SystemExit(f"ptbr-slm {' '.join(words)} --help: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" not in sys.argv[1:]:
        write_text(PAGE, render())
        return 0
    fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == render()
    if not fresh:
        print("docs/cli.md está desatualizado: rode  python scripts/generate_cli_docs.py", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main())
