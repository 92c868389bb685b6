"""`ptbr-slm tokenizer train | inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.help import HelpGroup
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.text import number, quoted

_group = typer.Typer(help="Treina e examina tokenizadores.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `tokenizer` to the application."""
    app.add_typer(_group, name="tokenizer", cls=HelpGroup)


def check_output(file: Path) -> None:
    """Refuse, before any work, to replace a file that is no tokenizer. Raises E_EXISTS."""
    from ptbr_slm.storage.output import require_replaceable

    require_replaceable(
        file, lambda content: content.lstrip().startswith(b"{") and b'"model"' in content, "um tokenizador"
    )


@command(_group, "train")
def train(
    out: Output,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="TEXTOS...", help="Arquivos ou pastas de texto, JSONL ou Parquet.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ARQUIVO", help="Onde gravar o tokenizer.json.")
    ],
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tamanho máximo do vocabulário.")] = 32_000,
) -> Report:
    """Treina um tokenizador BPE de bytes a partir dos seus textos."""
    from ptbr_slm.cli.data import left_out
    from ptbr_slm.data.document import DocumentCounts
    from ptbr_slm.data.pipeline import read_documents
    from ptbr_slm.storage.atomic import write_text
    from ptbr_slm.tokenizer import Tokenizer

    file = output / "tokenizer.json" if output.is_dir() else output
    check_output(file)
    words, counts = 0, DocumentCounts()

    def texts() -> Iterator[str]:
        nonlocal words
        for document in read_documents(inputs, counts=counts):
            words += len(document.text.split())
            yield document.text

    with out.progress("lendo textos e treinando o tokenizador"):
        tokenizer = Tokenizer.train(texts(), vocab_size)
    write_text(file, tokenizer.to_json())
    data = {"file": str(file), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256, "words": words,
            "dropped": dict(counts.dropped), "repaired": dict(counts.repaired),
            "examples": counts.examples}  # fmt: skip
    left = "".join(f"\n{line}" for line in left_out(counts.dropped, counts.repaired, counts.examples))
    text = (
        f"Tokenizador gravado em {file}\n"
        f"  {number(tokenizer.vocab_size)} tokens, aprendidos de {number(words)} palavras{left}\n\n"
        f"Próximo passo:\n  ptbr-slm data prepare TEXTOS -o dados --tokenizer {quoted(file)}"
    )
    return Report(data, text, brief=str(file))


@command(_group, "inspect")
def inspect(
    out: Output,
    text: Annotated[str, typer.Argument(metavar="TEXTO", help="Texto a dividir em tokens.")],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", metavar="T", help="tokenizer.json ou a pasta dele.")
    ],
) -> Report:
    """Mostra em que tokens um texto se divide."""
    from ptbr_slm.tokenizer import Tokenizer

    opened = Tokenizer.load(tokenizer)
    ids = opened.encode(text, special=False)
    pieces = opened.tokens(ids)
    words = len(text.split())
    per_word = len(ids) / words if words else 0.0
    data = {"ids": ids, "tokens": pieces, "words": words, "tokens_per_word": round(per_word, 4),
            "vocab_size": opened.vocab_size}  # fmt: skip
    shown = "|".join(piece.replace("\n", "⏎") for piece in pieces)
    summary = f"{number(len(ids))} tokens, {number(words)} palavras, {number(per_word, 2)} tokens por palavra"
    return Report(data, f"{shown}\n{summary}", brief=" ".join(map(str, ids)))
