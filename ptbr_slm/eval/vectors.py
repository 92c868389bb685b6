"""Vectors of right and wrong that others publish, read as results.

Manacá publishes ten models' answers to CALAME-PT, one JSON object a file: `model`, `lowercase`, `corretos`
(0 or 1 an item, in the file's order; Instituto-IA-LNCC/manaca-1b-base, docs/evaluation/logs/*_calame.json,
written by eval_base.py at 34f87cd). It has no identity of the items, so two such vectors pair by
position, and with none of our own results: the protocol is another (8 tokens are generated, the first word is
compared without regard to case, and rows without text are left out).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.results import ModelFacts, Results, TaskRecord, read_results
from ptbr_slm.eval.statistics import wilson_interval
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore


def read_results_or_vector(path: Path) -> Results:
    """Results of ours, or a vector of right and wrong. Raises as `read_results`."""
    if path.is_file():
        with os_errors(path):
            content = path.read_bytes()
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict) and "corretos" in body:
            return _vector(path, body)
    return read_results(path)


def _vector(path: Path, body: dict[str, object]) -> Results:
    right = body["corretos"]
    if not isinstance(right, list) or not right or not {*map(repr, right)} <= {"0", "1", "False", "True"}:
        raise SlmError(
            "E_RESULTS",
            "corretos deve ser uma lista de 0 e 1.",
            where=path,
            hint="Baixe o arquivo de novo.",
        )
    lower = " em minúsculas" if body.get("lowercase") else ""
    protocol = f"geração de 8 tokens{lower}, primeira palavra, sem distinguir maiúsculas (Manacá)"
    hits, size = sum(map(int, right)), f"{len(right)} itens"
    return Results(
        model=ModelFacts(
            str(body.get("model", path.stem)), hashlib.sha256(repr(body).encode()).hexdigest(), None, 0
        ),
        bits=(),
        tasks=(
            TaskRecord(
                name="vetor-de-acertos",
                title="CALAME-PT (Manacá)",
                version="1",
                protocol=protocol,
                task_sha256=hashlib.sha256(protocol.encode()).hexdigest(),
                data_sha256=size,
                of=len(right),
                scores=(TaskScore("acc", hits / len(right), wilson_interval(hits, len(right))),),
                items=tuple(
                    ItemResult(str(place), size, {"acc": float(value)}, "", "")
                    for place, value in enumerate(right)
                ),
            ),
        ),
    )
