"""The planner's choices: the fastest setting that fits, the reasons, and what it offers where none does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ptbr_slm.config import SIZES, ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import default_tokens_per_step
from ptbr_slm.train.config_file import from_values, to_toml
from ptbr_slm.train.planning.choice import (
    CLOSE,
    Machine,
    Request,
    alternatives,
    batch_size_reason,
    checkpointing_reason,
    choose,
    does_not_fit,
    options,
    setting,
    settings,
)
from ptbr_slm.train.planning.memory import GIB, T4_BYTES, estimate
from ptbr_slm.train.planning.speed import T4, cpu_speed, data_sheet, gpu_speed


def t4(ranks: int = 1, memory_bytes: int = T4_BYTES) -> Machine:
    return Machine(kind="cuda", memory_bytes=memory_bytes, device=gpu_speed(T4, "fp16"), ranks=ranks)


def request(size: str, **changes: object) -> Request:
    sequences = default_tokens_per_step(SIZES[size].num_parameters, 1024) // 1024
    return replace(
        Request(model=SIZES[size], sequences=sequences, seq_len=1024, precision="fp16"),
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("size", ["85m", "160m", "400m", "800m"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_nothing_that_fits_is_faster_than_the_choice(size: str, ranks: int) -> None:
    asked, machine = request(size), t4(ranks)
    chosen = choose(asked, machine)
    assert chosen is not None and chosen.memory.total <= machine.budget
    rivals = [s for s in settings(asked, machine) if s.memory.total <= machine.budget]
    assert chosen.seconds <= (1 + CLOSE) * min(s.seconds for s in rivals)
    assert asked.sequences % chosen.batch_size == 0  # the tokens of the step are exactly those


def test_the_800m_at_1024_tokens_fits_one_t4_and_two() -> None:
    for machine in (t4(1), t4(2)):
        chosen = choose(request("800m"), machine)
        assert chosen is not None and chosen.checkpoint_every == 1 and chosen.memory.total <= 14.0 * GIB


def test_recomputation_is_taken_only_where_it_must_be() -> None:
    assert choose(request("85m"), t4()).checkpoint_every == 0  # type: ignore[union-attr]
    small = choose(request("400m"), t4(memory_bytes=9 * GIB))
    assert small is not None and small.checkpoint_every > 0
    assert "só cabe recalculando" in checkpointing_reason(request("400m"), t4(memory_bytes=9 * GIB), small)


def test_what_was_asked_for_is_kept() -> None:
    asked = request("85m", batch_size=2, checkpoint_every=1, loss="plain")
    chosen = choose(asked, t4())
    assert chosen is not None
    assert (chosen.batch_size, chosen.checkpoint_every, chosen.loss) == (2, 1, "plain")
    assert len(list(settings(asked, t4()))) == 1 and not asked.open


def test_two_cards_share_a_step_and_are_nearly_twice_as_fast() -> None:
    one, two = choose(request("85m"), t4(1)), choose(request("85m"), t4(2))
    assert one is not None and two is not None
    assert 1.8 < two.tokens_per_second / one.tokens_per_second < 2


def test_fsdp_pays_for_what_it_sends() -> None:
    ddp = choose(request("400m"), t4(2))
    fsdp = choose(request("400m", parallel="fsdp"), t4(2))
    assert ddp is not None and fsdp is not None and fsdp.seconds > ddp.seconds


def test_small_micro_batches_are_slower_and_recomputation_costs_a_forward() -> None:
    asked, machine = request("400m"), t4()
    one, eight = (setting(asked, machine, batch_size, 0, "chunked") for batch_size in (1, 8))
    assert one.seconds > 1.05 * eight.seconds
    full = setting(asked, machine, 8, 1, "chunked")
    assert 1.2 < full.seconds / eight.seconds < 1.4


def test_the_loss_is_part_of_the_choice() -> None:
    assert {option.loss for option in options(request("85m"), t4())} == {"chunked", "plain"}
    tight = choose(request("800m", optimizer="muon"), t4())
    assert tight is not None and tight.memory.total <= t4().budget


def test_where_nothing_fits_up_to_three_ways_are_offered_and_each_fits() -> None:
    asked, machine = request("800m", seq_len=8192, sequences=64, batch_size=8), t4(2)
    assert choose(asked, machine) is None
    ways = alternatives(asked, machine, "800m")
    assert 1 <= len(ways) <= 3
    for typed, way in ways:
        assert way.memory.total <= machine.budget
        flags = dict(re.findall(r"--([a-z-]+) (\S+)", typed))
        length = int(flags.get("seq-len", asked.seq_len))
        size = flags.get("model-size", "800m")
        e = estimate(
            replace(SIZES[size], max_seq_len=8192),
            batch_size=int(flags["batch-size"]),
            seq_len=length,
            checkpoint_every={"none": 0, "full": 1}.get(flags["checkpointing"], 2),
            precision="fp16",
            optimizer=flags.get("optimizer", "adamw"),
            ranks=2,
            parallel=flags.get("parallel", "ddp"),
            loss=way.loss,
        )
        assert e.total == way.memory.total  # what is typed is what was calculated
        assert int(flags["batch-size"]) * int(flags["grad-accum"]) * length == 64 * 8192
    error = does_not_fit(asked, machine, "800m", setting(asked, machine, 8, 1, "chunked"))
    assert error.code == "E_MEMORY" and all(typed in error.hint for typed, _ in ways)


def test_a_card_too_small_for_the_size_is_offered_a_smaller_size() -> None:
    ways = alternatives(request("800m"), t4(memory_bytes=6 * GIB), "800m")
    assert any("--model-size" in typed for typed, _ in ways)


def test_the_reason_compares_with_the_next_larger_micro_batch() -> None:
    asked, machine = request("800m"), t4()
    chosen = choose(asked, machine)
    assert chosen is not None
    assert re.search(r"com \d+ pediria [\d,]+ GiB", batch_size_reason(asked, machine, chosen))
    assert batch_size_reason(replace(asked, batch_size=1), machine, chosen) == ""


def test_the_same_command_plans_the_same_tokens_per_step_on_any_number_of_cards() -> None:
    for size in SIZES:
        one, two = (choose(request(size), t4(ranks)) for ranks in (1, 2))
        assert one is not None and two is not None  # and `sequences` was not theirs to choose
    assert default_tokens_per_step(SIZES["85m"].num_parameters, 1024) == 131_072
    assert default_tokens_per_step(SIZES["800m"].num_parameters, 256) == 262_144
    assert default_tokens_per_step(1000, 4096) == 4096


def test_an_unknown_card_has_no_nameplate_and_a_t4_no_bf16() -> None:
    assert data_sheet("NVIDIA GeForce MX150") is None and data_sheet("Tesla T40") is None
    assert data_sheet("Tesla T4") is T4 and T4.nameplate("fp16") == 65e12 and T4.nameplate("bf16") is None
    for name in ("Tesla P100-PCIE-16GB", "Tesla V100-SXM2-16GB", "NVIDIA A100-SXM4-40GB", "NVIDIA L4",
                 "NVIDIA H100 80GB HBM3", "NVIDIA H200"):  # fmt: skip
        card = data_sheet(name)
        assert card is not None and card.half > card.single and card.nameplate("fp16")
    assert data_sheet("NVIDIA L40S").name == "L40S"  # type: ignore[union-attr]


def base(tmp_path: Path, **values: object) -> dict[str, object]:
    return {"data": tmp_path, "output": tmp_path / "run", **values}


def test_auto_is_a_word_in_toml_set_and_flag_and_comes_back(tmp_path: Path) -> None:
    config = from_values(base(tmp_path, batch_size="auto", tokens_per_step=8192))
    assert config.batch_size == 0 and config.step_tokens == 8192
    assert 'batch_size = "auto"' in to_toml(config)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"batch_size": "muito"},
        {"batch_size": "auto", "grad_accum": 4},
        {"batch_size": 3, "tokens_per_step": 1000},
        {"batch_size": 2, "grad_accum": 3, "tokens_per_step": 1024},
    ],
)
def test_settings_of_a_step_that_contradict_each_other_are_refused(
    tmp_path: Path, values: dict[str, object]
) -> None:
    with pytest.raises(SlmError) as caught:
        from_values(base(tmp_path, **values))
    assert caught.value.code == "E_CONFIG"


def test_tokens_per_step_fixes_the_step_and_grad_accum_follows(tmp_path: Path) -> None:
    config = from_values(base(tmp_path, batch_size=2, seq_len=256, tokens_per_step=8192))
    assert config.step_sequences == 32 and config.step_tokens == 8192


@pytest.fixture
def fake_t4(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch.cuda that answers as one T4 would; `taken` bytes belong to another program."""
    torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    state = SimpleNamespace(taken=0, count=1)
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: state.count)
    monkeypatch.setattr(cuda, "get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(cuda, "memory_reserved", lambda *_: 0)
    properties = SimpleNamespace(total_memory=T4_BYTES)
    monkeypatch.setattr(cuda, "get_device_properties", lambda *_: properties)
    free = lambda *_: (int(T4_BYTES - 0.4 * GIB - state.taken), T4_BYTES)  # noqa: E731
    monkeypatch.setattr(cuda, "mem_get_info", free)
    return state


def plan_of(tmp_path: Path, ranks: int = 1, **values: object):  # type: ignore[no-untyped-def]
    from ptbr_slm.bench.synthetic import invented_tokenizer
    from ptbr_slm.train.planning.plan import make_plan

    values = {"seq_len": 1024, **values}
    return make_plan(from_values(base(tmp_path, **values)), invented_tokenizer(32_000), ranks)


def test_a_plan_on_a_t4_fills_in_what_was_left_open(fake_t4: SimpleNamespace, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, model_size="800m", batch_size="auto", **{"optimizer.name": "adamw"})
    config = plan.config
    assert plan.precision.name == "fp16" and plan.checkpoint_every == 1
    assert config.batch_size * config.grad_accum * 1024 == config.step_tokens == 262_144
    assert plan.memory.total <= 14.0 * GIB and "micro-lote" in plan.reasons[1]
    two = plan_of(tmp_path, ranks=2, model_size="800m", batch_size="auto")
    assert two.config.step_tokens == config.step_tokens and two.machine.ranks == 2


def test_a_plan_never_shortens_the_sequence_or_the_model(fake_t4: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(SlmError) as caught:
        plan_of(tmp_path, model_size="800m", batch_size="auto", seq_len=16384, tokens_per_step=262_144)
    assert caught.value.code == "E_MEMORY" and "--seq-len" in caught.value.hint
    assert caught.value.hint.count("calculado") <= 3


def test_what_was_asked_in_every_part_runs_near_the_limit_and_is_refused_far_from_it(
    fake_t4: SimpleNamespace, tmp_path: Path
) -> None:
    near = {
        "model_size": "800m",
        "checkpointing": "none",
        "loss": "plain",
        "batch_size": 1,
        "optimizer.name": "adamw",
    }
    plan = plan_of(tmp_path, **near, seq_len=256)
    assert plan.memory.total > plan.machine.budget and "se a memória acabar" in " ".join(plan.notes)
    with pytest.raises(SlmError) as caught:
        plan_of(tmp_path, **{**near, "batch_size": 64})
    assert caught.value.code == "E_MEMORY" and "--batch-size" in caught.value.hint


def test_memory_that_another_program_holds_is_not_planned_with(
    fake_t4: SimpleNamespace, tmp_path: Path
) -> None:
    fake_t4.taken = 6 * GIB
    plan = plan_of(tmp_path, model_size="400m", batch_size="auto")
    assert plan.memory.total < 8.6 * GIB and "outro programa" in " ".join(plan.notes)


def test_on_a_cpu_the_machines_memory_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ptbr_slm.train.planning import plan as module

    plan = plan_of(tmp_path, model_size="nano", device="cpu", batch_size=2, seq_len=64)
    assert plan.checkpoint_every == 0 and plan.machine.kind == "cpu"
    monkeypatch.setattr(module, "memory_bytes", lambda: 6 * GIB)
    with pytest.raises(SlmError) as caught:
        plan_of(tmp_path, model_size="800m", device="cpu", batch_size="auto")
    assert caught.value.code == "E_MEMORY" and "esta máquina tem 6,0" in caught.value.message


def test_cpu_settings_rank_by_the_same_rules() -> None:
    machine = Machine(kind="cpu", memory_bytes=24 * GIB, device=cpu_speed(2))
    model: ModelConfig = SIZES["mini"]
    chosen = choose(
        Request(model=model, sequences=64, seq_len=256, precision="fp32"),
        machine,
    )
    assert chosen is not None and chosen.checkpoint_every == 0
