"""The fraction for validation is a fraction of the text, whatever the number of documents."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_copies import random_text
from prepared_texts import texts_of

from ptbr_slm.data.document import Document, DocumentCounts
from ptbr_slm.data.duplicates.exact import fingerprint
from ptbr_slm.data.hold_out import MIN_CUT_BYTES, choose_hold_out, cut_point
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.tokenizer import Tokenizer


def share(data: PreparedData) -> float:
    train, valid = data.split("train").bytes, data.split("valid").bytes
    return valid / (train + valid)


def book(prose: Callable[..., str], seed: int, size: int) -> str:
    """Paragraphs of prose, about `size` bytes."""
    text, paragraph = "", 0
    while len(text) < size:
        text += f"{prose(1_000 * seed + paragraph, 3)}\n\n"
        paragraph += 1
    return text.rstrip()


@pytest.mark.parametrize("seed", range(6))
def test_a_book_beside_a_note_never_becomes_the_validation(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str], seed: int
):
    folder = tmp_path / "textos"
    folder.mkdir()
    (folder / "livro.txt").write_text(book(prose, 1, 130_000))
    (folder / "nota.txt").write_text(book(prose, 2, 3_000))
    counts = DocumentCounts()
    data = prepare([folder], tmp_path / "dados", tokenizer, seed=seed, counts=counts)
    assert 0.005 <= share(data) <= 0.02
    assert counts.repaired["end_held_out"] == data.index.repaired["end_held_out"] == 1


def test_a_single_text_below_8_mib_has_its_end_as_validation(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]
):
    (tmp_path / "a.txt").write_text(text := book(prose, 1, 100_000))
    data = prepare([tmp_path / "a.txt"], tmp_path / "dados", tokenizer)
    assert 0.005 <= share(data) <= 0.02
    (train,), (valid,) = texts_of(data, "train", tokenizer), texts_of(data, "valid", tokenizer)
    assert f"{train}\n\n{valid}" == text
    assert texts_of(prepare([tmp_path / "a.txt"], tmp_path / "x", tokenizer), "valid", tokenizer) == [valid]


@pytest.mark.parametrize("seed", range(3))
def test_ten_works_hold_out_one_percent_not_a_whole_work(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str], seed: int
):
    lines = [json.dumps({"text": book(prose, i, 20_000 + 5_000 * i)}) for i in range(10)]
    shares, valid = [], []
    for order in range(2):
        random.Random(order).shuffle(lines)
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        data = prepare([tmp_path / "a.jsonl"], tmp_path / "dados", tokenizer, seed=seed)
        shares.append(share(data))
        valid.append(texts_of(data, "valid", tokenizer))
    assert 0.005 <= shares[0] <= 0.02 and valid[0] == valid[1]


def test_where_whole_documents_give_the_fraction_none_is_cut_and_the_text_is_read_once(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    from ptbr_slm.data import batches as module

    readings = []
    read = module.read_file
    monkeypatch.setattr(module, "read_file", lambda *a, **k: readings.append(a) or read(*a, **k))
    lines = [json.dumps({"text": prose(i)}) for i in range(600)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = prepare([tmp_path / "a.jsonl"], tmp_path / "dados", tokenizer, valid_fraction=0.05)
    assert 0.025 <= share(data) <= 0.1 and len(readings) == 1
    assert data.split("train").documents + data.split("valid").documents == 600
    assert not data.index.repaired


@pytest.mark.parametrize(("sizes", "told"), [([300], "Não há validação: um documento só"), ([300] * 9, "%")])
def test_short_documents_that_cannot_be_split_so_are_told(
    tmp_path: Path,
    tokenizer_file: Path,
    prose: Callable[..., str],
    cli: Callable,
    sizes: list[int],
    told: str,
):
    lines = [json.dumps({"text": book(prose, i, size)}) for i, size in enumerate(sizes)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    done = cli("data", "prepare", "a.jsonl", "-o", "dados", "--tokenizer", tokenizer_file, check=True)
    assert told in done.stdout and ("e não 1,0 %: documentos curtos" in done.stdout) == (len(sizes) > 1)
    body = json.loads(cli("data", "stats", "dados", "--json", check=True).stdout)
    assert body["valid_fraction"] == 0.01 and (body["valid_share"] > 0.05) == (len(sizes) > 1)


def test_a_book_of_one_word_is_not_cut_and_the_note_beside_it_is_held_out_or_nothing(
    tmp_path: Path, tokenizer: Tokenizer, prose: Callable[..., str]
):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in ("x " + "a" * 40_000, prose(1)))
    )
    data = prepare([tmp_path / "a.jsonl"], tmp_path / "dados", tokenizer, valid_fraction=0.2)
    assert share(data) < 0.4 and data.split("train").documents >= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 200_000), min_size=2, max_size=30),
    st.sampled_from([0.001, 0.01, 0.1, 0.3, 0.5]),
    st.integers(0, 99),
)
def test_what_is_held_out_is_never_everything_and_is_near_where_a_document_can_be_cut(
    sizes: list[int], fraction: float, seed: int
):
    pick = random.Random(seed)
    keys = [pick.random() for _ in sizes]
    choice = choose_hold_out(np.array(keys), np.array(sizes), fraction)
    held = 0
    for key, size in zip(keys, sizes, strict=True):
        parts = choice.assign(Document("", ""), key)
        cut = choice.cut_bytes if key == choice.cut else 0
        assert cut < size and len(parts) == 1  # an empty text has no boundary: nothing is cut
        held += cut or size * (parts[0][0] == "valid")
    assert 0 < held < sum(sizes)
    if all(size >= MIN_CUT_BYTES for size in sizes):
        assert 0.49 * fraction <= held / sum(sizes) <= 2.01 * fraction


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("Um parágrafo.\n\nOutro parágrafo.\n\nO fim do texto.", "O fim do texto."),
        ("Uma linha\noutra linha\no fim do texto", "o fim do texto"),
        ("Uma frase longa. Outra frase. O fim do texto.", "O fim do texto."),
        ("sem nenhum ponto nem linha até o fim", "linha até o fim"),
    ],
)
def test_a_document_is_cut_at_the_best_boundary_near_the_place(text: str, end: str):
    at = cut_point(text, 12)
    assert at is not None and text[at:] == end


def test_without_a_boundary_nothing_is_cut():
    assert cut_point("a" * 1_000, 10) is None and cut_point("", 10) is None


@settings(max_examples=80, deadline=None)
@given(
    st.sets(st.text("abcdef", min_size=1), min_size=2, max_size=12),
    st.sampled_from([0.001, 0.3, 0.5]),
    st.randoms(),
)
def test_two_documents_or_more_leave_no_part_empty_in_any_order(
    texts: set[str], fraction: float, shuffler: random.Random
):
    def part(ordered: list[str]) -> dict[str, set[str]]:
        keys = [fingerprint(text, 0)[1] for text in ordered]
        choice = choose_hold_out(np.array(keys), np.array([len(text) for text in ordered]), fraction)
        parts: dict[str, set[str]] = {"train": set(), "valid": set()}
        for text, key in zip(ordered, keys, strict=True):
            for name, document in choice.assign(Document(text, ""), key):
                parts[name].add(document.text)
        return parts

    first = part(sorted(texts))
    shuffled = sorted(texts)
    shuffler.shuffle(shuffled)
    assert part(shuffled) == first
    assert first["train"] and first["valid"] and first["train"] | first["valid"] == texts


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 50_000)), min_size=2, max_size=30),
    st.sampled_from([0.001, 0.01, 0.1, 0.3, 0.5]),
)
def test_documents_that_share_a_key_fall_on_one_side_and_a_large_group_is_for_training(
    grouped: list[tuple[int, int]], fraction: float
):
    keys = [random.Random(group).random() for group, _ in grouped]
    choice = choose_hold_out(np.array(keys), np.array([size for _, size in grouped]), fraction)
    sides = {key: choice.assign(Document("", ""), key)[0][0] for key in keys}
    if choice.cut is not None:
        assert keys.count(choice.cut) == 1 and sides.pop(choice.cut) in ("train", "valid")
    elif len(sides) > 1:
        assert set(sides.values()) == {"train", "valid"}
    else:
        assert set(sides.values()) == {"train"}


def test_documents_of_size_zero_are_no_part_of_the_choice():
    assert choose_hold_out(np.array([0.1, 0.2, 0.9]), np.array([0, 0, 500]), 0.5).bytes == 0


@pytest.mark.parametrize("drop", [False, True])
def test_near_copies_of_two_thousand_documents_are_never_on_both_sides(
    tmp_path: Path, tokenizer: Tokenizer, drop: bool
):
    pick = random.Random(1)
    originals = [random_text(pick, 60) for _ in range(2_000)]
    copies = []
    for number, text in enumerate(originals):
        words = text.split()
        first = pick.randrange(len(words) - 8)
        words[first : first + pick.randint(1, 4)] = [f"x{number}", f"y{number}"]
        copies.append(" ".join(words))
    lines = [json.dumps({"text": text}) for text in originals + copies]
    pick.shuffle(lines)
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = prepare(
        [tmp_path / "a.jsonl"], tmp_path / "dados", tokenizer, valid_fraction=0.1, drop_near_duplicates=drop
    )
    described = data.index.near_duplicates
    assert described["bands"] == 30 and described["dropped"] == drop
    assert data.index.dropped == ({"near_duplicate": described["found"]} if drop else {})
    train, valid = (set(texts_of(data, split, tokenizer)) for split in SPLITS)
    assert len(valid) > 150 and (len(train) + len(valid) == 4_000) == (not drop)
    for original, copy in zip(originals, copies, strict=True):
        assert not ({original, copy} & valid and {original, copy} & train)
