"""What is known of a model, for its card: read from its folder and from the opened model, never typed.

What is not known has no line. No Gradio here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.app.figures import format_of
from ptbr_slm.app.language import Language
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.results import NAME as RESULTS
from ptbr_slm.eval.subject import identity_of
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import number

Row = tuple[str, str]
"""Label and value."""

_CHECKS = {
    "logits": ("maior diferença de um logit", "largest difference of a logit"),
    "greedy": ("continuações gulosas diferentes", "greedy continuations that differ"),
    "cosine": ("semelhança dos logits (cosseno)", "likeness of the logits (cosine)"),
    "weights": ("arredondamento dos pesos guardados", "rounding of the stored weights"),
    "parts": ("cálculo do grafo, parte por parte", "computation of the graph, part by part"),
    "chunked_prefill": (
        "texto inteiro = em blocos = token a token",
        "whole text = in blocks = token by token",
    ),
    "ragged_batch": ("linhas de um lote = cada uma sozinha", "rows of a batch = each alone"),
    "mask": ("lote desigual lido pela máscara", "uneven batch read through its mask"),
    "bits_per_byte": ("mudança dos bits por byte", "change in bits per byte"),
}
"""Checks of an export's manifest; a later version's have their own name."""

_COMPARED = ("Comparação com o PyTorch, ao exportar", "Comparison with PyTorch, when it was exported")

MOST_RESULTS = 200
"""Folders of results that are looked at."""
LARGEST_TEXT = 1_000_000
"""Bytes of a file beside the model that is read for the card."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the card."""

    title: str
    rows: tuple[Row, ...] = ()
    markdown: str = ""
    """Text of the model's folder, or of its evaluation, as it stands there."""
    folded: bool = False
    """Whether it is for few, and shown on demand."""


def sections(model: Model, language: Language = "pt") -> list[Section]:
    """The parts of the card that have something to say."""
    say = Words(language)
    facts, files = _manifest(model.path)
    found = [
        Section(say("Tamanho e forma", "Size and shape"), tuple(_shape(model, say))),
        Section(say("Formato", "Format"), tuple(_format(model, facts, say))),
        Section(say("Treino e dados", "Training and data"), tuple(_training(facts, say))),
        Section(say("Bits por byte", "Bits per byte"), tuple(_bits(facts, say))),
        Section(say(*_COMPARED), tuple(_parity(facts, say))),
        Section(say("Avaliação", "Evaluation"), markdown=_evaluation(model, files)),
        Section(
            say("O que diz quem o fez", "What its makers say"), markdown=_text_of(model.path / "README.md")
        ),
        Section(say("Arquivos (sha256)", "Files (sha256)"), tuple(_files(files, say)), folded=True),
    ]
    return [section for section in found if section.rows or section.markdown]


def measured_bits(model: Model) -> tuple[float, Mapping[str, Any]] | None:
    """Bits per byte and what they were measured on (`HeldOut.facts`), where the folder tells both.

    Two values can be compared where the second parts agree.
    """
    facts, _ = _manifest(model.path)
    value, measured = facts.get("bits_per_byte"), dict(_mapping(facts.get("held_out")))
    measured.pop("sampled", None)  # how an export's change was measured, not on which text
    return (value, measured) if isinstance(value, float) and _count(measured.get("targets")) else None


def _manifest(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a folder's manifest says, and its files; nothing where there is none of ours, or it changed."""
    try:
        manifest = ModelFolder(folder).manifest
    except SlmError:
        manifest = None
    return ({}, {}) if manifest is None else (manifest.extra, manifest.files)


class Words:
    """Sentences and numbers in one language."""

    def __init__(self, language: Language) -> None:
        self.english = language == "en"

    def __call__(self, portuguese: str, english: str) -> str:
        """The one in the visitor's language."""
        return english if self.english else portuguese

    def number(self, value: float, decimals: int = 0) -> str:
        """12345.6 -> '12.346' in Portuguese, '12,346' in English."""
        return f"{value:,.{decimals}f}" if self.english else number(value, decimals)

    def significant(self, value: float) -> str:
        """0.0123712 -> '0,0124'; 2.9e-06 -> '2,9e-06'."""
        text = f"{value:.3g}"
        return text if self.english else text.replace(".", ",")

    def bytes(self, value: float) -> str:
        """85_300_000 -> '85,3 MB'; 681 -> '681 bytes'."""
        for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
            if value >= size:
                return f"{self.number(value / size, 1)} {name}"
        return f"{self.number(value)} bytes"


def _shape(model: Model, say: Words) -> Iterator[Row]:
    config = model.engine.config
    yield say("Parâmetros", "Parameters"), say.number(config.num_parameters)
    yield say("Camadas", "Layers"), say.number(config.num_layers)
    yield say("Largura", "Width"), say.number(config.hidden_size)
    heads = f"{say.number(config.num_heads)} × {config.head_dim}"
    shared = say(f"{config.num_kv_heads} de chaves e valores", f"{config.num_kv_heads} of keys and values")
    yield say("Cabeças de atenção", "Attention heads"), f"{heads}, {shared}"
    yield "Feed-forward", say.number(config.intermediate_size)
    yield say("Contexto", "Context"), f"{say.number(config.max_seq_len)} tokens"
    yield say("Vocabulário", "Vocabulary"), f"{say.number(config.vocab_size)} tokens"
    if config.tie_embeddings:
        yield (
            say("Embedding", "Embedding"),
            say("o mesmo na entrada e na saída", "the same at input and output"),
        )


def _format(model: Model, facts: Mapping[str, Any], say: Words) -> Iterator[Row]:
    described = model.describe()
    yield say("Formato", "Format"), format_of(described)
    recipe = _mapping(facts.get("recipe"))
    if recipe.get("bits") and recipe.get("block"):
        head, best = recipe.get("head_bits"), recipe.get("head_rescored")
        text = say(
            f"{recipe['bits']} bits em blocos de {recipe['block']}, saída em {head} bits",
            f"{recipe['bits']} bits in blocks of {recipe['block']}, output in {head} bits",
        )
        if best:
            text += say(f", os {best} melhores logits em 8", f", the {best} best logits in 8")
        yield say("Quantização", "Quantisation"), f"{text} ({recipe.get('method')})"
    if described.get("file_bytes"):
        yield say("Tamanho", "Size"), say.bytes(described["file_bytes"])
    yield say("Onde está rodando", "Where it runs"), "GPU (CUDA)" if described["device"] == "cuda" else "CPU"
    if facts.get("ptbr_slm"):
        yield say("Feito com", "Made with"), f"ptbr-slm {facts['ptbr_slm']}"
    if facts.get("source_sha256"):
        yield say("Exportado do modelo", "Exported from the model"), f"sha256 {facts['source_sha256']}"


def _training(facts: Mapping[str, Any], say: Words) -> Iterator[Row]:
    """Of a model its own manifest tells it, of an export `trained` in it."""
    made = _mapping(facts.get("trained")) or facts
    if made.get("init_from"):
        yield say("Continuou do modelo", "Went on from the model"), str(made["init_from"])
    if _count(made.get("steps")):
        yield say("Passos", "Steps"), say.number(made["steps"])
    if _count(made.get("tokens")):
        yield say("Tokens lidos", "Tokens read"), say.number(made["tokens"])
    yield from _data(_mapping(made.get("data")), say)
    cooldown = _mapping(made.get("cooldown_data"))
    if _count(cooldown.get("from_step")):
        first = say.number(cooldown["from_step"])
        yield (
            say("Dados do resfriamento", "Data of the cooldown"),
            say(f"desde o passo {first}", f"from step {first} on"),
        )
    yield from _data(cooldown, say)
    teacher = _mapping(made.get("distilled_from"))
    if teacher.get("teacher"):
        yield say("Aprendeu também de", "Learnt also from"), str(teacher["teacher"])
    tuning = _mapping(made.get("tuning"))
    if tuning.get("base"):
        yield say("Ajustado a partir de", "Tuned from"), str(tuning["base"])
    if _count(tuning.get("conversations")):
        told = say.number(tuning["conversations"])
        yield (
            say("Conversas", "Conversations"),
            say(f"{told} de {tuning['data']}", f"{told} of {tuning['data']}"),
        )


def _data(data: Mapping[str, Any], say: Words) -> Iterator[Row]:
    if data.get("name"):
        yield say("Dados", "Data"), f"{data['name']} (sha256 {str(data.get('sha256'))[:16]})"
    if all(_count(data.get(key)) for key in ("documents", "bytes", "tokens")):
        documents, tokens = say.number(data["documents"]), say.number(data["tokens"])
        size = say.bytes(data["bytes"])
        yield (
            say("Tamanho dos dados", "Size of the data"),
            say(
                f"{documents} documentos, {size} de texto, {tokens} tokens",
                f"{documents} documents, {size} of text, {tokens} tokens",
            ),
        )
    for source in data.get("sources") or ():
        pins = ", ".join(str(_mapping(pin).get("repo") or "") for pin in _mapping(source).get("hub") or ())
        told = [str(_mapping(source).get("licence") or ""), pins]
        details = ", ".join(filter(None, told))
        name = str(_mapping(source).get("name") or "")
        yield say("Fonte", "Source"), name + (f" ({details})" if details else "")
    licences = _mapping(data.get("licences"))
    for licence, documents in licences.items():
        name = str(licence) or say("não informada", "not told")
        yield (
            say("Licença dos textos", "Licence of the texts"),
            say(f"{name}: {say.number(documents)} documentos", f"{name}: {say.number(documents)} documents"),
        )


def _bits(facts: Mapping[str, Any], say: Words) -> Iterator[Row]:
    value, measured = facts.get("bits_per_byte"), _mapping(facts.get("held_out"))
    if not isinstance(value, float):
        return
    yield say("Bits por byte", "Bits per byte"), say.number(value, 3)
    if _count(measured.get("targets")) and _count(measured.get("bytes")):
        targets, size = say.number(measured["targets"]), say.bytes(measured["bytes"])
        yield (
            say("Medidos em", "Measured on"),
            say(
                f"{targets} tokens ({size}) de texto que não entrou no treino",
                f"{targets} tokens ({size}) of text that was not trained on",
            ),
        )
    if _count(measured.get("sampled")):
        sampled = say.number(measured["sampled"])
        yield (
            say("Mudança por esta precisão", "Change by this precision"),
            say(f"medida em {sampled} deles", f"measured on {sampled} of them"),
        )
    if _count(measured.get("seq_len")):
        yield say("Lido em janelas de", "Read in windows of"), f"{say.number(measured['seq_len'])} tokens"


def _parity(facts: Mapping[str, Any], say: Words) -> Iterator[Row]:
    parity = _mapping(facts.get("parity"))
    for check in parity.get("checks") or ():
        one = _mapping(check)
        if not isinstance(one.get("value"), float | int):
            continue
        label = say(*_CHECKS.get(str(one.get("name")), (str(one.get("name")),) * 2))
        if one.get("name") == "cosine":
            value, bound = say.number(one["value"], 5), say("mínimo", "least")
        else:
            value, bound = say.significant(one["value"]), say("limite", "limit")
        yield label, f"{value} ({bound} {say.significant(one['limit'])})"
    if parity.get("provider"):
        where = str(parity["provider"]).removesuffix("ExecutionProvider")
        if parity.get("stand_in"):
            where += say(" no lugar da GPU", " in place of the GPU")
        yield say("O ONNX rodou em", "ONNX ran on"), where


def _files(files: Mapping[str, Any], say: Words) -> Iterator[Row]:
    for name, entry in files.items():
        yield f"{name} · {say.bytes(entry['size'])}", str(entry["sha256"])


def _evaluation(model: Model, files: Mapping[str, Any]) -> str:
    """The report of `ptbr-slm eval` on this very model, if it lies beside it or in the working folder.

    Its identity is compared, so that nobody's figures stand on another model's card.
    """
    facts = model.describe()
    hashes = {name: str(entry["sha256"]) for name, entry in files.items()}
    identity: str | None = None
    for folder in _result_folders(model.path):
        try:
            measured = json.loads(_text_of(folder / RESULTS) or "null")
            wanted = measured["model"]["identity"]
        except (ValueError, TypeError, KeyError):
            continue
        if identity is None:
            known = (str(facts["engine"]), str(facts["device"]), str(facts["precision"]))
            identity = identity_of(model.path, *known, hashes=hashes)
        if wanted == identity:
            return _text_of(folder / "cartao.md").replace("## Avaliação\n", "", 1)
    return ""


def _result_folders(folder: Path) -> Sequence[Path]:
    """Where results may lie: in `avaliacao` of the model's folder, of those around it, of the working one."""
    roots = [near / "avaliacao" for near in (folder, *list(folder.resolve().parents)[:2], Path())]
    found = [path.parent for root in roots for path in (root / RESULTS, *sorted(root.glob(f"*/{RESULTS}")))]
    return list(dict.fromkeys(found))[:MOST_RESULTS]


def _text_of(file: Path) -> str:
    """The content of a file that may be missing, is no text, or is too long to be shown: then ''."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_TEXT:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mapping(value: object) -> Mapping[str, Any]:
    """What a manifest of somebody else's may say in place of an object is no object."""
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
