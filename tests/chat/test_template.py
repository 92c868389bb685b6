"""Templates rewritten for engines that know less of Jinja: the same text, whatever is trimmed."""

from __future__ import annotations

import jinja2
import pytest
from chat_models import STYLES, as_json, conversation
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.chat.template import ChatTemplate, trimmed, without_generation_marks
from ptbr_slm.tokenizer.tokenizer import CHAT_TEMPLATE

PIECES = [
    "{% if x %}", "{%- if x %}", "{% if x -%}", "{%+ if x %}", "{{ y }}", "{{- y -}}", "{# n #}", "{#- n -#}",
    "{% raw %} {{ z }}\n{% endraw %}", "{{ '%}' }}", " ", "\n", "\t", "a", "ção \"b\" \\ ", "\r\n",
]  # fmt: skip
SOURCES = st.lists(st.sampled_from(PIECES), max_size=12).map(
    lambda pieces: "".join(pieces) + "{% endif %}" * sum("if x" in piece for piece in pieces)
)


def text_of(environment: jinja2.Environment, source: str) -> str:
    return environment.from_string(source).render(x=True, y="<y>")


@given(SOURCES)
def test_a_trimmed_template_writes_the_same_with_and_without_trimming(source):
    trims = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    plain = jinja2.Environment(keep_trailing_newline=True)
    wanted = text_of(trims, source)
    assert text_of(plain, trimmed(source)) == wanted
    assert text_of(trims, trimmed(source)) == wanted


@pytest.mark.parametrize("style", STYLES)
def test_every_style_survives_trimming(style):
    source = STYLES[style][0]
    messages = as_json(conversation("Olá", "Oi.", "\n E?"))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    wanted = ChatTemplate(source).render(messages, add_generation_prompt=True, variables=names)
    plain = jinja2.Environment()
    plain.globals["raise_exception"] = str
    said = plain.from_string(trimmed(source)).render(messages=messages, add_generation_prompt=True, **names)
    assert said == wanted


def test_a_template_without_line_breaks_stays_as_it_is():
    assert trimmed(STYLES["llama3"][0]) == STYLES["llama3"][0]
    assert trimmed("{% for") == "{% for"


def test_our_template_loses_its_marks_and_writes_the_same():
    bare = without_generation_marks(CHAT_TEMPLATE)
    assert "generation %" not in bare and "add_generation_prompt" in bare
    messages = as_json(conversation("Olá", "Oi.", "E?"))
    names = {"bos_token": "<|bos|>"}
    marked = ChatTemplate(CHAT_TEMPLATE, "«", "»").render(
        messages, add_generation_prompt=True, variables=names
    )
    assert "«Oi.<|im_end|>»\n" in marked
    plain = ChatTemplate(bare).render(messages, add_generation_prompt=True, variables=names)
    assert plain == marked.replace("«", "").replace("»", "")


@pytest.mark.parametrize(
    "mark", ["{% generation %}", "{%- generation -%}", "{%generation%}", "{%+ generation %}"]
)
@pytest.mark.parametrize("space", ["", " ", "\n", " \n "])
def test_a_mark_that_trims_is_replaced_by_one_that_trims_alike(mark, space):
    end = mark.replace("generation", "endgeneration")
    source = f"a{space}{mark}{space}b{space}{end}{space}c"
    bare = without_generation_marks(source)
    assert "generation" not in bare
    texts = [
        ChatTemplate(each).render([], add_generation_prompt=False, variables={}) for each in (source, bare)
    ]
    assert texts[0] == texts[1]
