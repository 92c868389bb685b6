"""Task files: what is read, and what is refused by the name of its key."""

from pathlib import Path

import pytest
from task_files import GOOD_TASK as GOOD
from task_files import write_task as write

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.task import OutputType
from ptbr_slm.eval.tasks.task_file import read_task


def refusal(path: Path) -> SlmError:
    with pytest.raises(SlmError) as found:
        read_task(path)
    assert found.value.code == "E_TASK"
    assert str(path) == found.value.where
    return found.value


def test_a_task_is_read_with_the_defaults_of_the_harness(tmp_path):
    task = read_task(write(tmp_path))
    assert task.output_type is OutputType.MULTIPLE_CHOICE
    assert (task.target_delimiter, task.fewshot_delimiter, task.num_fewshot) == (" ", "\n\n", 0)
    assert task.facts.chance == 0.25
    assert task.facts.version == "1"


REQUIRED = [
    "task",
    "dataset_path",
    "test_split",
    "output_type",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "metric_list",
]


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(tmp_path, key):
    assert f"falta a chave {key}." in refusal(write(tmp_path, **{key: None})).message


@pytest.mark.parametrize("key", ["version", "licence", "source"])
def test_a_missing_fact_is_named(tmp_path, key):
    facts = {name: value for name, value in GOOD["metadata"].items() if name != key}
    assert f"metadata.{key}" in refusal(write(tmp_path, metadata=facts)).message


TAKE_FIRST = {"function": "take_first"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_fewshots": 3}, "num_fewshots não existe"),
        ({"process_docs": "!function x.y"}, "process_docs do lm-evaluation-harness não é executada aqui"),
        ({"output_type": "loglikelihood_rolling"}, "output_type"),
        ({"metric_list": [{"metric": "bleu"}]}, "'bleu' não serve para multiple_choice"),
        ({"metric_list": [{"metric": "acc", "ignore": True}]}, "acc não tem a opção ignore"),
        ({"num_fewshot": 2}, "fewshot_split"),
        ({"fewshot_config": {"sampler": "balanced"}}, "sampler balanced"),
        ({"num_fewshot": 2, "fewshot_config": {"sampler": "first_n"}}, "fewshot_split"),
        ({"num_fewshot": "dois"}, "número inteiro"),
        ({"generation_kwargs": {"temperature": 0.7}}, "sem sorteio"),
        ({"generation_kwargs": {"num_beams": 4}}, "num_beams"),
        ({"dataset_kwargs": {}}, "data_files"),
        ({"metadata": GOOD["metadata"] | {"chances": 0.2}}, "chances não existe"),
        (
            {"filter_list": [{"name": "a", "filter": [{"function": "majority_vote"}, TAKE_FIRST]}]},
            "majority_vote",
        ),
        ({"filter_list": [{"name": "a", "filter": [{"function": "lowercase"}]}]}, "take_first"),
        (
            {"filter_list": [{"name": "a", "filter": [{"function": "custom"}, TAKE_FIRST]}]},
            "harness.first_word",
        ),
        ({"metric_list": [{"metric": "acc", "aggregation": "median"}]}, "aggregation: mean"),
        ({"metric_list": [{"metric": "f1", "aggregation": "mean"}]}, "!function harness.macro_f1"),
        ({"process_results": "meu.codigo"}, "meu.codigo não é executado"),
        ({"metadata": GOOD["metadata"] | {"chance": 25}}, "chance deve ser uma fração"),
        ({"metadata": GOOD["metadata"] | {"published": {"A": "30 %"}}}, "A deve ser uma fração"),
        ({"doc_to_text": 3}, "doc_to_text deve ser texto"),
    ],
)
def test_what_would_change_the_score_is_refused_by_name(tmp_path, changes, words):
    assert words in refusal(write(tmp_path, **changes)).message


@pytest.mark.parametrize("text", ["a: [", "- só\n- uma lista\n", "texto", ""])
def test_a_file_that_is_no_task_is_refused(tmp_path, text):
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8")
    refusal(path)


def test_a_python_tag_in_the_yaml_builds_no_object(tmp_path):
    """The harness's `!function` would run code from the file's folder."""
    path = write(tmp_path)
    path.write_text(path.read_text() + "process_docs: !!python/object/apply:os.getcwd []\n")
    refusal(path)


def test_code_in_a_task_file_is_refused(tmp_path):
    for key in ("doc_to_text", "doc_to_target", "process_docs", "process_results"):
        path = write(tmp_path, **{key: None})
        path.write_text(path.read_text() + f"{key}: !function os.getcwd\n")
        assert "os.getcwd" in refusal(path).message or key in refusal(path).message


def test_a_file_may_include_another_and_its_own_keys_win(tmp_path):
    base = write(tmp_path)
    other = tmp_path / "outra.yaml"
    other.write_text(f"task: outra\ninclude: {base.name}\nnum_fewshot: 0\ndescription: Oi.\n")
    task = read_task(other)
    assert (task.name, task.description, task.doc_to_text) == ("outra", "Oi.", "{{pergunta}}")
    before = task.sha256
    write(tmp_path, doc_to_text="{{pergunta}}?")
    assert read_task(other).sha256 != before
    other.write_text("task: outra\ninclude: [outra.yaml]\n")
    assert "inclui este mesmo" in refusal(other).message
    other.write_text("task: outra\ninclude: nenhuma.yaml\n")
    with pytest.raises(SlmError) as found:
        read_task(other)
    assert found.value.code == "E_NOT_FOUND"
