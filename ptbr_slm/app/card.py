"""The model card beside the text: only what `Model.describe()` measured or read from the manifest."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_DEVICES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}
_ENGINES = {"onnx": "ONNX", "torch": "PyTorch"}


def rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) in Portuguese; what the model does not know has no row."""
    made = [
        ("Parâmetros", _maybe(facts.get("parameters"), short_count)),
        ("Formato", _format(facts)),
        ("Tamanho", _maybe(facts.get("file_bytes"), megabytes)),
        ("Dispositivo", _maybe(facts.get("device"), lambda name: _DEVICES.get(name, str(name)))),
        ("Contexto", _maybe(facts.get("context"), lambda n: f"{thousands(n)} tokens")),
        ("Vocabulário", _maybe(facts.get("vocab_size"), lambda n: f"{thousands(n)} tokens")),
        ("Bits por byte", _maybe(facts.get("bits_per_byte"), lambda v: f"{v:.2f}".replace(".", ","))),
    ]
    return [(label, value) for label, value in made if value]


def card(facts: Mapping[str, Any]) -> str:
    """The card as HTML."""
    lines = "".join(
        f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>" for label, value in rows(facts)
    )
    return f"<h2>Modelo</h2><dl>{lines}</dl>"


def _format(facts: Mapping[str, Any]) -> str:
    engine = str(facts.get("engine") or "")
    return " ".join(filter(None, [_ENGINES.get(engine, engine), str(facts.get("precision") or "")]))


def _maybe(value: Any, show: Any) -> str:
    return "" if value is None else str(show(value))


def thousands(value: int) -> str:
    """32000 -> '32.000'."""
    return f"{value:,}".replace(",", ".")


def short_count(value: int) -> str:
    """87_500_000 -> '87,5 milhões'."""
    for size, one, many in [
        (10**9, "bilhão", "bilhões"),
        (10**6, "milhão", "milhões"),
        (10**3, "mil", "mil"),
    ]:
        if value >= size:
            scaled = round(value / size, 1)
            text = f"{scaled:.1f}".removesuffix(".0").replace(".", ",")
            return f"{text} {one if scaled < 2 else many}"
    return str(value)


def megabytes(value: float) -> str:
    """85_300_000 -> '85,3 MB'."""
    return f"{value / 1e6:.1f} MB".replace(".", ",")
