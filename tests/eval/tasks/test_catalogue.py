"""Tasks by name, tag and path; licences that do not allow every use; names that are none."""

import pytest
from task_files import GOOD_TASK, write_task

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.catalogue import built_in_tasks, published_tasks, select_tasks
from ptbr_slm.eval.tasks.task_file import read_task


def names(*asked, **options):
    return [task.name for task in select_tasks(asked, **options)]


def test_tasks_are_chosen_by_name_tag_and_path_each_once(tmp_path):
    mine = write_task(tmp_path, tag="minhas")
    (tmp_path / "docker-compose.yaml").write_text("services: {a: {image: b}}\n")
    assert names("inferbr", str(mine), "minhas", "inferbr", extra=[tmp_path]) == ["inferbr", "cores"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(SlmError, match="não existe a tarefa calame") as found:
        names("calame")
    assert "calame_pt" in found.value.hint and "--list" in found.value.hint


def test_the_groups_hold_every_task_of_the_package():
    everything = set(names("todas", accept_licence=True))
    assert everything == {task.name for task in published_tasks()}
    small, exams = names("pequenos", accept_licence=True), names("exames", accept_licence=True)
    assert {*small, *exams} == everything and not set(small) & set(exams)
    for name in exams:
        assert read_task(built_in_tasks()[name]).facts.meaningful_from > 0


def test_what_may_not_be_used_commercially_needs_the_users_word(tmp_path):
    notes = []
    assert "hellaswag_pt" not in names("pequenos", note=notes.append)
    assert "hellaswag_pt" in notes[0] and "--accept-licence" in notes[0]
    with pytest.raises(SlmError) as found:
        names("hellaswag_pt")
    assert found.value.code == "E_LICENCE"
    assert "CC BY-NC" in found.value.message and "--accept-licence" in found.value.hint
    assert names("hellaswag_pt", accept_licence=True) == ["hellaswag_pt"]
    mine = write_task(tmp_path, metadata=GOOD_TASK["metadata"] | {"non_commercial": True})
    with pytest.raises(SlmError, match="cores"):
        names(str(mine))
