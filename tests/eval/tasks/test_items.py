"""From rows to prompts, choices and answers; what is wrong with a row is told with its number and field."""

import pytest
from task_files import ROWS, write_task

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.items import task_items
from ptbr_slm.eval.tasks.task_file import read_task


def items(folder, rows=ROWS, shots=(), **changes):
    return list(task_items(read_task(write_task(folder, **changes)), rows, shots))


def test_prompt_choices_and_answer(tmp_path):
    first, second, third = items(tmp_path)
    assert (first.id, first.prompt, first.answers) == ("ceu", "O céu é", (0,))
    assert first.choices == (" azul", " verde-claro", " não", " é")
    assert first.labels == ("azul", "verde-claro", "não", "é")
    assert second.prompt == "O mar é "  # a trailing space stays: scoring moves it
    assert third.answers == (1,)


def test_examples_come_first_and_never_show_the_item_itself(tmp_path):
    few = {"num_fewshot": 2, "fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}}
    first, *_ = items(tmp_path, shots=ROWS, description="Complete.\n", **few)
    assert first.prompt == "Complete.\nO mar é  salgado\n\nO sol aquece\n\nO céu é"


def test_the_answer_may_be_an_index_a_text_or_several(tmp_path):
    rows = [{"q": "a", "letra": "B", "todas": [0, 2]}]
    kwargs = {"doc_to_text": "q", "doc_to_choice": ["A", "B", "C"]}
    assert items(tmp_path, rows, **kwargs, doc_to_target="letra")[0].answers == (1,)
    assert items(tmp_path, rows, **kwargs, doc_to_target="{{['A','B'].index(letra)}}")[0].answers == (1,)
    assert items(tmp_path, rows, **kwargs, doc_to_target="todas")[0].answers == (0, 2)
    assert items(tmp_path, rows, **kwargs, doc_to_target=2)[0].answers == (2,)


def test_the_word_that_follows_is_the_target(tmp_path):
    kwargs = {"output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": "{{' ' + fim}}"}
    (item,) = items(tmp_path, [{"pergunta": "Era uma", "fim": "vez"}], **kwargs)
    assert (item.prompt, item.choices) == ("Era uma", (" vez",))


def test_items_have_a_fingerprint_of_what_is_asked(tmp_path):
    same, other = items(tmp_path)[0], items(tmp_path, description="Responda: ")[0]
    assert same.id == other.id
    assert same.sha256 != other.sha256
    assert same.sha256 == items(tmp_path)[0].sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pergunta": None}, "doc_to_text"),
        ({"opcoes": ["um", ""]}, "alternativa 2 está vazia"),
        ({"opcoes": ["um", " \n"]}, "alternativa 2 está vazia"),
        ({"opcoes": ["um"]}, "pelo menos duas"),
        ({"opcoes": "azul, verde"}, "pelo menos duas"),
        ({"certa": 4}, "a resposta 4 não é nenhuma das 4 alternativas"),
        ({"certa": -1}, "a resposta -1 não é nenhuma"),
        ({"certa": "amarelo"}, "'amarelo' não é nenhuma"),
        ({"certa": True}, "não é nenhuma"),
        ({"certa": []}, "nenhuma resposta"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, words):
    rows = [ROWS[0], {key: value for key, value in (ROWS[1] | change).items() if value is not None}]
    with pytest.raises(SlmError, match="cores, linha 2") as found:
        items(tmp_path, rows)
    assert found.value.code == "E_TASK"
    assert words in found.value.message


def test_a_missing_field_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(SlmError, match=r"doc_to_target.*'certa' is undefined.*id, pergunta, opcoes"):
        rows = [{key: value for key, value in ROWS[0].items() if key != "certa"}]
        items(tmp_path, rows, doc_to_target="{{certa}}")


def test_templates_cannot_reach_outside(tmp_path):
    with pytest.raises(SlmError, match=r"doc_to_text (não pôde ser calculado|usa um campo)"):
        items(tmp_path, doc_to_text="{{ ''.__class__.__mro__[1].__subclasses__() }}")
