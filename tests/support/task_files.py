"""A small evaluation task on disk: its YAML and its rows."""

import json
from pathlib import Path

import yaml

GOOD_TASK = {
    "task": "cores",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "cores.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{pergunta}}",
    "doc_to_choice": "opcoes",
    "doc_to_target": "certa",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1, "licence": "CC0-1.0", "source": "nosso", "chance": 0.25},
}

ROWS = [
    {"id": "ceu", "pergunta": "O céu é", "opcoes": ["azul", "verde-claro", "não", "é"], "certa": 0},
    {"id": "mar", "pergunta": "O mar é ", "opcoes": ["salgado", "doce", "seco", "um gás"], "certa": 0},
    {"id": "sol", "pergunta": "O sol", "opcoes": ["gela", "aquece", "fala português", "d'água"], "certa": 1},
]


def write_task(folder: Path, **changes) -> Path:
    """The task's YAML in a folder; keys changed to None are left out."""
    values = {key: value for key, value in (GOOD_TASK | changes).items() if value is not None}
    path = folder / f"{values.get('task', 'cores')}.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def write_rows(path: Path, rows=ROWS) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
