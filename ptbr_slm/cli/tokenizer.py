"""`ptbr-slm tokenizer train | inspect | compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptbr_slm.cli.command import command, verb_group
from ptbr_slm.cli.data_fetch import downloading
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number, parse_bytes, quoted

if TYPE_CHECKING:
    from ptbr_slm.cli.progress import Progress
    from ptbr_slm.data.document import DocumentCounts
    from ptbr_slm.tokenizer.compare import Fertility

_group = verb_group("Treina e examina tokenizadores.")


def register(app: typer.Typer) -> None:
    """Add `tokenizer` to the application."""
    app.add_typer(_group, name="tokenizer")


def check_output(file: Path) -> None:
    """Refuse, before any work, to replace a file that is no tokenizer. Raises E_EXISTS."""
    from ptbr_slm.storage.output import require_replaceable

    require_replaceable(
        file, lambda content: content.lstrip().startswith(b"{") and b'"model"' in content, "um tokenizador"
    )


@command(
    _group,
    "train",
    examples={
        "ptbr-slm tokenizer train textos -o tokenizer.json": "Com 32.000 tokens",
        "ptbr-slm tokenizer train textos -o tokenizer.json --vocab-size 4096": "Para um modelo pequeno",
    },
)
def train(
    out: Output,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="TEXTOS", help="O que data prepare lê: arquivos, pastas, nomes hf://."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ARQUIVO", help="Onde gravar o tokenizer.json.")
    ],
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tamanho máximo do vocabulário.")] = 32_000,
    sample: Annotated[
        str,
        typer.Option(
            "--sample",
            metavar="TAMANHO",
            help="Aprende de uma amostra ao acaso deste tamanho, que fica na memória; 0 usa o texto todo.",
        ),
    ] = "100MB",
    seed: Annotated[int, typer.Option("--seed", help="Muda a amostra.")] = 0,
) -> Report:
    """Treina um tokenizador BPE de bytes com os seus textos."""
    from ptbr_slm.cli.data import left_out
    from ptbr_slm.data.document import DocumentCounts
    from ptbr_slm.data.pipeline import read_documents
    from ptbr_slm.data.read.files import total_bytes
    from ptbr_slm.data.sources.hub_inputs import local_inputs
    from ptbr_slm.storage.atomic import write_text
    from ptbr_slm.tokenizer import Tokenizer

    file = output / "tokenizer.json" if output.is_dir() else output
    check_output(file)
    budget = _sample_size(sample)
    with downloading(out, inputs) as options:
        local = local_inputs(inputs, options).paths
    words, size, counts = 0, 0, DocumentCounts()

    def texts() -> Iterator[str]:
        nonlocal words, size
        for document in read_documents(local, counts=counts):
            words += len(document.text.split())
            size += len(document.text.encode("utf-8"))
            yield document.text

    with out.progress("lendo textos e treinando o tokenizador", total_bytes(local) or None) as bar:
        reading = _watched(texts(), counts, bar)
        tokenizer = Tokenizer.train(_sampled(reading, budget, seed), vocab_size)
    write_text(file, tokenizer.to_json())
    sampled = budget if 0 < budget < size else None
    data = {"file": str(file), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256, "words": words,
            "sample_bytes": sampled, "dropped": dict(counts.dropped), "repaired": dict(counts.repaired),
            "examples": counts.examples}  # fmt: skip
    left = "".join(f"\n{line}" for line in left_out(counts.dropped, counts.repaired, counts.examples))
    source = (
        f"{number(words)} palavras"
        if sampled is None
        else f"uma amostra de {sample} de {number(words)} palavras"
    )
    text = (
        f"Tokenizador gravado em {file}\n"
        f"  {number(tokenizer.vocab_size)} tokens, aprendidos de {source}{left}\n\n"
        f"Próximo passo:\n  ptbr-slm data prepare TEXTOS -o dados --tokenizer {quoted(file)}"
    )
    return Report(data, text, brief=str(file))


@command(
    _group,
    "compare",
    examples={
        "ptbr-slm tokenizer compare novos.txt --tokenizer tokenizer.json --with outro.json": "O seu e outro"
    },
)
def compare(
    out: Output,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="TEXTOS", help="Textos que nenhum dos tokenizadores viu no treino."),
    ],
    others: Annotated[
        list[Path],
        typer.Option(
            "--with",
            metavar="ARQUIVO",
            help="tokenizer.json, modelo SentencePiece (.model), tekken.json ou ranks do tiktoken; "
            "pode-se repetir.",
        ),
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", metavar="T", help="O seu, com que os outros se comparam (padrão: o primeiro)."
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="ARQUIVO.svg", help="Grava um gráfico neste arquivo.")
    ] = None,
    sample: Annotated[
        str,
        typer.Option(
            "--sample",
            metavar="TAMANHO",
            help="Mede numa amostra ao acaso deste tamanho; 0 usa o texto todo.",
        ),
    ] = "20MB",
    seed: Annotated[int, typer.Option("--seed", help="Muda a amostra.")] = 0,
) -> Report:
    """Compara tokenizadores nos mesmos textos.

    Tokens por palavra e bytes por token.
    """
    from ptbr_slm.data.document import DocumentCounts
    from ptbr_slm.data.pipeline import read_documents
    from ptbr_slm.data.read.files import total_bytes
    from ptbr_slm.data.sources.hub_inputs import local_inputs
    from ptbr_slm.tokenizer import compare as comparison
    from ptbr_slm.tokenizer.foreign import looks_like_tokenizer, open_tokenizer

    if svg is not None:
        from ptbr_slm.storage.output import require_replaceable

        require_replaceable(svg, lambda content: b"<svg" in content[:1000], "um SVG")
    budget = _sample_size(sample)
    texts = [path for path in inputs if not looks_like_tokenizer(path)]
    # A shell's `--with *.json` gives the option the first file, and the rest to the texts.
    paths = [*([tokenizer] if tokenizer else []), *others, *(path for path in inputs if path not in texts)]
    if not texts:
        raise SlmError(
            "E_USAGE",
            "faltam os textos em que comparar.",
            where="TEXTOS",
            hint="Exemplo:  ptbr-slm tokenizer compare noticias.txt --with outro/tokenizer.json",
        )
    encoders = {name: open_tokenizer(path) for name, path in zip(_distinct_names(paths), paths, strict=True)}
    counts = DocumentCounts()
    with downloading(out, texts) as options:
        local = local_inputs(texts, options).paths
    with out.progress("comparando", total_bytes(local) or None) as bar:
        reading = (document.text for document in read_documents(local, counts=counts))
        compared = comparison.compare(_sampled(_watched(reading, counts, bar), budget, seed), encoders)
    if not compared[0].words:
        raise SlmError(
            "E_DATA_EMPTY",
            "não há texto em que comparar os tokenizadores.",
            where=", ".join(map(str, texts)),
            hint="Confira os arquivos de entrada.",
        )
    if svg is not None:
        from ptbr_slm.storage.atomic import write_text

        write_text(svg, comparison.plot(compared))
    return _comparison_report(compared, paths, svg)


def _comparison_report(compared: Sequence[Fertility], paths: Sequence[Path], svg: Path | None) -> Report:
    """The table; `difference` is the share of tokens more than the first tokenizer's."""
    first = compared[0]
    results = [
        {
            "name": each.name,
            "file": str(path),
            "vocab_size": each.vocab_size,
            "tokens": each.tokens,
            "tokens_per_word": round(each.tokens_per_word, 4),
            "bytes_per_token": round(each.bytes_per_token, 4),
            "unknown": each.unknown,
            "difference": round(each.tokens / first.tokens - 1, 4),
        }
        for each, path in zip(compared, paths, strict=True)
    ]
    rows = [
        (
            each.name,
            number(each.vocab_size),
            number(each.tokens_per_word, 3),
            number(each.bytes_per_token, 2),
            ""
            if each is first
            else f"{'+' if each.tokens >= first.tokens else '-'}"
            f"{number(abs(100 * (each.tokens / first.tokens - 1)), 1)} %",
            number(each.unknown),
        )
        for each in compared
    ]
    header = ("tokenizador", "vocabulário", "tokens/palavra", "bytes/token", "tokens a mais", "sem token")
    lines = [
        f"{number(first.words)} palavras, {number(first.bytes)} bytes",
        "",
        table(rows, header=header),
        "",
        "tokens/palavra: menos é melhor. bytes/token: mais é melhor.",
    ]
    if any(each.unknown for each in compared):
        lines.append("sem token: trechos que o vocabulário não sabe escrever; a conta fica melhor do que é.")
    if svg is not None:
        lines.append(f"Gráfico: {svg}")
    data = {"words": first.words, "bytes": first.bytes, "tokenizers": results,
            "svg": None if svg is None else str(svg)}  # fmt: skip
    return Report(data, "\n".join(lines), brief=f"{first.tokens_per_word:.4f}")


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each tokenizer: as much of the end of its path as tells it from the others."""
    names: list[str] = []
    for path in paths:
        parts = path.parts if path.is_dir() or path.name not in _COMMON_NAMES else path.parts[:-1]
        name = parts[-1] if parts else str(path)
        if name in names:
            name = str(path)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


_COMMON_NAMES = ("tokenizer.json", "tekken.json", "tokenizer.model", "spiece.model")


def _sample_size(text: str) -> int:
    """Bytes of `--sample`. Raises E_USAGE."""
    try:
        return parse_bytes(text)
    except ValueError:
        raise SlmError(
            "E_USAGE", f"não entendi o tamanho {text!r}.", where="--sample", hint="Exemplo: --sample 200MB"
        ) from None


def _watched(texts: Iterable[str], counts: DocumentCounts, bar: Progress) -> Iterator[str]:
    for text in texts:
        bar.update(counts.input_bytes)
        yield text


def _sampled(texts: Iterable[str], budget: int, seed: int) -> Iterable[str]:
    from ptbr_slm.tokenizer.sample import sample_texts

    return sample_texts(texts, budget, seed=seed) if budget else texts


@command(
    _group,
    "inspect",
    examples={
        'ptbr-slm tokenizer inspect "Não há ação." --tokenizer tokenizer.json': "Os tokens de uma frase"
    },
)
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
