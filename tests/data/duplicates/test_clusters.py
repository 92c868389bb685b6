"""Near copies are found, verified, and the same whatever the order in which documents come."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_copies import changed_copy, jaccard, random_text

from ptbr_slm.data.duplicates import signatures as module
from ptbr_slm.data.duplicates.clusters import Clusters, ShingleStore, find_near_duplicates, repeats
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings, SignatureIndex, signatures
from ptbr_slm.errors import SlmError

pytest.importorskip("rensa")


def clusters_of(texts: Sequence[str], folder: Path, order: Iterable[int] | None = None) -> Clusters:
    numbers = list(order) if order is not None else list(range(len(texts)))

    def read() -> Iterator[tuple[int, str]]:
        return ((number, texts[number]) for number in numbers)

    return find_near_duplicates(read, folder, NearDuplicateSettings())


def test_planted_copies_are_found_by_similarity_and_no_other_document_is(tmp_path: Path):
    pick = random.Random(1)
    originals = [random_text(pick, 200) for _ in range(160)]
    wanted = [0.5, 0.7, 0.85, 0.95] * 40
    copies = [changed_copy(pick, text, share) for text, share in zip(originals, wanted, strict=True)]
    found = clusters_of(originals + copies, tmp_path)
    recall: dict[float, list[bool]] = {share: [] for share in wanted}
    for i, (text, copy, share) in enumerate(zip(originals, copies, wanted, strict=True)):
        assert found.original_of(i) == i
        removed = found.original_of(160 + i)
        assert removed == (i if jaccard(text, copy) >= 0.8 and removed != 160 + i else 160 + i)
        recall[share].append(removed == i)
        assert found.group_of(160 + i) in (i, 160 + i)
    assert sum(recall[0.95]) == 40 and sum(recall[0.85]) >= 39
    assert not any(recall[0.5]) and not any(recall[0.7])
    assert sum(found.group_of(160 + i) == i for i, share in enumerate(wanted) if share == 0.7) >= 33


def test_the_order_in_which_documents_come_changes_nothing(tmp_path: Path):
    pick = random.Random(2)
    texts = [random_text(pick, 80) for _ in range(40)]
    texts += [changed_copy(pick, texts[i % 40], 0.9) for i in range(80)]
    first = clusters_of(texts, tmp_path / "0")
    for turn in (1, 2):
        order = list(range(len(texts)))
        pick.shuffle(order)
        again = clusters_of(texts, tmp_path / str(turn), order)
        for field in ("members", "kept", "group"):
            assert np.array_equal(getattr(again, field), getattr(first, field))
    assert first.copies >= 60


def test_a_chain_of_similar_documents_does_not_remove_what_is_unlike_the_kept_one(tmp_path: Path):
    words = random_text(random.Random(3), 400).split()
    texts = [" ".join(words[start : start + 200]) for start in range(0, 200, 10)]
    found = clusters_of(texts, tmp_path)
    for i in range(20):
        kept = found.original_of(i)
        assert kept == i or jaccard(texts[kept], texts[i]) >= 0.8
    assert 20 // 3 - 1 <= len({found.original_of(i) for i in range(20)}) < 20


def test_a_template_of_most_documents_is_no_group_but_the_copies_in_it_are(tmp_path: Path):
    pick = random.Random(8)
    words = random_text(pick, 300).split()
    texts = []
    for _ in range(40):
        filled = [*words[:200], *random_text(pick, 60).split()]
        texts.append(" ".join(filled))
        texts.append(" ".join([*filled[:250], "outro", *filled[251:]]))
    found = clusters_of([*texts, "um texto à parte de todos os outros"], tmp_path)
    assert [found.group_of(i) for i in range(80)] == [i - i % 2 for i in range(80)]
    alone = clusters_of([f"{' '.join(words)} x{i}" for i in range(30)], tmp_path / "x")
    assert [alone.group_of(i) for i in range(30)] == list(range(30)) and alone.copies == 29


def test_sizes_count_exact_and_near_copies_and_a_group_has_one_identity(tmp_path: Path):
    pick = random.Random(4)
    text, other = random_text(pick, 300), random_text(pick, 300)
    texts = [other, text, text.upper() + "!", "curto demais", changed_copy(pick, text, 0.9), "outro"]
    found = clusters_of(texts, tmp_path)
    sizes = found.sizes(np.array([4, 1, 2, 7, 3, 1], np.uint32))
    assert sizes.tolist() == [4, 6, 0, 7, 0, 1] and found.copies == 2
    identities = np.array([9, 8, 7, 1, 6, 0], np.uint64)
    together, identity = found.group_identities(identities)
    assert together.tolist() == [1, 2, 4] and identity.tolist() == [6, 6, 6]
    assert found.members.tolist() == [1, 2, 4]


@pytest.mark.parametrize("texts", [[], ["a b"], ["a b", "a b"], ["uma frase só, sem nenhuma cópia dela"]])
def test_nothing_to_compare_gives_no_cluster(tmp_path: Path, texts: list[str]):
    found = clusters_of(texts, tmp_path)
    assert not len(found.members) and not found.copies
    assert found.original_of(0) == found.group_of(0) == 0


def test_bands_are_sorted_in_slices_with_the_same_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pick = random.Random(5)
    texts = [random_text(pick, 60) for _ in range(50)]
    texts += [changed_copy(pick, text, 0.8) for text in texts]
    settings = NearDuplicateSettings()
    bands = signatures(texts, settings)
    with SignatureIndex(tmp_path, settings) as index:
        index.add(range(100), bands)
        whole = index.candidate_pairs()
        monkeypatch.setattr(module, "_RECORDS", 7)
        assert np.array_equal(index.candidate_pairs(), whole) and len(whole) >= 40


def test_an_index_goes_on_where_an_earlier_run_had_flushed_it(tmp_path: Path):
    pick = random.Random(6)
    texts = [random_text(pick, 60) for _ in range(20)] * 2
    settings = NearDuplicateSettings()
    bands = signatures(texts, settings)
    with SignatureIndex(tmp_path, settings) as index:
        index.add(range(30), bands[:30])
        index.flush()
        length = index.length
        index.add(range(30, 40), bands[30:])  # lost
    with SignatureIndex(tmp_path, settings, length=length) as index:
        index.add(range(30, 40), bands[30:])
        assert index.length == 40
        pairs = index.candidate_pairs()
    assert pairs.tolist() == [i << 32 | i + 20 for i in range(20)]


def test_a_bucket_with_a_thousand_documents_gives_few_pairs_and_one_cluster(tmp_path: Path):
    text = random_text(random.Random(7), 60)
    texts = [f"{text} {'!' * i}" for i in range(1_000)]
    settings = NearDuplicateSettings()
    with SignatureIndex(tmp_path, settings) as index:
        index.add(range(1_000), signatures(texts, settings))
        assert len(index.candidate_pairs()) < 4_000
    assert clusters_of(texts, tmp_path).copies == 999


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.lists(st.sampled_from("abcdef"), max_size=40))
def test_the_similarity_is_that_of_the_sets_of_shingles(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str]
):
    pairs = np.array([0 << 32 | 1], np.uint64)
    folder = tmp_path_factory.mktemp("conjuntos")
    with ShingleStore(folder, pairs, NearDuplicateSettings()) as store:
        store.add(1, " ".join(second))
        store.add(0, " ".join(first))
        assert store.jaccard(0, 1) == pytest.approx(jaccard(" ".join(first), " ".join(second)))
        assert store.wants(0) and store.wants(1) and not store.wants(2)


def test_the_settings_name_the_hash_and_the_normalisation():
    description = NearDuplicateSettings().description()
    assert description["shingle_words"] == 5 and "NFKD" in str(description["normalization"])
    assert "algorithm" in str(description["minhash"]) and description["threshold"] == 0.8


def test_what_is_copied_a_few_times_is_repeated_and_spam_is_not():
    wanted = {0: 0, 1: 1, 2: 2, 4: 3, 5: 5, 99: 5, 100: 8, 999: 8, 1_000: 1, 50_000: 1}
    assert dict(zip(wanted, repeats(np.array([*wanted])).tolist(), strict=True)) == wanted


def test_without_rensa_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(SlmError) as raised:
        signatures(["um texto qualquer de mais de cinco palavras"], NearDuplicateSettings())
    assert raised.value.code == "E_DEPENDENCY" and "rensa" in str(raised.value)
