"""The list of tasks: what a terminal of 80 columns shows, and the same as data."""

from pathlib import Path

from task_files import write_rows, write_task

from ptbr_slm.eval.tasks.catalogue import published_tasks
from ptbr_slm.eval.tasks.listing import as_data, as_text, task_table

ROWS = Path(__file__).parent / "rows"


def test_every_task_is_listed_in_80_columns_with_its_licence():
    text = as_text(task_table())
    assert all(len(line) <= 80 for line in text.splitlines())
    for task in published_tasks():
        assert f"\n  {task.name} " in text
    assert "CC BY-NC 4.0 (NC)" in text and "2.076" in text and "25 %" in text
    assert (
        text.index("pequenos:") < text.index("calame_pt ") < text.index("exames:") < text.index("enem_letra")
    )


def test_data_that_is_here_is_marked_and_own_tasks_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    write_task(tmp_path, tag="minhas")
    write_rows(tmp_path / "cores.jsonl")
    entries = {entry.name: entry for entry in task_table([tmp_path])}
    assert entries["cores"].here and not entries["enem_letra"].here
    assert "minhas\n" in as_text(list(entries.values()))
    data = {each["name"]: each for each in as_data(task_table([ROWS]))}
    assert data["calame_pt"]["here"] and data["arc_pt"]["here"] and data["arc_pt"]["non_commercial"]
