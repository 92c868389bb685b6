"""The week in small: a plan on this CPU, carried out whole, and its prediction beside what came out.

    python benchmarks/rehearsal.py --folder DIR --law DIR2 --hours 2 [--write]

The texts are those of scaling_runs.py (--law: its folder); one document in five is kept for the cooldown, so
that its data are another part of the same kind. Three minutes of training measure the speed; `ptbr-slm plan`
plans three sessions with it, and its own commands are run: two sessions that --max-time stops, a third to the
last step, evaluation, export, verification, tuning. The machine is shared, so the steps are planned and time
may vary: the third session has no limit. Interrupted, the same command goes on with the session that is due.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import facts
from results import DOCUMENT, command, progress, table, write_section

SEQ_LEN, BATCH_SIZE = 256, 4
"""As in the runs behind the law."""
COOLDOWN_EACH = 5
TRIAL_S, EVALUATIONS = 180, 40
"""Seconds that measure the speed; points of the curve."""
CURVE = DOCUMENT.parent / "img" / "ensaio.svg"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """A command, and what came of it."""

    words: list[str]
    seconds: float
    code: int
    answer: dict[str, Any]
    """The last line of its `--json`."""


def main() -> None:
    arguments = _arguments()
    folder = arguments.folder
    about = facts(("torch", "onnxruntime"), 1)
    make_data(arguments.law, folder)
    plan = make_plan(folder, arguments)
    sessions = [train(folder, plan, index) for index in range(len(plan["sessions"]))]
    final = folder / "runs" / arguments.size / "final"
    obtained = measured(final, arguments.law)
    rest = [ptbr_slm(folder, *words) for words in finishing(folder)]
    curve = folder / "runs" / arguments.size / "metrics.jsonl"
    text = report(about, plan, sessions, rest, obtained, raw_losses(curve))
    sys.stdout.write(text + "\n")
    if arguments.write:
        shutil.copyfile(folder / "runs" / arguments.size / "report" / "loss.svg", CURVE)
        write_section("rehearsal", text)


def make_data(law: Path, folder: Path) -> None:
    """`dados` and `resfriamento`, with the law's tokenizer; made once."""
    from ptbr_slm.data.pipeline import prepare
    from ptbr_slm.data.prepared import PreparedData

    if (folder / "resfriamento" / "index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = (law / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    tokenizer = PreparedData.open(law / "train").load_tokenizer()
    for name, cooling in (("dados", False), ("resfriamento", True)):
        file = folder / f"{name}.jsonl"
        kept = [line for index, line in enumerate(lines) if (index % COOLDOWN_EACH == 0) is cooling]
        file.write_text("".join(kept), encoding="utf-8")
        prepare([file], folder / name, tokenizer, valid_fraction=0.01)


def make_plan(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The plan for so many hours, as JSON; its files are in `plano`. Made once."""
    kept = folder / "plano" / "plano.json"
    if not kept.exists():
        accumulated = asked.tokens_per_step // (BATCH_SIZE * SEQ_LEN)
        ptbr_slm(folder, "train", *data_words(), "--output", "trial", "--model-size", asked.size,
                 "--seq-len", str(SEQ_LEN), "--batch-size", str(BATCH_SIZE), "--grad-accum", str(accumulated),
                 "--max-steps", "100000", "--max-time", f"{TRIAL_S}s", "--set", "device=cpu",
                 accept=(75,))  # fmt: skip
        ptbr_slm(folder, "plan", "--hours", f"{asked.hours:.4f}", "--gpu", "cpu", "--model-size", asked.size,
                 *data_words(), "--sessions", f"{int(1200 * asked.hours) + 1}s", "--tokens-per-step",
                 str(asked.tokens_per_step), "--measured", "trial", "-o", "plano")  # fmt: skip
    plan: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return plan


def data_words() -> list[str]:
    """The data of plan and training."""
    return ["--data", "dados", "--cooldown-data", "resfriamento"]


def train(folder: Path, plan: dict[str, Any], index: int) -> Ran:
    """The session's command, as the plan writes it; done sessions are remembered."""
    kept = folder / f"session-{index + 1}.json"
    if kept.exists():
        return Ran(**json.loads(kept.read_text(encoding="utf-8")))
    lines = (folder / "plano" / "comandos.sh").read_text(encoding="utf-8").splitlines()
    line = [line for line in lines if line.startswith("ptbr-slm train")][index]
    words = shlex.split(line.replace("treino.toml", "plano/treino.toml"))[1:]
    if index == len(plan["sessions"]) - 1:  # to the last step, however long that takes
        at = words.index("--max-time")
        words = words[:at]
    every = 60 * plan["hours"] / EVALUATIONS
    ran = ptbr_slm(folder, *words, "--set", "device=cpu", "--set", f"evaluation.minutes={every:.2f}",
                   accept=(75,))  # fmt: skip
    body = {"words": ran.words, "seconds": ran.seconds, "code": ran.code, "answer": ran.answer}
    kept.write_text(json.dumps(body), encoding="utf-8")
    return ran


def finishing(folder: Path) -> list[list[str]]:
    """The plan's last commands; the tuning on the 46 conversations of the examples."""
    lines = (folder / "plano" / "comandos.sh").read_text(encoding="utf-8").splitlines()
    after = lines[max(index for index, line in enumerate(lines) if line.startswith("ptbr-slm train")) + 1 :]
    conversations = Path(__file__).resolve().parent.parent / "examples" / "conversas.jsonl"
    commands = [line for line in after if line.startswith("ptbr-slm")]
    return [
        shlex.split(line.replace("conversas.jsonl", shlex.quote(str(conversations))))[1:] for line in commands
    ]


def ptbr_slm(folder: Path, *words: str, accept: Sequence[int] = ()) -> Ran:
    """A command in `folder`, with --json. Raises SystemExit where it fails."""
    progress("ptbr-slm " + " ".join(words))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ptbr_slm", *words, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, *accept):
        raise SystemExit(f"ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Ran(words=list(words), seconds=time.monotonic() - began, code=done.returncode, answer=answer)


def measured(model: Path, law: Path) -> float:
    """Bits per byte on the text that the law's runs are measured on."""
    from scaling_runs import bits_of

    return bits_of(model, law)


def raw_losses(metrics: Path) -> dict[int, float]:
    """Step -> bits per byte of the weights of that step, as the run evaluated them."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return {record["step"]: record["bits_per_byte"] for record in records if record["event"] == "eval"}


def report(
    about: str,
    plan: dict[str, Any],
    sessions: Sequence[Ran],
    rest: Sequence[Ran],
    obtained: float,
    raw: dict[int, float],
) -> str:
    """The section of docs/benchmarks.md."""
    rows = []
    for planned, ran in zip(plan["sessions"], sessions, strict=True):
        rows.append([
            str(planned["number"]), f"{planned['train_s']:.0f}", f"{ran.seconds:.0f}",
            f"{planned['last_step']:,}", f"{ran.answer['step']:,}",
            f"{planned['last_step'] * plan['tokens_per_step'] / 1e6:.2f}M",
            f"{ran.answer['step'] * plan['tokens_per_step'] / 1e6:.2f}M", str(ran.code),
            f"{raw[max(step for step in raw if step <= ran.answer['step'])]:.3f}",
            f"{ran.answer['bits_per_byte']:.3f}",
        ])  # fmt: skip
    header = ["session", "seconds, planned", "taken", "step at its end, planned", "reached",
              "tokens, planned", "read", "exit code", "its last weights", "what it leaves"]  # fmt: skip
    said = plan["expected_bits_per_byte"]
    after = ", ".join(f"`{ran.words[0]}` {ran.seconds:.0f} s" for ran in rest)
    return "\n\n".join([
        f"`{command()}`", about,
        f"{plan['model_size']}, {plan['parameters']:,} parameters, {plan['tokens_per_step']:,} tokens a "
        f"step, {plan['max_steps']:,} steps, cooldown from step {plan['cooldown_step']:,} on other data.",
        table(header, rows),
        "The last two columns: bits per byte on the run's own held-out text, of the weights at the session's "
        "last evaluation, and of the model in `final/`: the mean of its last fifth, or the cooled one.",
        f"Bits per byte on the law's held-out text: predicted {said['bits']:.3f} ({said['low']:.3f} to "
        f"{said['high']:.3f}), obtained **{obtained:.3f}** ({100 * (obtained / said['bits'] - 1):+.1f} %). "
        f"Afterwards, as the plan says: {after}.",
        "![The loss of the three sessions, and bits per byte](img/ensaio.svg)",
    ])  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is made")
    parser.add_argument("--law", type=Path, required=True, help="folder of scaling_runs.py")
    parser.add_argument("--hours", type=float, default=2.0, help="of the plan")
    parser.add_argument("--size", default="mini", help="a model size of ptbr-slm")
    parser.add_argument("--tokens-per-step", type=int, default=8192)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    arguments.folder, arguments.law = arguments.folder.resolve(), arguments.law.resolve()
    return arguments


if __name__ == "__main__":
    main()
