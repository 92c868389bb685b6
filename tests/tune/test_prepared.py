"""Conversations encoded, cut, skipped, split and kept in a folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_chat import conversation_file, tiny_chat, tiny_tokenizer, turns, write_lines

from ptbr_slm.chat.messages import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.record import foreign_files
from ptbr_slm.tune.conversations import Conversation, PlainText, Preference, Unusable
from ptbr_slm.tune.examples import ExampleEncoder
from ptbr_slm.tune.prepared import (
    PreparedConversations,
    PreparedPreferences,
    prepare_conversations,
    prepare_preferences,
)

TOKENIZER, CHAT = tiny_tokenizer(), tiny_chat()


def prepare(path, folder, **keywords):
    keywords = {"seq_len": 256, "valid_fraction": 0.2, **keywords}
    return prepare_conversations([path], folder, CHAT, TOKENIZER, **keywords)


def conversation(*texts, system=None):
    return Conversation(tuple(Message(**one) for one in turns(*texts, system=system)), "a:1")


def encoder(seq_len=256, loss="answers"):
    return ExampleEncoder(CHAT, TOKENIZER, seq_len=seq_len, loss=loss)


def learnt(example):
    """The text that is learnt, after a check that the end of a turn is learnt with it."""
    ids = example.ids[example.target].tolist()
    assert ids[-1] == TOKENIZER.token_id("<|im_end|>")
    return TOKENIZER.decode(ids)


# Examples


def test_exactly_the_answers_and_what_ends_them_are_learnt():
    (example,) = encoder().examples(conversation("Não é?", "É, sim.", "Ação?", "Coração."))
    ids, target = example.ids, example.target
    assert TOKENIZER.decode(ids[target].tolist()) == "É, sim.Coração."
    end = TOKENIZER.token_id("<|im_end|>")
    assert (ids[target] == end).sum() == 2 and (ids == end).sum() == 4
    assert TOKENIZER.decode(ids[~target].tolist()) == "user\nNão é?\nassistant\n\nuser\nAção?\nassistant\n\n"


def test_with_loss_all_everything_but_the_first_token_is_learnt():
    (example,) = encoder(loss="all").examples(conversation("Não é?", "É, sim."))
    assert not example.target[0] and example.target[1:].all()


def test_a_long_conversation_loses_whole_turns_from_the_start():
    long = conversation(
        *[f"Pergunta {at}?" if at % 2 == 0 else f"Resposta {at}." for at in range(12)], system="Oi."
    )
    (whole,) = encoder(4096).examples(long)
    for seq_len in (len(whole.ids) - 1, len(whole.ids) - 2, len(whole.ids) // 2):
        (example,) = encoder(seq_len).examples(long)
        text = TOKENIZER.decode(example.ids.tolist())
        assert len(example.ids) - 1 <= seq_len
        assert text.startswith("system\nOi.\nuser\n") and text.endswith("assistant\nResposta 11.\n")
        kept = [at for at in range(0, 12, 2) if f"Pergunta {at}?" in text]
        assert kept == list(range(kept[0], 12, 2)) and (kept[0] == 0) == (seq_len == len(whole.ids) - 1)
        shorter = Conversation((long.messages[0], *long.messages[1 + kept[0] :]), "a:1")
        longer = Conversation((long.messages[0], *long.messages[1 + kept[0] - 2 :]), "a:1")
        assert np.array_equal(example.ids, encoder(4096).examples(shorter)[0].ids)
        assert kept[0] == 0 or len(encoder(4096).examples(longer)[0].ids) - 1 > seq_len
    with pytest.raises(Unusable, match="too_long"):
        encoder(10).examples(long)
    with pytest.raises(Unusable, match="too_long"):  # one exchange cannot lose a turn, and is never cut
        encoder(10).examples(conversation("Uma pergunta longa?", "Uma resposta longa."))


def test_the_two_answers_of_a_pair_follow_the_same_prompt():
    history = conversation("Oi", "Olá!", "Tudo bem?", system="Seja breve.").messages
    pair = Preference(history, "Tudo.", "Não sei dizer, talvez.", "a:1")
    shorter = len(encoder().examples(pair)[1].ids) - 2
    for seq_len in (256, shorter):
        chosen, rejected = encoder(seq_len).examples(pair)
        start = int(np.flatnonzero(chosen.target)[0])
        assert np.array_equal(chosen.ids[:start], rejected.ids[:start])
        assert start == int(np.flatnonzero(rejected.target)[0])
        assert learnt(chosen) == "Tudo."
        assert learnt(rejected) == "Não sei dizer, talvez."
        assert ("Olá!" in TOKENIZER.decode(chosen.ids.tolist())) == (seq_len == 256)


def test_a_long_text_is_cut_into_pieces_that_predict_each_token_once():
    text = "A capital do Maranhão é São Luís. " * 30
    pieces = encoder(64).examples(PlainText(text, "a:1"))
    assert max(len(piece.ids) for piece in pieces) == 65 and all(piece.target[1:].all() for piece in pieces)
    whole = np.concatenate([pieces[0].ids[:1], *(piece.ids[1:] for piece in pieces)])
    assert whole[0] == TOKENIZER.bos_id and whole[-1] == TOKENIZER.eos_id
    assert TOKENIZER.decode(whole.tolist()) == text


# Folders


def test_what_is_opened_is_what_was_read(tmp_path):
    path = conversation_file(tmp_path / "a.jsonl", 200)
    data = prepare(path, tmp_path / "data")
    again = PreparedConversations.open(data.folder)
    lines = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    expected = {CHAT.encode([Message(**one) for one in line]).ids.tobytes(): line for line in lines}
    found = []
    for name in ("train", "valid"):
        split = again.split(name)
        examples = [split.example(number) for number in range(split.conversations)]
        found += [example.ids.tobytes() for example in examples]
        assert split.tokens == sum(len(one.ids) for one in examples) == split.lengths.sum()
        assert split.target_tokens == sum(one.targets for one in examples)
        answers = "".join(
            message["content"]
            for one in examples
            for message in expected[one.ids.tobytes()]
            if message["role"] == "assistant"
        )
        assert split.target_bytes == len(answers.encode())
        assert np.array_equal(split.first.ids, examples[0].ids)
    assert len(found) == 200 and set(found) == set(expected)
    assert 0.1 < again.split("valid").tokens / sum(again.split(n).tokens for n in ("train", "valid")) < 0.4
    assert again.first.where == f"{path}:1"
    assert np.array_equal(again.first.ids, CHAT.encode([Message(**one) for one in lines[0]]).ids)
    assert foreign_files(data.folder) == []


def test_a_whole_folder_is_reused_and_a_damaged_one_made_again(tmp_path):
    path = conversation_file(tmp_path / "a.jsonl", 20)
    data = prepare(path, tmp_path / "data")
    before = (data.folder / "index.json").stat().st_mtime_ns
    assert prepare(path, tmp_path / "data").folder == data.folder
    assert (data.folder / "index.json").stat().st_mtime_ns == before
    tokens = data.folder / "tokens.bin"
    raw = bytearray(tokens.read_bytes())
    raw[100] ^= 1
    tokens.write_bytes(raw)
    PreparedConversations.open(data.folder, verify=False)
    with pytest.raises(SlmError) as caught:
        PreparedConversations.open(data.folder)
    assert caught.value.code == "E_DATA_CORRUPT" and caught.value.where.endswith("tokens.bin")
    assert prepare(path, tmp_path / "data").sha256 == data.sha256
    PreparedConversations.open(data.folder)


@pytest.mark.parametrize(
    "change",
    [{"seq_len": 200}, {"loss": "all"}, {"valid_fraction": 0.1}, {"seed": 1}, {"format": "messages"}],
)
def test_other_arguments_make_another_folder(tmp_path, change):
    path = conversation_file(tmp_path / "a.jsonl", 20)
    assert prepare(path, tmp_path, **change).folder != prepare(path, tmp_path).folder


def test_a_changed_file_makes_another_folder_and_the_same_content_the_same_identity(tmp_path):
    one = prepare(conversation_file(tmp_path / "a.jsonl", 20), tmp_path)
    same = prepare(conversation_file(tmp_path / "b.jsonl", 20), tmp_path)
    more = prepare(conversation_file(tmp_path / "a.jsonl", 21), tmp_path)
    assert len({one.folder, same.folder, more.folder}) == 3
    assert one.sha256 == same.sha256 != more.sha256


def test_the_same_first_question_is_never_on_both_sides(tmp_path):
    rows = [{"messages": turns(f"Pergunta {at // 4}?", f"Resposta {at}.")} for at in range(200)]
    data = prepare(write_lines(tmp_path / "a.jsonl", rows), tmp_path)
    asked = []
    for name in ("train", "valid"):
        split = data.split(name)
        texts = [TOKENIZER.decode(split.example(at).ids.tolist()) for at in range(split.conversations)]
        asked.append({text.split("?")[0] for text in texts})
    assert all(asked) and not asked[0] & asked[1]


def test_one_question_for_all_leaves_something_to_validate_on(tmp_path):
    rows = [{"messages": turns("Conte algo.", f"Resposta {at}.")} for at in range(40)]
    data = prepare(write_lines(tmp_path / "a.jsonl", rows), tmp_path)
    assert 2 <= data.split("valid").conversations <= 16


def test_conversations_that_lose_turns_are_counted(tmp_path):
    data = prepare(conversation_file(tmp_path / "a.jsonl", 60), tmp_path, seq_len=100)
    whole = prepare(tmp_path / "a.jsonl", tmp_path, seq_len=1000)
    lengths = np.concatenate([whole.split(name).lengths for name in ("train", "valid")])
    assert (
        whole.shortened == 0 and data.shortened == (lengths > 101).sum() - data.skipped.get("too_long", 0) > 0
    )


def test_a_conversation_without_a_learnt_token_is_skipped(tmp_path, monkeypatch):
    encode = type(CHAT).encode

    def no_answers(self, messages):
        encoded = encode(self, messages)
        return replace(encoded, answer=encoded.answer & ("Oi" not in messages[0].content))

    monkeypatch.setattr(type(CHAT), "encode", no_answers)
    rows = [{"messages": turns(text, "Olá!")} for text in ("Oi", "Bom dia")]
    data = prepare(write_lines(tmp_path / "a.jsonl", rows), tmp_path)
    assert data.skipped == {"masked": 1} and data.split("train").conversations == 1


def test_every_skipped_row_is_counted_by_its_reason(tmp_path):
    good = {"messages": turns("Que horas são?", "São três.")}
    (tmp_path / "provas").mkdir()
    evaluation = write_lines(tmp_path / "provas" / "prova.jsonl", [{"pergunta": EXAM}])
    rows = [
        good,
        good,
        {"messages": turns(*["Uma pergunta muito longa, com muitas palavras? " * 5, "Sim."])},
        {"messages": turns("Responda: " + EXAM, "Três.")},
        {"messages": turns("Em que ano?", "Diz a prova: " + EXAM)},
        {"messages": turns("", "Oi.")},
        {"messages": turns("Oi")},
        {"messages": turns("Oi", "Olá!", "E aí?")},
        {"messages": [*turns("Oi", "Olá!"), *turns("Oi", "Olá!")[1:]]},
        {"messages": [{"role": "robô", "content": "Oi"}]},
        "{",
    ]
    data = prepare(
        write_lines(tmp_path / "a.jsonl", rows), tmp_path, evaluation_sets=[evaluation], seq_len=120
    )
    assert data.skipped == {"duplicate": 1, "too_long": 1, "contaminated": 2, "empty": 1, "no_assistant": 1,
                            "ends_with_user": 1, "same_role_twice": 1, "unknown_role": 1,
                            "bad_json": 1}  # fmt: skip
    assert data.skipped_examples["contaminated"] == [f"{tmp_path / 'a.jsonl'}:{line}" for line in (4, 5)]
    folder = prepare(tmp_path / "a.jsonl", tmp_path, evaluation_sets=[evaluation.parent], seq_len=120)
    assert folder.sha256 == data.sha256 and folder.skipped == data.skipped
    assert data.split("train").conversations == 1 and data.split("valid").conversations == 0
    assert data.split("train").skipped == data.skipped


EXAM = "o barco saiu do porto às sete horas com doze pessoas e voltou sem nenhuma delas"


def test_a_template_that_refuses_some_conversations_loses_them_alone(tmp_path, monkeypatch):
    refused = SlmError("E_CHAT_TEMPLATE", "o modelo de conversa falhou.", hint="")
    encode = type(CHAT).encode

    def no_system(self, messages):
        if messages[0].role == "system":
            raise refused
        return encode(self, messages)

    monkeypatch.setattr(type(CHAT), "encode", no_system)
    rows = [{"messages": turns("Oi", "Olá!")}, {"messages": turns("Oi", "Olá!", system="a")}]
    assert prepare(write_lines(tmp_path / "a.jsonl", rows), tmp_path).skipped == {"template": 1}
    with pytest.raises(SlmError, match="modelo de conversa"):
        prepare(write_lines(tmp_path / "b.jsonl", rows[1:]), tmp_path)


def test_errors_name_what_is_wrong(tmp_path):
    path = conversation_file(tmp_path / "a.jsonl", 3)
    cases = [
        ({"valid_fraction": 0.6}, "E_CONFIG"),
        ({"loss": "tudo"}, "E_CONFIG"),
        ({"format": "preference"}, "E_DATA_EMPTY"),
        ({"seq_len": 3}, "E_DATA_EMPTY"),
    ]
    for change, code in cases:
        with pytest.raises(SlmError) as caught:
            prepare(path, tmp_path / "data", **change)
        assert caught.value.code == code
    (tmp_path / "vazia").mkdir()
    for sets in ("vazia", "nada"):
        with pytest.raises(SlmError, match="avaliação") as caught:
            prepare(path, tmp_path / "data", evaluation_sets=[tmp_path / sets])
        assert caught.value.code == "E_NOT_FOUND"
    with pytest.raises(SlmError) as caught:
        prepare(tmp_path / "b.jsonl", tmp_path / "data")
    assert caught.value.code == "E_NOT_FOUND"
    pairs = write_lines(tmp_path / "p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(SlmError, match="preferência") as caught:
        prepare(pairs, tmp_path / "data")
    assert caught.value.code == "E_DATA_FORMAT"
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []
    with pytest.raises(SlmError) as caught:
        PreparedConversations.open(tmp_path)
    assert caught.value.code == "E_NOT_FOUND"
    (tmp_path / "index.json").write_text('{"schema": 1, "kind": "prepared-data"}')
    with pytest.raises(SlmError) as caught:
        PreparedConversations.open(tmp_path)
    assert caught.value.code == "E_DATA_CORRUPT"


def test_pairs_are_kept_together(tmp_path):
    rows = [
        {
            "prompt": f"Pergunta {at}?",
            "chosen": f"Sim, {at}.",
            "rejected": f"Não, {at}, nunca.",
            "messages": [],
        }
        for at in range(40)
    ]
    path = write_lines(tmp_path / "a.jsonl", [*rows, rows[0]])
    arguments = [path], tmp_path, CHAT, TOKENIZER
    data = prepare_preferences(*arguments, seq_len=256, valid_fraction=0.2)
    assert prepare_preferences(*arguments, seq_len=256, valid_fraction=0.2).folder == data.folder
    assert PreparedPreferences.open(data.folder).sha256 == data.sha256 and data.skipped == {"duplicate": 1}
    found = []
    for name in ("train", "valid"):
        split = data.split(name)
        assert split.pairs and split.lengths.sum() == split.tokens
        for number in range(split.pairs):
            chosen, rejected = split.pair(number)
            assert [len(chosen.ids), len(rejected.ids)] == split.lengths[number].tolist()
            start = int(np.flatnonzero(chosen.target)[0])
            assert np.array_equal(chosen.ids[:start], rejected.ids[:start])
            assert learnt(rejected) == learnt(chosen).replace("Sim", "Não").replace(".", ", nunca.")
            found.append(learnt(chosen))
    assert sorted(found) == sorted(row["chosen"] for row in rows)
    with pytest.raises(SlmError) as caught:
        PreparedConversations.open(data.folder)
    assert caught.value.code == "E_DATA_CORRUPT"
    conversations = conversation_file(tmp_path / "b.jsonl", 3)
    with pytest.raises(SlmError, match="pares") as caught:
        prepare_preferences([conversations], tmp_path, CHAT, TOKENIZER, seq_len=256)
    assert caught.value.code == "E_DATA_FORMAT"
