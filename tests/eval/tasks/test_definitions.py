"""The tasks of the package over rows in the published form: prompts, answers, fields that are missing."""

from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.catalogue import published_tasks
from ptbr_slm.eval.tasks.documents import load_task_data
from ptbr_slm.eval.tasks.items import task_items
from ptbr_slm.eval.tasks.task import OutputType
from ptbr_slm.eval.tasks.task_file import read_task

ROWS = Path(__file__).parent / "rows"
TASKS = {task.name: task.file for task in published_tasks()}


def items_of(name):
    task = read_task(TASKS[name])
    data = load_task_data(task, [ROWS])
    return list(task_items(task, data.rows, data.fewshot_rows))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_named_after_its_file_explained_and_asked_over_published_rows(name):
    task = read_task(TASKS[name])
    assert task.name == name
    assert (
        task.facts.title and not task.facts.protocol[0].isupper() and task.facts.source.startswith("https://")
    )
    assert len(task.facts.title) <= 28
    assert items_of(name)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("arc_pt", "hellaswag_pt")])
def test_a_field_that_is_missing_is_named(name):
    """Every field whose absence changes the items is told by its name, with the row's number."""
    task = read_task(TASKS[name])
    data = load_task_data(task, [ROWS])
    whole = list(task_items(task, data.rows, data.fewshot_rows))
    needed = 0
    for field in data.rows[0]:
        first = {key: value for key, value in data.rows[0].items() if key != field}
        try:
            found = list(task_items(task, [first, *data.rows[1:]], data.fewshot_rows))
        except SlmError as error:
            assert error.code == "E_TASK"
            assert "linha 1:" in error.message and f"'{field}' is undefined" in error.message
            needed += 1
        else:
            assert [(i.prompt, i.choices, i.answers, i.references) for i in found] == [
                (i.prompt, i.choices, i.answers, i.references) for i in whole
            ]
    assert needed >= 2


def test_the_word_tasks_ask_the_same_prompt_in_both_protocols():
    for dataset in ("calame_pt", "lambada_pt"):
        generated, scored = items_of(f"{dataset}_gen"), items_of(dataset)
        assert [item.prompt.rstrip() for item in generated] == [item.prompt.rstrip() for item in scored]
        assert [item.references[0] for item in generated] == [item.choices[0].strip() for item in scored]
    task = read_task(TASKS["calame_pt_gen"])
    assert (task.until, task.max_new_tokens) == ((), 10)
    assert items_of("calame_pt")[1].choices == (" d'água",)


def test_exams_show_the_letters_or_score_the_texts():
    letters, texts = items_of("enem_letra")[0], items_of("enem_texto")[0]
    assert letters.prompt.endswith("C. três horas\nD. quatro horas\nE. cinco horas\nResposta correta:")
    assert letters.choices == (" A", " B", " C", " D", " E")
    assert texts.prompt == "Pergunta: Um trem sai às 8h e chega às 11h.\nQuanto dura a viagem?\nResposta:"
    assert texts.choices[2] == " três horas"
    assert letters.answers == texts.answers == (2,)
    assert len(items_of("bluex_letra")[1].choices) == 4
    assert items_of("enem_2022_2024_letra")[0].prompt.startswith("As perguntas a seguir são questões")


def test_hellaswag_is_cleaned_as_the_harness_cleans_it():
    first, second, *_ = items_of("hellaswag_pt_0shot")
    assert first.prompt == "Como varrer. em casa: Uma pessoa começa a varrer no quintal. Depois"
    assert first.labels[:2] == ("continua a varrer até o fim.", " joga tudo fora.")
    assert second.prompt.endswith("Ela para e olha em volta")


def test_examples_are_shown_with_their_answers():
    prompt = items_of("arc_pt")[0].prompt
    assert prompt.count("Question: ") == 26 and prompt.count("\n\n") == 25
    assert prompt.endswith("Question: Quanto é 0. mais 1?\nAnswer:")
    for item in items_of("hellaswag_pt"):
        *examples, asked = item.prompt.split("\n\n")
        assert len(examples) == 10
        assert not any(example.startswith(asked) for example in examples)


def test_published_scores_are_of_one_protocol_and_one_metric():
    """A generated CALAME and a scored one differ by points: no table mixes them."""
    assert read_task(TASKS["calame_pt_gen"]).facts.published["Tucano-160m"] == 0.5231
    assert not read_task(TASKS["calame_pt"]).facts.published
    assert read_task(TASKS["lambada_pt_gen"]).facts.published["Tucano-160m"] == 0.2816
    assert read_task(TASKS["lambada_pt"]).facts.published["Tucano-160m"] == 0.2562
    for name in TASKS:
        task = read_task(TASKS[name])
        if task.facts.chance and task.output_type is OutputType.MULTIPLE_CHOICE:
            assert all(share > task.facts.chance - 0.05 for share in task.facts.published.values())
