"""The forms of conversations in files, and the reasons why rows are skipped."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from io import BufferedReader, BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from tiny_chat import turns, write_lines

from ptbr_slm.chat.messages import Message
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.errors import SlmError
from ptbr_slm.tune.conversations import (
    FORMATS,
    REASONS,
    Conversation,
    Preference,
    Unusable,
    describe_skipped,
    read_items,
)

ASKED = [Message("user", "Que horas são?"), Message("assistant", "São três.")]
SYSTEM = Message("system", "Seja breve.")
HUMAN, GPT = {"from": "human", "value": "Que horas são?"}, {"from": "gpt", "value": "São três."}
PAIR = turns("Que horas são?", "São três.")
PARTS = [{"type": "text", "text": "Que horas são?"}]
NO_CONTENT = {"role": "user", "content": None}

FORMS = {
    "messages": {"messages": PAIR},
    "messages with parts": {"messages": [{"role": "user", "content": PARTS}, PAIR[1]]},
    "messages as JSON": {"messages": json.dumps(PAIR)},
    "prompt_completion": {"prompt": "Que horas são?", "completion": "São três."},
    "prompt_completion of messages": {"prompt": PAIR[:1], "completion": PAIR[1:]},
    "prompt and response": {"prompt": "Que horas são?", "response": "São três."},
    "pergunta e resposta": {"pergunta": "Que horas são?", "resposta": "São três.", "fonte": "a"},
    "dolly": {"instruction": "Que horas são?", "context": "", "response": "São três.", "category": "qa"},
    "alpaca": {"instruction": "Que horas são?", "input": "", "output": "São três."},
    "alpaca without input": {"instruction": "Que horas são?", "output": "São três."},
    "sharegpt": {"conversations": [HUMAN, GPT]},
    "sharegpt with roles": {"conversations": PAIR},
}  # fmt: skip


def read(path, **keywords):
    counts = DocumentCounts()
    return list(read_items([path], counts=counts, **keywords)), counts


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_told_by_its_columns(tmp_path, name):
    items, counts = read(write_lines(tmp_path / "a.jsonl", [FORMS[name]]))
    assert [item.messages for item in items] == [tuple(ASKED)] and not counts.dropped
    assert items[0].where == f"{tmp_path / 'a.jsonl'}:1"
    assert counts.input_bytes == (tmp_path / "a.jsonl").stat().st_size


def test_a_system_message_may_be_a_column_of_its_own(tmp_path):
    rows = [{**form, "system": SYSTEM.content} for form in FORMS.values()]
    for number, row in enumerate(rows):
        items, _ = read(write_lines(tmp_path / f"{number}.jsonl", [row]))
        assert items[0].messages == (SYSTEM, *ASKED)


def test_alpacas_input_follows_the_instruction(tmp_path):
    row = {"instruction": "Resuma.", "input": "O rio subiu.", "output": "Cheia."}
    items, _ = read(write_lines(tmp_path / "a.jsonl", [row]))
    assert items[0].messages[0].content == "Resuma.\n\nO rio subiu."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Que horas são?", "chosen": "São três.", "rejected": "Não sei."},
        {"prompt": PAIR[:1], "chosen": PAIR[1:], "rejected": turns("", "Não sei.")[1:]},
        {"chosen": PAIR, "rejected": turns("Que horas são?", "Não sei.")},
        {"prompt": "Que horas são?", "chosen": PAIR, "rejected": turns("Que horas são?", "Não sei.")},
    ],
)
def test_pairs_of_answers_with_and_without_the_prompt(tmp_path, row):
    items, _ = read(write_lines(tmp_path / "a.jsonl", [row]))
    assert items == [Preference((ASKED[0],), "São três.", "Não sei.", f"{tmp_path / 'a.jsonl'}:1")]


def test_a_pair_after_several_turns_shares_all_of_them(tmp_path):
    shared = turns("Oi", "Olá!", "Que horas são?", system="Seja breve.")
    row = {"chosen": [*shared, PAIR[1]], "rejected": [*shared, {"role": "assistant", "content": "Não sei."}]}
    (pair,), _ = read(write_lines(tmp_path / "a.jsonl", [row]))
    assert [message.role for message in pair.prompt] == ["system", "user", "assistant", "user"]


SKIPPED = {
    "empty": [{"messages": []}, {"messages": turns("Oi", "  ")}, {"messages": [NO_CONTENT]}],
    "no_assistant": [{"messages": turns("Oi")}],
    "ends_with_user": [{"messages": turns("Oi", "Olá!", "E agora?")}],
    "same_role_twice": [{"messages": [*PAIR, PAIR[1]]}, {"messages": [PAIR[0], *PAIR]}],
    "wrong_order": [{"messages": PAIR[1:]}, {"messages": [*PAIR, {"role": "system", "content": "a"}, *PAIR]}],
    "unknown_role": [{"messages": [*PAIR, {"role": "tool", "content": "3"}]}],
    "no_fields": [{"outra": 1}, {"messages": 3}, {"messages": ["Oi"]}, {"messages": [{"content": "Oi"}]},
                  "[1]", {"messages": [{"role": "user", "content": 3}]}, {"messages": "Oi"}],
    "not_utf8": ['{"messages": [{"role": "user", "content": "\\ud83d"}]}'],
    "bad_json": ["{"],
}  # fmt: skip


def test_every_reason_is_counted_and_its_place_is_named(tmp_path):
    rows = [{"messages": PAIR}, *(row for rows in SKIPPED.values() for row in rows)]
    items, counts = read(write_lines(tmp_path / "a.jsonl", rows))
    assert len(items) == 1
    assert counts.dropped == {reason: len(rows) for reason, rows in SKIPPED.items()}
    assert counts.examples["empty"] == [f"{tmp_path / 'a.jsonl'}:{line}" for line in (2, 3, 4)]
    assert set(counts.dropped) <= set(REASONS)
    assert describe_skipped({"empty": 1, "no_assistant": 2000}).startswith("2.000 × sem resposta")


def test_reasons_of_pairs(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"chosen": turns("a", "b", "c", "d"), "rejected": turns("a", "x", "c", "y")},
        {"prompt": "a", "chosen": "b", "rejected": " "},
        {"chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ]
    items, counts = read(write_lines(tmp_path / "a.jsonl", rows))
    assert len(items) == 1
    assert counts.dropped == {"same_answers": 1, "not_one_answer": 1, "empty": 1, "no_fields": 1}


def test_every_type_of_file_and_folders_of_them(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    folder = tmp_path / "dados"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"messages": PAIR}))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"messages": PAIR}).encode()))
    (folder / "c.json").write_text(json.dumps([FORMS["alpaca"], FORMS["alpaca"]], indent=1))
    with (folder / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "completion"], ["Que horas são?", "São três."]])
    parquet.write_table(arrow.table({"messages": [PAIR, PAIR]}), folder / "e.parquet")
    (folder / "nota.txt").write_text("não é conversa")
    items, counts = read(folder)
    assert [item.messages for item in items] == [tuple(ASKED)] * 7
    assert counts.dropped == {"unknown_format": 1}
    with pytest.raises(SlmError, match="conversas") as caught:
        read(folder / "nota.txt")
    assert caught.value.code == "E_DATA_FORMAT" and ".parquet" in caught.value.hint


def test_parquet_rows_that_are_not_utf8_lose_themselves_alone(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    binary = arrow.array([b"Oi", b"n\xe3o", b"Oi"], arrow.binary())
    bad = arrow.StringArray.from_buffers(3, binary.buffers()[1], binary.buffers()[2])
    table = arrow.table({"prompt": bad, "completion": ["Olá", "Olá", "Olá"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    items, counts = read(tmp_path / "a.parquet")
    assert len(items) == 2 and counts.dropped == {"not_utf8": 1}
    assert counts.examples == {"not_utf8": [f"{tmp_path / 'a.parquet'}:2"]}


@pytest.mark.parametrize("text", ['{"prompt": "a", "completion": "b"}\n' * 2, 'prompt,completion\n"a","b"\n',
                                  '[{"prompt": "a", "completion": "b"}]'])  # fmt: skip
def test_the_standard_input(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BufferedReader(BytesIO(text.encode()))))
    items, _ = read(Path("-"))
    assert items[0].messages == (Message("user", "a"), Message("assistant", "b"))


def test_an_asked_form_is_not_guessed(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": PAIR, "text": "Um texto."}])
    assert isinstance(read(path)[0][0], Conversation)
    assert read(path, format="text")[0][0].text == "Um texto."
    with pytest.raises(SlmError, match="formato") as caught:
        read(path, format="chatml")
    assert caught.value.code == "E_CONFIG" and "sharegpt" in caught.value.hint


def test_unknown_columns_are_named(tmp_path):
    with pytest.raises(SlmError, match="questao, gabarito") as caught:
        read(write_lines(tmp_path / "a.jsonl", [{"questao": "a", "gabarito": "b"}]))
    assert caught.value.code == "E_DATA_FORMAT" and "messages" in caught.value.hint


def test_few_wrong_lines_are_passed_over_and_many_stop(tmp_path):
    good = [{"messages": PAIR}] * 100
    assert len(read(write_lines(tmp_path / "a.jsonl", [*good, *["{"] * 100]))[0]) == 100
    with pytest.raises(SlmError, match="101 das 201 linhas") as caught:
        read(write_lines(tmp_path / "b.jsonl", [*good, *["{"] * 101]))
    assert caught.value.code == "E_DATA_WRONG" and caught.value.where.endswith("b.jsonl:101")


ROLES = st.sampled_from(["user", "assistant", "system"])
KEYS = st.sampled_from(["role", "content", "from", "value", "type", "text"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(form=st.sampled_from(sorted(FORMATS)), data=st.data())
@runs(max_examples=300, deadline=None)
def test_any_row_makes_an_item_or_has_a_reason(form, data):
    names = ["messages", "conversations", "prompt", "completion", "instruction", "input", "output",
             "chosen", "rejected", "text", "system"]  # fmt: skip
    fields = data.draw(st.dictionaries(st.sampled_from(names), values, max_size=4))
    try:
        item = FORMATS[form](fields, "a:1")
    except Unusable as error:
        assert error.reason in REASONS
    else:
        assert item.where == "a:1"
        if isinstance(item, Conversation):
            assert item.messages[-1].role == "assistant"
