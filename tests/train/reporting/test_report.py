"""report/: true, readable, and written whatever is missing."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from ptbr_slm.cli.output import Mode, Output
from ptbr_slm.config import model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.events import RolledBack, Warned
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.reporting.curves import MOST_POINTS, Panel, axis, draw, sheet, thinned
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.report import write_report
from ptbr_slm.train.reporting.sessions import SessionLog, read_sessions
from ptbr_slm.train.run import train
from ptbr_slm.train.state import first_data

Write = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the report of a run with these lines of metrics.jsonl and sessions.jsonl; returns its folder."""

    def run(metrics: list[dict[str, Any]], sessions: list[dict[str, Any]]) -> Path:
        folder = tmp_path / "meu treino"
        folder.mkdir(exist_ok=True)
        for name, records in (("metrics", metrics), ("sessions", sessions)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        config = TrainConfig(data=Path("dados"), output=folder, max_steps=100).with_defaults(10**6)
        plan: Any = SimpleNamespace(
            model=model_config("85m"),
            config=config,
            precision=choose_precision("cuda", (7, 5)),
            device="cuda:0",
        )
        last = max([r["step"] for r in metrics if isinstance(r.get("step"), int)], default=0)
        state: Any = SimpleNamespace(
            step=last, tokens=2048 * last, elapsed_s=12.0, skipped_steps=0, data=first_data("0" * 64)
        )
        return write_report(folder, plan, state)

    return run


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": 10.0 / number, "learning_rate": 1e-3, **fields}


FULL = [
    step(n, grad_norm=0.5, tokens_per_second=46_000.0, mfu=0.19, mfu_gemm=0.55, scale=65536.0,
         memory_bytes=8 << 30, energy_kwh=n / 1000)
    for n in range(1, 60)
]  # fmt: skip


def test_everything_that_was_recorded_is_told(write):
    command = "ptbr-slm train --data 'meus dados' | sort"
    sessions = [
        {"event": "start", "time": "2026-11-20T08:00:00-03:00", "step": 0, "command": "antes"},
        {"event": "out_of_memory", "step": 7, "message": "A memória acabou no passo 7"},
        {"event": "end", "time": "2026-11-20T19:30:00-03:00", "step": 30, "reason": "max_time"},
        {"event": "start", "time": "2026-11-21T08:00:00-03:00", "step": 30, "command": command,
         "versions": {"ptbr-slm": "0.1.0", "torch": "2.11.0"}, "commit": "abc123"},
    ]  # fmt: skip
    rollback = {"event": "rollback", "step": 20, "from_step": 25, "message": "A perda saltou no passo 25"}
    evaluation = {"event": "eval", "step": 59, "bits_per_byte": 1.25}
    cooldown = {"event": "cooldown", "step": 50, "until_step": 59, "bits_per_byte": 1.1875}
    folder = write([*FULL, rollback, evaluation, cooldown], sessions)
    page = (folder / "report.html").read_text("utf-8")
    text = (folder / "report.md").read_text("utf-8")
    for shown in (page, text):
        for fact in ("46.000 tokens/s", "8,00 GiB", "19,0 % do pico da placa", "0,059 kWh", "1,2500",
                     "abc123", "torch 2.11.0", "20/11/2026 08:00", "11h30min", "tempo da sessão", "em curso",
                     "1, no passo 25", "em pedaços menores", "1,1875 bits por byte"):  # fmt: skip
            assert fact in shown, fact
    assert command in text and "meus dados&#x27; | sort" in page
    for title in ("perda (nats por token)", "bits por byte", "escala do fp16", "tokens por segundo",
                  "memória máxima (GiB)", "taxa de aprendizado", "energia das GPUs"):  # fmt: skip
        assert title in page and title in (folder / "loss.svg").read_text("utf-8")
    assert "A perda saltou no passo 25" in page  # the mark on the curve
    found = json.loads((folder / "report.json").read_text("utf-8"))
    assert found["memory_bytes"] == 8 << 30 and found["energy_kwh"] == pytest.approx(0.059)
    assert found["loss"]["first"] == 10.0 and found["sessions"][0]["reason"] == "max_time"
    assert found["config"]["max_steps"] == 100 and found["evaluations"] == [[59, 1.25]]


@pytest.mark.parametrize(
    ("metrics", "sessions"),
    [
        ([], []),
        ([step(1)], []),
        ([{"event": "step", "step": 1}], [{"event": "end"}]),
        ([{"event": "step", "step": n, "loss": float("nan")} for n in (1, 2)], []),
        ([step(1, loss=float("inf")), step(2, grad_norm=None, mfu="?", scale=0.0)], [{"event": "start"}]),
        ([step(1, loss=None)], [{"event": "start", "time": "ontem", "step": 0}]),
        ([step(n, loss=2.0) for n in range(1, 5)], []),
    ],
    ids=["nothing", "one step", "bare", "nan", "inf", "null", "constant"],
)
def test_whatever_is_missing_or_not_a_number_the_report_is_whole(metrics, sessions, write):
    folder = write(metrics, sessions)
    assert json.loads((folder / "report.json").read_text())["schema"] == 1
    for file in ("report.html", "report.md", "loss.svg"):
        assert not re.search(r"\b(nan|inf|None)\b", (folder / file).read_text("utf-8")), file
    ElementTree.fromstring((folder / "loss.svg").read_text("utf-8"))


def test_a_hundred_thousand_steps_make_a_small_picture_that_keeps_the_highest_value(write):
    steps = [step(n, loss=3.0 + (n == 70_000) * 0.5 + n % 7 / 100) for n in range(1, 100_001)]
    folder = write(steps, [])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
    means, band = thinned([(float(r["step"]), r["loss"]) for r in steps])
    assert len(means) == MOST_POINTS and max(y for _, y in band) == pytest.approx(3.5)


def test_what_the_model_wrote_cannot_leave_its_place(write):
    bad = {
        "event": "sample",
        "step": 1,
        "prompt": "<b>oi",
        "text": "</blockquote><script>alert(1)</script>\n# x",
    }
    folder = write([step(1), bad], [])
    page = (folder / "report.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page.replace("w3.org", "")
    assert "\n# x" not in (folder / "report.md").read_text("utf-8")


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [1e-9, 3e-9], [-2.0, 7.0], [46_000.0, 46_001.0]])
def test_an_axis_has_a_few_round_ticks_around_the_values(values):
    low, high, ticks = axis(values)
    assert low <= min(values) and max(values) <= high and 2 <= len(ticks) <= 7


def test_small_values_are_shown_with_their_power_of_ten():
    svg = sheet(draw([Panel(title="taxa", points=[(1.0, 0.0015), (2.0, 0.0005)])]))
    assert "taxa (×10⁻³)" in svg and ">0,50<" in svg


def test_the_sessions_of_a_run_are_kept_whatever_ended_them(settings, tmp_path):
    config = settings({"max_time": "1s"})  # long gone: it stops after the first step
    train(config)
    train(replace(config, max_time=""))
    before = (config.output / "sessions.jsonl").read_bytes()
    train(replace(config, max_time=""))  # over already: no session is recorded
    assert (config.output / "sessions.jsonl").read_bytes() == before
    found = json.loads((config.output / "report" / "report.json").read_text("utf-8"))
    first, second = found["sessions"]
    assert first["reason"] == "max_time" and second["reason"] == "complete"
    assert second["step"] == first["end_step"] < second["end_step"] == 8
    assert second["command"] and second["versions"]["ptbr-slm"] and second["device"] == "cpu"
    assert found["memory_bytes"] > 1 << 20


@pytest.mark.browser
def test_the_page_fits_a_phone_and_a_desk_and_asks_nobody_for_anything(write, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="instale com: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("instale com: apt-get install chromium")
    folder = write(FULL, [{"event": "start", "time": "x", "step": 0, "command": "ptbr-slm " + "a" * 300}])
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width, columns in ((390, 1), (1280, 3)):
            page = browser.new_page(viewport={"width": width, "height": 900}, locale="pt-BR")
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((folder / "report.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            tops = page.evaluate(
                "[...document.querySelectorAll('.painel')].map(p => p.getBoundingClientRect().y)"
            )
            assert tops.count(tops[0]) == columns and len(tops) == 8
            assert len(asked) == 1  # itself
            clear = """[...document.querySelectorAll('.painel')].every(p => p.querySelector('.titulo')
              .getBoundingClientRect().right < p.querySelector('.valor').getBoundingClientRect().left)"""
            assert page.evaluate(clear)
        browser.close()


def test_a_record_that_is_not_a_number_never_ends_a_run(tmp_path, capsys):
    event = RolledBack(
        step=3, from_step=5, high_since=4, loss=math.nan, mean_loss=2.0, grad_norm=math.inf,
        learning_rate=0.1, skipped_windows=(7, 9), message="de volta",
    )  # fmt: skip
    with MetricsLog(tmp_path / "metrics.jsonl", 0) as metrics:
        metrics.write(event)
    Output(Mode.JSON).event(event.record())
    for line in ((tmp_path / "metrics.jsonl").read_text(), capsys.readouterr().out):
        assert json.loads(line) == {**event.record(), "grad_norm": None, "loss": None}


FACTS = {"device": "cpu", "ranks": 1, "precision": "fp32", "batch_size": 2}


def test_the_session_log_never_hides_what_ended_the_session(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(SlmError, match="cheio"), SessionLog(run, 0, **FACTS) as log:
        shutil.rmtree(run)  # nothing can be written any more
        log.note(Warned(code="quase", message="quase"))
        raise SlmError("E_DISK_FULL", "o disco está cheio.", hint="Libere espaço.")


def test_a_session_that_failed_or_was_killed_says_so(tmp_path):
    with pytest.raises(SlmError), SessionLog(tmp_path, 0, **FACTS):
        raise SlmError("E_TRAINING_DIVERGED", "a perda explodiu.", hint="")
    SessionLog(tmp_path, 5, **FACTS)  # killed: no end
    with SessionLog(tmp_path, 5, **FACTS) as log:
        log.end(9, "complete")
    assert [(s["step"], s["reason"]) for s in read_sessions(tmp_path)] == [
        (0, "E_TRAINING_DIVERGED"),
        (5, None),
        (5, "complete"),
    ]
