"""The task that docs/AVALIAR.md writes in ten lines."""

import re
from pathlib import Path

from toy_subject import ToySubject, ask

from ptbr_slm.eval.tasks.catalogue import published_tasks, select_tasks
from ptbr_slm.eval.tasks.documents import load_task_data
from ptbr_slm.eval.tasks.items import task_items
from ptbr_slm.eval.tasks.metrics import task_scores

TEXT = (Path(__file__).parents[3] / "docs" / "AVALIAR.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_task_of_ten_lines_works(tmp_path):
    assert len(block("yaml").splitlines()) == 10
    (tmp_path / "capitais.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "capitais.jsonl").write_text(block("json"), encoding="utf-8")
    (task,) = select_tasks([str(tmp_path / "capitais.yaml")])
    items = list(task_items(task, load_task_data(task).rows))
    assert items[1].prompt == "A capital de São Paulo é"
    assert [item.labels[item.answers[0]] for item in items] == ["Belo Horizonte", "São Paulo", "Fortaleza"]
    alphabetical = ToySubject(lambda prompt, text: -float(ord(text[1])))
    (score,) = task_scores(task, ask(alphabetical, task, items))
    assert (score.metric, score.value, score.baseline) == ("acc", 1 / 3, 0.25)


def test_every_task_that_is_named_exists():
    names = {task.name for task in published_tasks()} | {"gramatica", "pequenos", "exames", "todas"}
    section = TEXT[TEXT.index("## Tarefas") : TEXT.index("### De onde vêm")]
    for name in re.findall(r"`([a-z_]+(?:_pt|_letra|_texto|_gen|_0shot))`", section):
        assert name in names
