"""The files that the servers open: one random model with room for a long prompt, in each tool's format."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import export_gguf

from ptbr_slm.bench.synthetic import invented_words, write_random_model
from ptbr_slm.config import model_config
from ptbr_slm.storage.atomic import atomic_file
from ptbr_slm.storage.model_folder import ModelFolder

CONTEXT = 2048
"""Tokens, of the model and of each slot of a server."""

PAIRS = (("int8", "Q8_0"), ("int4", "Q4_0"))
"""Our precision and llama.cpp's that is compared with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """Paths by precision."""

    source: Path
    ours: dict[str, Path]
    gguf: dict[str, Path]

    def prompts(self, tokens: int, *, seed: int) -> Iterator[str]:
        """Texts of exactly so many tokens, each another from its first word on: no prefix can be reused."""
        tokenizer = ModelFolder.of(self.source).tokenizer
        for number in count(seed * 1_000_000):
            words = " ".join(invented_words(tokens, seed=number))
            text = tokenizer.decode(tokenizer.encode(words)[:tokens])
            if len(tokenizer.encode(text)) == tokens:
                yield text


def make_models(size: str, folder: Path, progress: Callable[[str], None]) -> Models:
    """The model and our exports; what is missing below `folder` is made, the rest is kept."""
    source = folder / "model"
    if not source.exists():
        progress(f"drawing a random {size}")
        write_random_model(source, replace(model_config(size), max_seq_len=CONTEXT))
    models = Models(
        source=source,
        ours={precision: folder / precision for precision, _ in PAIRS},
        gguf={kind: folder / f"{kind}.gguf" for _, kind in PAIRS},
    )
    for precision, out in models.ours.items():
        if not out.exists():
            progress(f"exporting {precision}")
            export_model(source, out, precision=precision, verify=False)
    return models


def make_gguf(models: Models, llama_bin: Path, progress: Callable[[str], None]) -> None:
    """llama.cpp's files, quantised by its own tool from our f16 GGUF, where they are missing."""
    full = models.source.parent / "F16.gguf"
    for kind, path in models.gguf.items():
        if path.exists():
            continue
        if not full.exists():
            progress("writing GGUF F16")
            export_gguf(models.source, full, "fp16")
        progress(f"quantising to {kind}")
        with atomic_file(path) as temporary:
            words = [str(llama_bin / "llama-quantize"), str(full), str(temporary), kind]
            subprocess.run(words, check=True, capture_output=True)
