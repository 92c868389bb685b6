"""The simulated card fails where a real card fails."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = Path(__file__).with_name("simulated_cuda_cases.py")


@pytest.fixture(scope="module")
def played(play_on_a_card) -> dict:
    """What every case found."""
    found = play_on_a_card(CASES)
    assert not [body["error"] for body in found.values() if "error" in body]
    return found


def test_tensors_and_generators_of_two_devices_do_not_meet(played):
    found = played["devices"]
    for name in ("product", "sum", "a foreach", "an embedding of host tokens"):
        assert "same device" in found[name], name
    assert "Expected a 'cuda' device type for generator but found 'cpu'" in found["generator"]
    assert "can't convert cuda:0 device type tensor to numpy" in found["numpy"] and found["address"]
    assert found["a number of the host"] == "" and "pinned" in found["pinning a tensor of the card"]
    assert "invalid device ordinal" in found["a card that is not there"]
    assert found["device"] == ["cuda:0"] * 3 and found["flags"] == [True] * 3


def test_a_t4_has_no_bf16_and_no_kernel_for_grouped_heads(played):
    found = played["devices"]
    assert "only emulates" in found["bf16"]
    assert "math kernel" in found["grouped attention"] and "math kernel" in found["attention of heads of 12"]
    assert found["attention"] == ""


def test_every_wait_of_the_host_is_counted(played):
    free = {"arithmetic", "from pinned memory", "a new tensor of one number"}
    assert played["waits"] == {name: 0 if name in free else 1 for name in played["waits"]}


def test_a_copy_on_its_way_may_not_be_touched(played):
    found = played["copies"]
    assert "overwrote a pinned buffer" in found["overwritten"]
    assert found["read too early"] is True and found["arrived"] == [1.0] * 3


def test_memory_is_counted_by_the_block_and_can_run_out(played):
    found = played["memory"]
    assert (found["both"], found["held"], found["freed"]) == (4096, 4096, 0)
    assert found["uninitialised"] is True and "CUDA out of memory" in found["full"] and found["reported"]


def test_it_computes_what_the_processor_computes(played):
    assert played["numbers"]["worst"] < 1e-5 and played["numbers"]["autocast"] == "torch.float16"
