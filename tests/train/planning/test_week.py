"""A plan of hours: what it promises fits into them, and its arithmetic can be followed."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from refusals import refusal

from ptbr_slm.bench.gpu.results import Line
from ptbr_slm.bench.train import Case, Result
from ptbr_slm.config import SIZES
from ptbr_slm.train.config import default_learning_rate, default_tokens_per_step
from ptbr_slm.train.planning.hardware import hardware
from ptbr_slm.train.planning.measured import read_measured
from ptbr_slm.train.planning.parameters import muon_shapes
from ptbr_slm.train.planning.speed import cpu_speed, newton_schulz_flops, update_seconds
from ptbr_slm.train.planning.week import Budget, WeekPlan, plan_size, recommended, session_lengths

SESSION = 41_400  # 11h30m


def week(size: str = "85m", hours: float = 30, gpu: str = "t4x2", session_s: int = SESSION) -> WeekPlan:
    return plan_size(Budget(hours=hours, hardware=hardware(gpu), session_s=session_s), size)


@pytest.mark.parametrize("hours", [0.5, 5, 11.5, 12, 23, 24, 30, 33.1, 100])
def test_sessions_add_up_to_the_hours_and_none_is_longer_than_asked(hours):
    lengths = session_lengths(3600 * hours, SESSION)
    assert sum(lengths) == pytest.approx(3600 * hours)
    assert max(lengths) <= SESSION + 1e-6
    assert min(lengths) >= 0.3 * max(lengths)  # a session that only installs is not worth starting


@pytest.mark.parametrize(
    ("size", "gpu", "hours"), [("85m", "t4x2", 30), ("160m", "t4", 30), ("nano", "cpu", 1)]
)
def test_the_steps_fit_into_the_hours_and_fill_them(size, gpu, hours):
    plan = week(size, hours, gpu)
    free = sum(session.train_s for session in plan.sessions) * (1 - plan.pause_share)
    assert 0.98 * free <= plan.config.max_steps * plan.step.total <= free


def test_each_session_goes_on_where_the_last_one_stopped_and_the_end_is_cooled():
    plan = week()
    for before, after in itertools.pairwise(plan.sessions):
        assert before.last_step == after.first_step
    assert (plan.sessions[0].first_step, plan.sessions[-1].last_step) == (0, plan.config.max_steps)
    assert [session.cools for session in plan.sessions] == [False, False, True]
    assert all(s.max_time_s + s.closing_s + s.tune_s <= s.seconds + 1 for s in plan.sessions)


def test_two_cards_give_more_than_one_and_less_than_twice_as_much():
    one, two = week(gpu="t4"), week(gpu="t4x2")
    assert 1.7 * one.tokens < two.tokens < 2 * one.tokens


def test_what_the_plan_does_not_decide_is_the_default_of_train():
    plan = week()
    parameters = plan.model.num_parameters
    assert plan.config.step_tokens == default_tokens_per_step(parameters, plan.config.seq_len)
    assert plan.config.optimizer.learning_rate == default_learning_rate(parameters, "muon")


def test_the_recommended_size_has_about_20_tokens_a_parameter():
    plans = [week(size) for size in ("85m", "160m", "400m")]
    assert recommended(plans).size == "160m"
    longer = [week(size, hours=300) for size in ("85m", "160m", "400m")]
    assert recommended(longer).size == "400m"


def test_what_cannot_be_is_refused_with_what_to_type():
    assert "t4x2" in refusal(hardware, "rtx9090").hint
    assert refusal(week, "400m", 0.02).where == "--hours"


@pytest.mark.parametrize("rows", [32, 64])
@pytest.mark.parametrize("columns", [64, 192])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_newton_schulz_costs_what_the_optimizer_really_multiplies(rows, columns, precision):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from ptbr_slm.train.optim.muon import JORDAN, _by_gram, _plain

    x, spare = torch.rand(1, rows, columns), torch.empty(1, rows, columns)
    squares = [torch.empty(1, rows, rows) for _ in range(4)]
    with FlopCounterMode(display=False) as counter:
        if precision == "fp32" and columns >= 1.5 * rows:
            _by_gram(x, spare, squares, JORDAN)
        else:
            _plain(x, spare, squares, JORDAN)
    assert counter.get_total_flops() == newton_schulz_flops(rows, columns, precision)


def test_the_update_of_muon_is_shared_out_among_the_cards():
    model, device = SIZES["85m"], cpu_speed(2)
    adamw = update_seconds(model, device, optimizer="adamw", precision="fp32", ranks=1)
    one, two = (update_seconds(model, device, optimizer="muon", precision="fp32", ranks=n) for n in (1, 2))
    assert one - adamw == pytest.approx(2 * (two - adamw))
    assert sum(muon_shapes(model).values()) == 7 * model.num_layers


def bench_file(folder: Path, size: str, ratio: float) -> Path:
    """bench-train.json as `bench train` writes it, with one result."""
    case = Case(size=size, label="plano", device="cuda", seq_len=1024, seconds=1)
    result = Result(
        case=case, status="ok", tokens_per_second=1000 * ratio, predicted_tokens_per_second=1000.0
    )
    file = folder / "bench-train.json"
    file.write_text(json.dumps({"results": [result.to_json()]}), encoding="utf-8")
    return file


@pytest.mark.parametrize("size", ["85m", "400m"])  # of a size that was not measured: the others' ratio
def test_a_measured_speed_scales_the_plan(tmp_path, size):
    measured = read_measured(bench_file(tmp_path, "85m", 0.5))
    budget = Budget(hours=30, hardware=hardware("t4x2"), session_s=SESSION, measured=measured)
    half, computed = plan_size(budget, size), week(size)
    assert half.tokens_per_second == pytest.approx(computed.tokens_per_second / 2)
    assert half.tokens == pytest.approx(computed.tokens / 2, rel=0.02)


def test_a_session_of_the_run_itself_tells_its_speed_and_only_that_of_its_size(tmp_path):
    records = [{"event": "step", "tokens_per_second": speed} for speed in (1, 1, 3000, 5000, 4000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (tmp_path / "config.resolved.toml").write_text('model_size = "nano"\n', encoding="utf-8")
    measured = read_measured(tmp_path)
    budget = Budget(hours=1, hardware=hardware("cpu"), session_s=SESSION, measured=measured)
    assert plan_size(budget, "nano").tokens_per_second == pytest.approx(4000)
    assert "nano" in refusal(plan_size, budget, "mini").message


def test_the_check_of_the_cards_is_read_with_two_cards_before_one(tmp_path):
    def line(name: str, speed: float) -> Line:
        return Line(name=name, figures={"tokens_per_second": speed, "predicted_tokens_per_second": 100.0})

    sections = [
        {"name": "speed", "lines": [asdict(line("85m", 80.0)), asdict(line("400m", 70.0))]},
        {"name": "ranks", "lines": [asdict(line("85m, duas placas", 90.0))]},
    ]
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"sections": sections}), encoding="utf-8")
    assert read_measured(file).ratios == {"85m": 0.9, "400m": 0.7}


def test_what_is_no_measurement_is_refused(tmp_path):
    file = tmp_path / "outro.json"
    for text in ("{}", "[]", "não é JSON", '{"results": []}'):
        file.write_text(text, encoding="utf-8")
        assert "--measured" in refusal(read_measured, file).hint
