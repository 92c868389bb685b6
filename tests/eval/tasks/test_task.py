"""Task files: what is read, and what is refused by the name of its key."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_files import GOOD_TASK as GOOD
from task_files import write_task as write

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.task import OutputType
from ptbr_slm.eval.tasks.task_file import read_task

TAKE_FIRST = {"function": "take_first"}
BROKEN_REGEX = {"function": "regex", "regex_pattern": "("}


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


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_bytes("task: ação".encode("latin1"))
    assert "UTF-8" in refusal(path).message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"doc_to_choice": [True, False]}, "doc_to_choice deve ter só textos"),
        ({"num_fewshot": True}, "num_fewshot deve ser um número inteiro"),
        ({"metadata": GOOD["metadata"] | {"non_commercial": "não"}}, "non_commercial deve ser true ou false"),
        ({"dataset_kwargs": {"data_files": ["a"]}}, "data_files deve ter chaves"),
        ({"metric_list": ["acc"]}, "metric_list deve ter chaves"),
        (
            {"filter_list": [{"filter": [{"function": "regex", "regex_pattern": "("}, TAKE_FIRST]}]},
            "uma expressão",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_key(tmp_path, changes, words):
    assert words in refusal(write(tmp_path, **changes)).message


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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abfilter", max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
NESTED = {
    "metadata": ["published", "constant", "items", "chance", "meaningful_from", "non_commercial", "licence"],
    "dataset_kwargs": ["data_files", "revision"],
    "generation_kwargs": ["until", "max_gen_toks", "do_sample", "temperature"],
    "fewshot_config": ["sampler"],
    "metric_list": ["metric", "aggregation", "regexes_to_ignore", "ignore_case"],
    "filter_list": ["filter", "name"],
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_values_are_a_task_is_read_or_refused(tmp_path, data):
    key = data.draw(st.sampled_from([*GOOD, *NESTED, "doc_to_choice", "include", "tag", "description"]))
    value = data.draw(VALUES)
    if key in NESTED and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(NESTED[key]))
        before = GOOD.get(key, {})
        if key.endswith("_list"):
            value = [{**(before[0] if before else {}), inner: value}]
        else:
            value = {**before, inner: value}
    try:
        task = read_task(write(tmp_path / "", **{"task": "x", key: value}))
    except SlmError as error:
        assert error.code in ("E_TASK", "E_NOT_FOUND", "E_IO", "E_PERMISSION")
    else:
        assert task.facts.version and isinstance(task.facts.published, dict)
