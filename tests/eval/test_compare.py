"""Two models side by side: what pairs, what is noise, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.compare import BITS, compare
from ptbr_slm.eval.grammar import suite
from ptbr_slm.eval.results import BitsRecord, DocumentBits, ModelFacts, Part, Results, TaskRecord
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore
from ptbr_slm.eval.vectors import read_results_or_vector


def items_of(values, *, prefix: str = "", metric: str = "acc") -> tuple[ItemResult, ...]:
    return tuple(
        ItemResult(f"{prefix}{place}", f"sha{place}", {metric: float(value)}, 0, 0)
        for place, value in enumerate(values)
    )


def task_of(items, **changes) -> TaskRecord:
    metric = next(iter(items[0].values)) if items else "acc"
    record = TaskRecord(
        "cores", "Cores", "1", "log-verossimilhança", "t", "d", len(items), (TaskScore(metric, 0.5, None),),
        tuple(items),
    )  # fmt: skip
    return replace(record, **changes)


def text_of(bits, sizes, **changes) -> BitsRecord:
    documents = tuple(
        DocumentBits(str(place), f"sha{place}", float(cost), int(size), 10, f"Texto {place}")
        for place, (cost, size) in enumerate(zip(bits, sizes, strict=True))
    )
    record = BitsRecord("valid", "dados", "x", 64, 32, 100, int(sum(sizes)), 1.0, None, 10, documents)
    return replace(record, **changes)


def results_of(*, tasks=(), bits=(), name="m") -> Results:
    return Results(ModelFacts(name, name, 10, 64), tuple(bits), tuple(tasks))


def compared(a, b):
    """The one line of a comparison of two tasks."""
    (line,) = compare(results_of(tasks=[a]), results_of(tasks=[b])).lines
    return line


def test_right_and_wrong_are_compared_on_the_items_that_both_have():
    a = items_of([1] * 20 + [0] * 20 + [1] * 5)
    b = items_of([1] * 40)
    line = compared(task_of(a), task_of(b))
    assert (line.a, line.b, line.better) == (0.5, 1.0, "B")
    assert line.paired.p_value == pytest.approx(2 * 0.5**20)
    assert (line.pairing.pairs, line.pairing.only_a, line.pairing.only_b) == (40, 5, 0)
    assert line.notes == ("5 itens só em A",)


def test_items_whose_content_changed_are_no_pairs_and_are_told():
    a = items_of([1] * 10)
    b = [replace(item, sha256="novo") if place < 3 else item for place, item in enumerate(a)]
    line = compared(task_of(a), task_of(b, data_sha256="outro"))
    assert line.pairing.pairs == 7 and line.pairing.changed == 3
    assert line.notes == (
        "o arquivo de dados mudou entre A e B; contam os itens iguais",
        "3 itens mudaram de conteúdo e ficaram de fora",
    )


def test_the_order_of_the_items_and_repeated_ids_change_nothing():
    generator = np.random.default_rng(0)
    first = [
        replace(item, id=str(place // 2), sha256="s")
        for place, item in enumerate(items_of(generator.random(30) < 0.5))
    ]
    second = [replace(item, values={"acc": 1.0}) for item in first]
    line = compared(task_of(first), task_of(second))
    turned = compared(task_of(first), task_of(second[::-1]))
    assert line.pairing.pairs == 30 and line.pairing.is_whole
    assert (line.a, line.b, line.paired.p_value) == (turned.a, turned.b, turned.paired.p_value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "2"}, "versão 1 da tarefa em A e 2 em B"),
        ({"protocol": "geração", "task_sha256": "u"}, "outro protocolo"),
        ({"task_sha256": "u"}, "outra definição"),
        (
            {"items": items_of([1, 1], prefix="x"), "data_sha256": "e"},
            "nenhum item em comum: os dados são outros",
        ),
        ({"scores": (TaskScore("f1", 0.5, None),)}, "outra medida"),
        ({"name": "outra"}, "só foi medida em"),
    ],
)
def test_what_is_no_pair_is_named(changes, says):
    items = items_of([1, 0])
    with pytest.raises(SlmError) as caught:
        compared(
            task_of(items),
            task_of(items, **changes) if "items" not in changes else replace(task_of(items), **changes),
        )
    assert caught.value.code == "E_COMPARE" and says in caught.value.message


def test_nothing_in_common_is_an_error_and_a_part_is_not():
    with pytest.raises(SlmError, match="não têm nada"):
        compare(results_of(), results_of())
    items = items_of([1, 0])
    found = compare(
        results_of(tasks=[task_of(items), task_of(items, name="x")]), results_of(tasks=[task_of(items)])
    )
    assert [line.name for line in found.lines] == ["cores"]
    assert [(one.name, one.reason) for one in found.not_compared] == [("x", "só foi medida em A")]


def test_other_values_are_compared_by_exchange_and_what_is_no_number_is_left_out():
    generator = np.random.default_rng(1)
    values = generator.random(60)
    a = items_of([*values, np.nan], metric="f1")
    b = items_of([*(values * 0.5), 0.0], metric="f1")
    line = compared(task_of(a), task_of(b))
    assert line.better == "A" and line.metric == "f1" and "1 itens sem um número" in line.notes[0]


def test_of_documents_the_lower_bits_are_better():
    generator = np.random.default_rng(2)
    sizes = generator.integers(200, 2000, 40)
    bits = sizes * generator.normal(1.5, 0.3, 40)
    a, b = text_of(bits, sizes), text_of(bits - 0.02 * sizes, sizes)
    (line,) = compare(results_of(bits=[a]), results_of(bits=[b])).lines
    assert (line.metric, line.better) == (BITS, "B")
    assert line.paired.difference == pytest.approx(-0.02, abs=1e-4) and line.b < line.a
    noise = text_of(bits + sizes * generator.normal(0, 0.02, 40), sizes)
    (line,) = compare(results_of(bits=[a]), results_of(bits=[noise])).lines
    assert line.better is None and len(line.a_better) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"text_sha256": "y"}, "o texto não é o mesmo"), ({"name": "w"}, "só foi medido em")],
)
def test_another_text_is_no_pair(changes, says):
    a = text_of([10, 20], [10, 20])
    with pytest.raises(SlmError, match=says):
        compare(results_of(bits=[a]), results_of(bits=[replace(a, **changes)]))


def test_documents_of_which_other_bytes_were_counted_are_no_pair():
    with pytest.raises(SlmError, match="outros bytes"):
        compare(results_of(bits=[text_of([10, 20], [10, 20])]), results_of(bits=[text_of([9, 20], [8, 20])]))


def test_pieces_of_a_document_count_as_one_unit():
    """Forty pieces of four documents: the least p is 2 / 2 ** 4."""
    sizes = np.full(40, 100)
    a = text_of(sizes * 1.5, sizes)
    pieces = tuple(replace(one, id=f"{place // 10}.{place}") for place, one in enumerate(a.documents))
    a = replace(a, documents=pieces)
    b = replace(a, documents=tuple(replace(one, bits=one.bits - 5) for one in pieces))
    (line,) = compare(results_of(bits=[a]), results_of(bits=[b])).lines
    assert line.paired.p_value == 2 / 2**4 and line.better is None
    assert any("com 4 documentos" in note for note in line.notes)


def test_several_tests_are_one_family_and_parts_are_another():
    right, wrong = [1] * 7 + [1] * 30, [0] * 7 + [1] * 30  # p = 2 / 2 ** 7 = 0.016
    parts = (Part("g", "Gênero", 37),)
    tasks = [
        task_of(items_of(wrong, prefix="g-"), name=f"t{number}", parts=parts if number == 0 else ())
        for number in range(5)
    ]
    better = [replace(task, items=items_of(right, prefix="g-")) for task in tasks]
    found = compare(results_of(tasks=tasks), results_of(tasks=better))
    assert [line.better for line in found.lines] == [None] * 5
    assert found.lines[0].p_adjusted == pytest.approx(5 * 2 / 2**7)
    (part,) = found.lines[0].parts
    assert part.better == "B" and part.p_adjusted == part.paired.p_value
    assert compare(results_of(tasks=tasks[:1]), results_of(tasks=better[:1])).lines[0].better == "B"


def test_the_items_that_differ_most_are_shown_with_their_sentences():
    phenomenon = suite.load().phenomena[0]
    pairs = phenomenon.pairs[:4]

    def answers(margins) -> tuple[ItemResult, ...]:
        return tuple(
            ItemResult(pair.id, "s", {"acc": float(margin > 0)}, int(margin < 0), 0, logprobs=(margin, 0.0))
            for pair, margin in zip(pairs, margins, strict=True)
        )

    line = compared(task_of(answers([1, -1, 5, -2])), task_of(answers([2, 3, -4, 9])))
    assert [one.id for one in line.b_better] == [pairs[3].id, pairs[1].id]
    assert [one.id for one in line.a_better] == [pairs[2].id]
    assert line.a_better[0].text == f"{pairs[2].good}  *{pairs[2].bad}"
    assert (line.a_better[0].a, line.a_better[0].b) == ("+5,0 nats", "-4,0 nats")


def test_vectors_that_others_publish_pair_by_position(tmp_path):
    def write(name, right, **more):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"model": name, "lowercase": False, "corretos": right, **more}))
        return read_results_or_vector(path)

    a, b = write("a", [1, 0] * 30), write("b", [1, 1] * 30)
    (line,) = compare(a, b).lines
    assert (line.a, line.b, line.better, line.pairing.pairs) == (0.5, 1.0, "B", 60)
    for other in (write("c", [1, 0]), write("d", [1, 0] * 30, lowercase=True)):
        with pytest.raises(SlmError) as caught:
            compare(a, other)
        assert caught.value.code == "E_COMPARE"


@pytest.mark.parametrize("right", [[], [2], "10", [0, None], [0.5]])
def test_a_vector_of_something_else_is_refused(tmp_path, right):
    (tmp_path / "v.json").write_text(json.dumps({"model": "x", "corretos": right}))
    with pytest.raises(SlmError) as caught:
        read_results_or_vector(tmp_path / "v.json")
    assert caught.value.code == "E_RESULTS"
