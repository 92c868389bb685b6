"""Safetensors as we write them: the library's bytes, with one array in memory at a time."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.weights import Deferred, stored_arrays, write_safetensors

KINDS = ["bool", "uint8", "int8", "int16", "uint16", "float16", "int32", "uint32", "float32", "float64",
         "int64", "uint64"]  # fmt: skip


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    found = {f"ção.{kind}": draw.integers(0, 2, (3, 5)).astype(kind) for kind in KINDS}
    found["a number"] = np.array(7, np.int64)
    found["nothing"] = np.zeros((0, 4), np.float32)
    found["turned"] = draw.random((4, 6)).astype(np.float32).T
    return found


def deferred(array: np.ndarray) -> Deferred:
    return Deferred(array.shape, array.dtype, lambda: array.copy())


@pytest.mark.parametrize("late", [False, True])
def test_the_file_is_the_librarys_byte_for_byte(tmp_path: Path, late: bool) -> None:
    given = arrays()
    write_safetensors(tmp_path / "one", {name: deferred(a) if late else a for name, a in given.items()})
    contiguous = {name: np.ascontiguousarray(a) if a.ndim else a for name, a in given.items()}
    assert (tmp_path / "one").read_bytes() == save(contiguous, metadata={"format": "pt"})


def test_what_was_written_is_read_back_an_array_at_a_time(tmp_path: Path) -> None:
    given = arrays()
    write_safetensors(tmp_path / "one", given)
    found, plain = stored_arrays(tmp_path / "one"), load_file(tmp_path / "one")
    assert set(found) == set(plain) == set(given)
    for name, array in given.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name].make(), array)


def test_arrays_that_are_made_when_they_are_written_are_never_in_memory_together(tmp_path: Path) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def make(number: int) -> np.ndarray:
        nonlocal alive, most
        array = np.full(1000, number, np.float32)
        weakref.finalize(array, gone)
        alive += 1
        most = max(most, alive)
        return array

    write_safetensors(
        tmp_path / "one",
        {f"{number}": Deferred((1000,), np.dtype(np.float32), partial(make, number)) for number in range(8)},
    )
    assert most <= 2, "one that is written, and the next one"
    assert [float(a[0]) for _, a in sorted(load_file(tmp_path / "one").items())] == list(range(8))


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SlmError) as caught:
        write_safetensors(tmp_path / "no folder" / "one", arrays())
    assert caught.value.code == "E_NOT_FOUND" and "one" in caught.value.where
