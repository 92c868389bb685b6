"""Numbers of NumPy as sampling values: what an array or a sweep gives is accepted as it is."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingOptions, SamplingParams, sampling_params

VALUES = {
    "max_new_tokens": np.int64(5),
    "temperature": np.float32(0.5),
    "top_k": np.uint8(4),
    "top_p": np.float64(0.5),
    "min_p": np.float16(0.5),
    "repetition_penalty": np.float32(1.5),
    "presence_penalty": np.int8(1),
    "frequency_penalty": np.float32(-1),
    "logit_bias": {np.int64(7): np.float32(-100), 8: np.int32(3)},
    "seed": np.uint64(3),
    "logprobs": np.int16(2),
    "prompt_logprobs": np.bool_(True),
    "first_logits": np.bool_(True),
    "n": np.int32(2),
    "lookahead": np.int64(4),
    "timeout_s": np.float32(2),
    "min_tokens": np.int16(3),
    "ignore_eos": np.bool_(True),
    "stop_token_ids": (np.int64(2), 5),
}


def test_numpy_integers_and_floats_are_sampling_values_and_become_python_numbers():
    taken = dataclasses.asdict(SamplingParams(**VALUES))
    for name, value in VALUES.items():
        assert taken[name] == value
    json.dumps(taken)  # no NumPy type is left
    assert {type(key) for key in taken["logit_bias"]} == {int}


def test_stop_tokens_may_come_as_a_list():
    assert sampling_params({"stop_token_ids": [2, 5]}).stop_token_ids == (2, 5)
    with pytest.raises(SlmError):
        sampling_params({"stop_token_ids": "25"})


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": np.float32("nan")},
        {"top_p": np.float64(1.5)},
        {"top_k": np.float32(2)},
        {"n": np.bool_(True)},
        {"seed": np.int64(-1)},
        {"temperature": np.array([0.5, 0.6])},
        {"logit_bias": {np.float32(7): 1.0}},
        {"logit_bias": {np.bool_(True): 1.0}},
        {"prompt_logprobs": np.int64(1)},
    ],
)
def test_a_numpy_value_out_of_range_or_of_another_kind_is_refused(options):
    with pytest.raises(SlmError) as caught:
        SamplingParams(**options)
    assert caught.value.code == "E_SAMPLING"


def test_options_of_numpy_are_the_options_of_python():
    options = {"seed": np.int64(5), "temperature": np.float64(0.7), "max_new_tokens": np.int32(3)}
    assert sampling_params(options) == sampling_params({"seed": 5, "temperature": 0.7, "max_new_tokens": 3})


def test_every_field_is_a_typed_keyword_option():
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert set(SamplingOptions.__annotations__) == fields
