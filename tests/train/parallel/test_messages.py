"""What ranks send each other: values and errors arrive as they were sent, and nothing else arrives at all."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.parallel.messages import decode, decode_error, encode, encode_error
from ptbr_slm.train.planning.plan import make_plan
from ptbr_slm.train.session import StopBeforeTraining


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 0.1, float("inf"), "não\udcff", [1, [2.5, "a"]], (1, (2,)), {"a": {"b": (None,)}},
        {"path": "a dictionary with a type's name as its key"}, Path("a b/ç"), torch.device("cuda", 1),
    ],
)  # fmt: skip
def test_a_value_arrives_as_it_was_sent(value):
    arrived = decode(encode(value))
    assert arrived == value and type(arrived) is type(value)


def test_a_plan_arrives_whole(settings, tokenizer_file):
    plan = make_plan(settings(), Tokenizer.load(tokenizer_file), 2)
    assert decode(encode(plan)) == plan


@dataclass
class Foreign:
    """Not of the package."""

    number: int


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object(), b"bytes", Foreign(1), torch.zeros(1)])
def test_what_no_message_can_carry_is_refused_by_the_sender(value):
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize(
    "body",
    [
        {"os:system": {"dict": {"command": "true"}}},
        {"builtins:eval": {"dict": {}}},
        {"ptbr_slm.errors:SlmError": {"dict": {}}},
        {"ptbr_slm.errors:os_errors": {"dict": {}}},
        {"ptbr_slm.train.never_imported:Anything": {"dict": {}}},
        {"ptbr_slm.train.config:TrainConfig": {"dict": {"no_such_field": 1}}},
        {},
        {"tuple": [], "list": []},
    ],
)
def test_a_message_that_names_another_type_is_refused_by_the_receiver(body):
    with pytest.raises((ValueError, TypeError)):
        decode(json.dumps(body).encode())


def test_a_pickle_is_no_message():
    for arrived in (decode, decode_error):
        with pytest.raises(ValueError):
            arrived(pickle.dumps({"code": "E_IO"}))


def arrived(error: BaseException) -> Any:
    return decode_error(encode_error(error))


def test_an_error_arrives_with_its_code_message_place_and_hint():
    error = arrived(SlmError("E_DISK_FULL", "cheio", where="aqui", hint="apague"))
    assert isinstance(error, SlmError)
    assert (error.code, error.message, error.where, error.hint) == ("E_DISK_FULL", "cheio", "aqui", "apague")


def test_errors_of_python_arrive_as_what_the_user_should_read_or_what_the_run_must_catch(tmp_path):
    try:
        (tmp_path / "missing").read_bytes()
    except OSError as missing:
        error = arrived(missing)
    assert error.code == "E_NOT_FOUND" and error.where == str(tmp_path / "missing")
    assert arrived(ModuleNotFoundError("no", name="pyarrow")).code == "E_DEPENDENCY"
    assert isinstance(arrived(KeyboardInterrupt()), KeyboardInterrupt)
    assert isinstance(arrived(StopBeforeTraining()), StopBeforeTraining)
    assert isinstance(arrived(MemoryError("1 GiB")), MemoryError)
    other = arrived(torch.OutOfMemoryError("CUDA out of memory"))
    assert type(other) is RuntimeError and str(other) == "OutOfMemoryError: CUDA out of memory"
