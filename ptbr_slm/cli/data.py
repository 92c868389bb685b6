"""`ptbr-slm data fetch | prepare | stats | audit | teacher-logits`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptbr_slm.cli.command import command, verb_group
from ptbr_slm.cli.data_fetch import downloading, register_fetch
from ptbr_slm.cli.data_teacher import register_teacher_logits
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.text import human_bytes, number, quoted

if TYPE_CHECKING:
    from ptbr_slm.data.prepared import Summary

_group = verb_group("Baixa, prepara e resume dados de treino.")


def register(app: typer.Typer) -> None:
    """Add `data` to the application."""
    app.add_typer(_group, name="data")


register_fetch(_group)


@command(
    _group,
    "prepare",
    examples={
        "ptbr-slm data prepare textos -o dados --tokenizer tokenizer.json": "Uma pasta de textos",
        "ptbr-slm data prepare web.jsonl -o dados --tokenizer tokenizer.json --preset web "
        "--drop-near-duplicates": "Páginas da internet, com filtros",
        "ptbr-slm data prepare --mix fontes.toml -o dados --tokenizer tokenizer.json": "Várias fontes",
    },
)
def prepare(
    out: Output,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar os dados preparados.")
    ],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", metavar="T", help="tokenizer.json ou a pasta dele.")
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ENTRADA",
            help="Arquivos .txt, .md, .jsonl, .csv, .html, .parquet ou .xml (MediaWiki), comprimidos (.gz, "
            ".zst, .bz2, .xz) ou em .zip e .tar; pastas com eles; padrões ('textos/**/*.txt'); "
            "hf://datasets/DONO/NOME, do Hugging Face (podem seguir @REVISÃO e /CAMINHO); - lê do terminal.",
        ),
    ] = None,
    mix: Annotated[
        Path | None,
        typer.Option(
            "--mix",
            metavar="F.toml",
            help="Mistura de fontes: tabelas [[source]] com inputs, weight, preset, rules, variety, mask, "
            "licence e stages.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="LIMPEZA",
            help="web (páginas da internet), curated (livros, leis, enciclopédias) ou none (padrão).",
        ),
    ] = None,
    drop_near_duplicates: Annotated[
        bool, typer.Option("--drop-near-duplicates", help="De documentos quase iguais fica só o primeiro.")
    ] = False,
    repeat_copies: Annotated[
        bool,
        typer.Option(
            "--repeat-copies",
            help="O mesmo, e repete de 2 a 8 vezes o que tinha de 2 a 1.000 cópias (pesos do FineWeb2).",
        ),
    ] = False,
    mask_personal_data: Annotated[
        bool,
        typer.Option("--mask-personal-data", help="Troca CPF, telefone, e-mail etc. por [CPF], [EMAIL]..."),
    ] = False,
    keep_personal_data: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-personal-data",
            metavar="TIPO",
            help="O que fica sem máscara: cnpj, email, phone, ...; pode repetir.",
        ),
    ] = None,
    variety: Annotated[
        Literal["any", "br", "pt"],
        typer.Option(
            "--variety",
            help="br ou pt: tira o que é com certeza da outra variedade do português; o duvidoso fica.",
        ),
    ] = "any",
    evaluation_sets: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation-sets",
            metavar="ARQUIVO",
            help="Conjunto de avaliação que não pode estar nos dados; pode repetir.",
        ),
    ] = None,
    text_field: Annotated[
        str, typer.Option("--text-field", metavar="CAMPO", help="Campo do texto em JSONL, CSV e Parquet.")
    ] = "text",
    max_wrong: Annotated[
        float,
        typer.Option(
            "--max-wrong",
            metavar="PARTE",
            help="Parte de cada fonte, de 0 a 1, que pode estar errada (linhas que não são JSON, arquivos "
            "quebrados...); acima dela, e de 100, a preparação para.",
        ),
    ] = 0.01,
    valid_fraction: Annotated[
        float, typer.Option("--valid-fraction", help="Parte do texto para validação, de 0 a 0.5.")
    ] = 0.01,
    paragraph_documents: Annotated[
        bool,
        typer.Option(
            "--paragraph-documents", help="Nos .txt, cada bloco entre linhas em branco é um documento."
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Muda quais documentos ficam para validação.")] = 0,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            help="Processos que limpam e tokenizam (0: conforme os núcleos e a entrada).",
        ),
    ] = 0,
) -> Report:
    """Limpa textos e grava tokens prontos para treinar.

    Tira cópias, e separa treino e validação.
    """
    from ptbr_slm.data.document import DocumentCounts
    from ptbr_slm.data.mixture import plan
    from ptbr_slm.data.pipeline import prepare
    from ptbr_slm.data.presets import DEFAULT
    from ptbr_slm.data.read.files import total_bytes
    from ptbr_slm.data.recipe import SourceOptions
    from ptbr_slm.data.workers import workers_for
    from ptbr_slm.tokenizer import Tokenizer

    opened = Tokenizer.load(tokenizer)
    counts = DocumentCounts()
    recipe = plan(
        inputs or [],
        mix=mix,
        options=SourceOptions(
            preset=preset or DEFAULT,
            text_field=text_field,
            paragraph_documents=paragraph_documents,
            max_wrong=max_wrong,
            variety=variety,
            mask=mask_personal_data,
            keep=tuple(keep_personal_data or ()),
        ),
        drop_near_duplicates=drop_near_duplicates,
        repeat_copies=repeat_copies,
        evaluation=evaluation_sets or [],
    )
    with downloading(out, [path for source in recipe.sources for path in source.inputs]) as options:
        recipe = recipe.with_local_inputs(options)
    input_bytes = total_bytes([path for source in recipe.sources for path in source.inputs])
    with out.progress("preparando", input_bytes) as progress:
        data = prepare(
            [],
            output,
            opened,
            recipe=recipe,
            workers=workers or workers_for(input_bytes),
            valid_fraction=valid_fraction,
            paragraph_documents=paragraph_documents,
            seed=seed,
            counts=counts,
            progress=lambda now: progress.update(now.input_bytes, f"{now.tokens} tokens"),
        )
    summary = data.summary()
    text = (
        f"Dados preparados em {output}\n\n{_describe(summary, counts.examples)}\n\n"
        f"Próximo passo:\n  ptbr-slm train --data {quoted(output)} --output runs/meu-modelo --model-size mini"
    )
    return Report({**asdict(summary), "examples": counts.examples}, text, brief=str(output))


@command(_group, "stats", examples={"ptbr-slm data stats dados": "O que há na pasta dados"})
def stats(
    out: Output,
    folder: Annotated[Path, typer.Argument(metavar="PASTA", help="Pasta feita por data prepare.")],
) -> Report:
    """Confere os dados preparados e conta o que há neles.

    Documentos, palavras, bytes, tokens e descartes.
    """
    from ptbr_slm.data.prepared import PreparedData

    with out.progress("conferindo"):
        data = PreparedData.open(folder)
    summary = data.summary()
    text = f"Dados íntegros em {data.folder}\n\n{_describe(summary, {})}"
    return Report(asdict(summary), text, brief=f"{summary.tokens} tokens")


@command(_group, "audit", examples={"ptbr-slm data audit dados": "A página dados/auditoria.html"})
def audit(
    out: Output,
    folder: Annotated[Path, typer.Argument(metavar="PASTA", help="Pasta feita por data prepare.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="ARQUIVO.html", help="A página (padrão: PASTA/auditoria.html)."
        ),
    ] = None,
) -> Report:
    """Faz uma página HTML do que saiu e do que ficou.

    Fontes, licenças, tamanhos, exemplos de cada regra e limites que se movem.
    """
    from ptbr_slm.data.audit.collect import collect
    from ptbr_slm.data.audit.page import render
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.storage.atomic import write_text
    from ptbr_slm.storage.output import require_replaceable

    with out.progress("lendo os dados preparados"):
        data = PreparedData.open(folder, verify=False)
        file = output or data.folder / "auditoria.html"
        require_replaceable(file, lambda content: b"<html" in content[:1000], "uma página HTML")
        audited = collect(data)
        page = render(audited)
        write_text(file, page)
    summary = data.summary()
    size = len(page.encode("utf-8"))
    result = {"file": str(file), "bytes": size, "documents": summary.documents, "dropped": summary.dropped,
              "sampled": len(audited.sample), "records": audited.complete}  # fmt: skip
    text = (
        f"Página em {file} ({human_bytes(size)}); abra-a no navegador, sem internet.\n"
        f"  {number(summary.documents)} documentos ficaram, {number(sum(summary.dropped.values()))} saíram"
    )
    return Report(result, text, brief=str(file))


register_teacher_logits(_group)


def _describe(summary: Summary, examples: Mapping[str, Sequence[str]]) -> str:
    """The table of both splits, then what was dropped and repaired."""
    train, valid = summary.splits["train"], summary.splits["valid"]
    rows = [
        (
            name,
            *(number(count) for count in (part.documents, part.words, part.tokens)),
            human_bytes(part.bytes),
        )
        for name, part in (("treino", train), ("validação", valid), ("total", summary))
    ]
    lines = [
        table(rows, header=("", "documentos", "palavras", "tokens", "texto")),
        "",
        f"{number(summary.tokens_per_word, 2)} tokens por palavra, "
        f"{number(summary.bytes_per_token, 2)} bytes por token, "
        f"vocabulário de {number(summary.vocab_size)}",
    ]
    lines += _varieties(summary.varieties)
    lines += left_out(summary.dropped, summary.repaired, examples)
    lines += warnings(summary.excessive_rules)
    wanted, share = summary.valid_fraction, summary.valid_share
    if not valid.documents:
        reason = (
            "um documento só, curto, não se divide (veja --paragraph-documents)" if wanted else "como pedido"
        )
        lines += ["", f"Não há validação: {reason}."]
    elif not wanted / 2 <= share <= 2 * wanted:
        lines += [
            "",
            f"A validação ficou com {number(100 * share, 1)} % do texto, e não {number(100 * wanted, 1)} %: "
            "documentos curtos não se dividem.",
        ]
    return "\n".join(lines)


def warnings(excessive: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines that tell of each rule that took more of a source than cleaning should, after an empty one."""
    from ptbr_slm.data.document import REASONS

    lines = [""] if excessive else []
    for rule in excessive:
        reason = REASONS.get(rule["reason"], rule["reason"])
        lines += [
            f"Atenção: {number(100 * rule['share'], 0)} % de {rule['source']} ficou de fora: {reason}.",
            "  Se o texto é bom, use --preset curated ou none para essa fonte, ou desligue a regra.",
        ]
    return lines


def _varieties(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The table of varieties after an empty line; nothing where none was looked for."""
    names = {"br": "do Brasil", "pt": "de Portugal", "unknown": "não se sabe"}
    rows = [
        (name, number(counts.get(code, {}).get("kept", 0)), number(counts.get(code, {}).get("dropped", 0)))
        for code, name in names.items()
    ]
    return ["", table(rows, header=("variedade", "ficaram", "saíram"))] if counts else []


def left_out(
    dropped: Mapping[str, int], repaired: Mapping[str, int], examples: Mapping[str, Sequence[str]]
) -> list[str]:
    """Lines that say what was dropped and what was repaired, with one example of each; none for nothing."""
    from ptbr_slm.data.document import REASONS, REPAIRS

    lines: list[str] = []
    for title, counts, names in (
        ("Ficou de fora", dropped, REASONS),
        ("Foi consertado", repaired, REPAIRS),
    ):
        if counts:
            lines += ["", f"{title}:"]
        for key, count in sorted(counts.items(), key=lambda item: -item[1]):
            example = f"  (por exemplo {examples[key][0]})" if examples.get(key) else ""
            lines.append(f"  {number(count)} × {names.get(key, key)}{example}")
    return lines
