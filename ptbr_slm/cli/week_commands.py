"""What to type to carry out a plan of hours."""

from __future__ import annotations

import json
from pathlib import Path

from ptbr_slm.cli.week_words import clock_text
from ptbr_slm.text import quoted
from ptbr_slm.train.planning.advice import LARGE
from ptbr_slm.train.planning.week import WeekPlan


def commands(plan: WeekPlan) -> list[str]:
    """What to type, in order; lines that begin with # are for the reader."""
    return [*_preparing(plan), *_training(plan), *_finishing(plan)]


def notebook(plan: WeekPlan) -> list[str]:
    """The same choices as variables of the Kaggle notebook; empty for another machine."""
    if not plan.budget.hardware.on_kaggle:
        return []
    config, count = plan.config, len(plan.sessions)
    values = {
        "MODEL_SIZE": plan.size,
        "VOCAB_SIZE": plan.model.vocab_size,
        "SEQ_LEN": config.seq_len,
        "BATCH_SIZE": config.batch_size,
        "GRAD_ACCUM": config.step_sequences // config.batch_size,
        "MAX_STEPS": config.max_steps,
        "MAX_TIME": clock_text(plan.sessions[0].max_time_s),
        "OPTIONS": "" if count == 1 else "--cooldown average",
    }
    last = clock_text(plan.sessions[-1].max_time_s)
    told = "" if count == 1 else f'  # na última sessão: OPTIONS = "--cooldown session" e MAX_TIME = "{last}"'
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return [*lines[:-1], lines[-1] + told]


def _preparing(plan: WeekPlan) -> list[str]:
    """Nothing where the data are there."""
    if plan.budget.train_tokens is not None:
        return []
    billions, vocabulary = f"{-(-plan.tokens // 10**8) / 10:g}B", plan.model.vocab_size
    data = plan.config.data
    return [
        "# antes, sem GPU" + ("" if data == Path("dados") else f"; depois ponha dados em {data}"),
        f"ptbr-slm data fetch fineweb2-pt -o textos --tokens {billions}",
        f"ptbr-slm tokenizer train textos -o tokenizer.json --vocab-size {vocabulary}",
        "ptbr-slm data prepare textos -o dados --tokenizer tokenizer.json",
    ]


def _training(plan: WeekPlan) -> list[str]:
    start = " --session-start kaggle" if plan.budget.hardware.on_kaggle else ""
    lines = []
    for session in plan.sessions:
        last = session is plan.sessions[-1]
        told = "" if last else ": termina com o código 75, que é «rode de novo para continuar»"
        cool = f" --cooldown {'session' if last else 'average'}"
        time = clock_text(session.max_time_s)
        lines.append(f"# sessão {session.number}{told}")
        lines.append(f"ptbr-slm train --config treino.toml --max-time {time}{start}{cool}")
    return lines


def _finishing(plan: WeekPlan) -> list[str]:
    run, data = plan.config.output, plan.config.data
    final, export, tuned, judged = (
        run / "final",
        *(run.with_name(f"{run.name}-{made}") for made in ("onnx", "conversa", "avaliacao")),
    )
    # 64 numbers of a narrow model do not survive four bits: verify refuses them (docs/decisions/0118).
    precision = "int4" if plan.model.num_parameters >= LARGE else "int8"
    return [
        "# no fim da última: avaliar, exportar, conferir, ensinar a conversar",
        f"ptbr-slm eval {quoted(final)} --data {quoted(data)} -o {quoted(judged)}",
        f"ptbr-slm export {quoted(final)} -o {quoted(export)} --precision {precision}",
        f"ptbr-slm verify {quoted(export)} --against {quoted(final)}",
        f"ptbr-slm tune {quoted(final)} --data conversas.jsonl -o {quoted(tuned)} "
        f"--replay 0.1 --replay-data {quoted(data)}",
    ]
