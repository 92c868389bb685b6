"""Draws the pairs of each phenomenon and writes the package's data files.

The method is that of BLiMP (Warstadt et al. 2020, arXiv:1912.00582): sentences from templates and an
annotated lexicon, one contrast a phenomenon. As in MultiBLiMP (Jumelet et al. 2025, arXiv:2504.02768), the
bad member is the good one with one feature of one word changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon
from ptbr_slm.eval.grammar.phenomena import ALL

VERSION = "1.0"
PAIRS = 100
"""Of each phenomenon."""
_PATIENCE = 200_000
"""Draws after which a phenomenon is taken to have no more contrasts."""


def draw_contrasts(phenomenon: Phenomenon, pairs: int = PAIRS) -> list[Contrast]:
    """Contrasts with `pairs` pairs in all, no sentence twice, words repeated within the limit.

    Raises ValueError where the phenomenon has not so many.
    """
    seen: set[str] = set()
    used: Counter[str] = Counter()
    found: list[Contrast] = []
    stream = phenomenon.contrasts(Draw(phenomenon.name))
    for _ in range(_PATIENCE):
        contrast = next(stream)
        sentences = [text for pair in contrast.pairs() for text in pair]
        lemmas = set(contrast.lemmas)
        if any(used[lemma] >= phenomenon.repeats for lemma in lemmas):
            continue
        if len(set(sentences)) < len(sentences) or seen.intersection(sentences):
            continue
        seen.update(sentences)
        used.update(lemmas)
        found.append(contrast)
        if sum(len(one.frames) for one in found) >= pairs:
            return found
    raise ValueError(f"{phenomenon.name}: {sum(len(one.frames) for one in found)} pairs of {pairs}")


def lines(phenomenon: Phenomenon) -> list[dict[str, str | int]]:
    """The rows of a phenomenon's file, in the fields of BLiMP."""
    rows: list[dict[str, str | int]] = []
    for number, contrast in enumerate(draw_contrasts(phenomenon)):
        for good, bad in contrast.pairs():
            rows.append(
                {
                    "id": f"{phenomenon.name}-{len(rows) + 1:03d}",
                    "contrast": number + 1,
                    "sentence_good": good,
                    "sentence_bad": bad,
                }
            )
    return rows


_TASK = """\
task: ptbr_grammar_{name}
tag: [ptbr_grammar, ptbr_grammar_{group}]
dataset_path: json
dataset_kwargs:
  data_files: {{test: ../../grammar/data/pairs/{name}.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: ""
target_delimiter: ""
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
doc_to_target: 0
num_fewshot: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: "{version}"
  title: "{title}"
  licence: CC-BY-4.0
  source: docs/GRAMATICA.md
  protocol: "pares mínimos ({register}): a frase certa deve ter a maior soma de log-probabilidades"
  chance: 0.5
"""
"""A task file of lm-evaluation-harness, as its blimp tasks. `data_files` is relative to the file's folder."""


def task_file(phenomenon: Phenomenon) -> str:
    """The YAML with which the phenomenon is run as a task."""
    return _TASK.format(
        name=phenomenon.name,
        group={"norma-padrão": "norma"}.get(phenomenon.register.value, phenomenon.register.value),
        register=phenomenon.register.value,
        title=phenomenon.title,
        version=VERSION,
    )


def write_tasks(folder: Path) -> None:
    """Write `ptbr_grammar_NAME.yaml` for each phenomenon."""
    for phenomenon in ALL:
        path = folder / f"ptbr_grammar_{phenomenon.name}.yaml"
        path.write_text(task_file(phenomenon), encoding="utf-8", newline="\n")


def write(folder: Path) -> None:
    """Write `NAME.jsonl` for each phenomenon and `index.json` with registers, texts and sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for phenomenon in ALL:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines(phenomenon))
        path = folder / f"{phenomenon.name}.jsonl"
        path.write_text(text, encoding="utf-8", newline="\n")
        entries.append(
            {
                "name": phenomenon.name,
                "title": phenomenon.title,
                "register": phenomenon.register.value,
                "pairs": text.count("\n"),
                "rule": phenomenon.rule,
                "source": phenomenon.source,
                "caveat": phenomenon.caveat,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
        )
    index = {"version": VERSION, "language": "pt-BR", "licence": "CC-BY-4.0", "phenomena": entries}
    text = json.dumps(index, ensure_ascii=False, indent=1) + "\n"
    (folder / "index.json").write_text(text, encoding="utf-8", newline="\n")
