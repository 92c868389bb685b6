"""A plan of hours as a person reads it, and as JSON. What was measured is called so; all else is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ptbr_slm.cli.output import fitting_table, table
from ptbr_slm.cli.terminal import paragraph
from ptbr_slm.cli.week_commands import commands, notebook
from ptbr_slm.cli.week_words import clock_text, expected_text, many
from ptbr_slm.text import human_bytes, number
from ptbr_slm.train.config import TOKENS_PER_PARAMETER
from ptbr_slm.train.config.defaults import MOST_PASSES
from ptbr_slm.train.planning.advice import FEW, MUCH
from ptbr_slm.train.planning.choice import policy_name
from ptbr_slm.train.planning.scaling import expected
from ptbr_slm.train.planning.week import Session, WeekPlan

AVERAGED = (
    " As sessões antes da última deixam em final/ a média dos últimos pesos, um modelo que já se pode usar; "
    "a última, se a máquina for mais lenta que a conta, resfria mesmo assim até o fim dela."
)


def comparison_text(plans: Sequence[WeekPlan], chosen: WeekPlan) -> str:
    """The sizes side by side, and which is recommended."""
    rows = [
        [
            plan.size,
            number(plan.tokens_per_second),
            many(plan.tokens),
            number(plan.tokens_per_parameter, 1),
            f"{number(said.bits, 2)} ({number(said.low, 2)} a {number(said.high, 2)})",
        ]
        for plan in plans
        for said in [expected(plan.model.num_parameters, plan.tokens)]
    ]
    header = ("tamanho", "tokens/s", "tokens", "por parâmetro", "bits por byte")
    budget = chosen.budget
    title = f"Que tamanho cabe em {number(budget.hours, 1)} h de {budget.hardware.name} (calculado):"
    why = paragraph(
        f"Recomendado: {chosen.size}, o mais perto de {TOKENS_PER_PARAMETER} tokens por parâmetro. Muito "
        "abaixo disso, um modelo menor aprende mais nas mesmas horas; muito acima, o modelo é pequeno e "
        f"rápido de usar, mas um maior aproveitaria melhor o treino.{_as_good(plans, chosen)}"
    )
    return f"{title}\n\n{table(rows, header=header)}\n\n{why}"


def _as_good(plans: Sequence[WeekPlan], chosen: WeekPlan) -> str:
    """A smaller size whose expected loss cannot be told from the chosen one's, in a sentence; or nothing."""
    said = expected(chosen.model.num_parameters, chosen.tokens)
    for plan in plans:
        other = expected(plan.model.num_parameters, plan.tokens)
        ratio = chosen.model.num_parameters / plan.model.num_parameters
        if ratio > 1 and other.low <= said.high and said.low <= other.high:
            return (
                f" A perda esperada do {plan.size} fica dentro do erro da do {chosen.size}, e ele escreve "
                f"{number(ratio, 1)} vezes mais rápido."
            )
    return ""


def plan_text(plan: WeekPlan) -> str:
    """The whole plan of a size."""
    budget = plan.budget
    count = len(plan.sessions)
    sessions = "uma sessão" if count == 1 else f"{count} sessões"
    title = (
        f"Plano: {plan.size} ({many(plan.model.num_parameters)} de parâmetros) em "
        f"{number(budget.hours, 1)} h de {budget.hardware.name}, {sessions}"
    )
    parts = (
        title,
        _warned(plan),
        _step(plan),
        _sessions(plan),
        _arithmetic(plan),
        expected_text(plan),
        _recipe(plan),
        _room(plan),
        _commands(plan),
        _notebook(plan),
    )
    return "\n\n".join(filter(None, parts))


def warnings(plan: WeekPlan) -> list[str]:
    """What the plan would not advise, with what to type instead."""
    found = []
    if plan.tokens_per_parameter < FEW:
        found.append(
            f"{number(plan.tokens_per_parameter, 1)} tokens por parâmetro são muito menos que "
            f"{TOKENS_PER_PARAMETER}: nestas horas um modelo menor aprende mais. Sem --model-size, o plano "
            "compara e recomenda."
        )
    step = plan.step
    share = (step.exchange + step.update) / (step.compute + step.exchange + step.update)
    if share > MUCH:
        found.append(
            f"{number(100 * share)} % de cada passo vão em trocas entre as placas e na atualização dos pesos "
            "(calculado): um passo maior gasta menos. Sem --tokens-per-step, o plano usa o do tamanho."
        )
    if plan.epochs is not None and plan.epochs > MOST_PASSES:
        found.append(
            f"os mesmos textos seriam lidos {number(plan.epochs, 1)} vezes; a partir de {MOST_PASSES} rendem "
            "cada vez menos (Muennighoff et al., 2023). Junte mais textos, ou dê menos horas."
        )
    return found


def _warned(plan: WeekPlan) -> str:
    return "\n".join(paragraph(f"Atenção: {warning}") for warning in warnings(plan))


def _step(plan: WeekPlan) -> str:
    """What a step is and takes."""
    config, setting, step, ranks = plan.config, plan.setting, plan.step, plan.budget.hardware.machine.ranks
    accum = config.step_sequences // config.batch_size
    share = f" em {ranks} placas" if ranks > 1 else ""
    rows = [
        (
            "  tokens por passo",
            f"{number(config.step_tokens)} = {config.batch_size} x {accum} micro-lotes{share} x "
            f"{number(config.seq_len)} tokens",
        ),
        ("  recalcular ativações", f"{policy_name(setting.checkpoint_every)}, perda {setting.loss}"),
        ("  memória de cada dispositivo", human_bytes(setting.memory.total)),
        ("  contas", f"{_seconds(step.compute)}"),
        *([("  trocas entre as placas", _seconds(step.exchange))] if ranks > 1 else []),
        (f"  atualização ({config.optimizer.name})", _seconds(step.update)),
        ("  velocidade", f"{number(plan.tokens_per_second)} tokens/s"),
    ]
    width = max(len(name) for name, _ in rows)
    title = "O passo (tudo calculado, nada medido)"
    if (measured := plan.budget.measured) is not None and step.measured_over_computed is not None:
        ratio = number(step.measured_over_computed, 2)
        title = f"O passo (velocidade medida em {measured.source}: {ratio} vezes a calculada)"
    return f"{title}\n" + "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _sessions(plan: WeekPlan) -> str:
    rows = [_session_row(plan, session) for session in plan.sessions]
    header = ("sessão", "dura", "treino", "passos", "tokens ao todo", "taxa")
    return "As sessões\n\n" + fitting_table(rows, header=header, spare=("tokens ao todo",))


def _session_row(plan: WeekPlan, session: Session) -> list[str]:
    return [
        str(session.number),
        clock_text(session.seconds),
        clock_text(session.train_s),
        f"{number(session.first_step)} a {number(session.last_step)}",
        many(session.last_step * plan.config.step_tokens),
        "cai a zero" if session.cools else "estável",
    ]


def _arithmetic(plan: WeekPlan) -> str:
    """How the steps come out."""
    config = plan.config
    training = sum(session.train_s for session in plan.sessions)
    first, last = plan.sessions[0], plan.sessions[-1]
    read = "" if plan.epochs is None else f" Os dados seriam lidos {number(plan.epochs, 2)} vezes."
    return "\n".join([
        paragraph(
            f"A conta: de {number(plan.budget.hours, 1)} h saem, por sessão, {clock_text(first.setup_s)} "
            f"para instalar e copiar e {clock_text(first.closing_s)} para exportar e conferir, e na última "
            f"mais {clock_text(last.tune_s)} para ensinar a conversar (supostos); ficam "
            f"{number(training / 3600, 2)} h de treino, {number(100 * plan.pause_share, 1)} % delas em "
            "checkpoints e avaliações."
        ),
        paragraph(
            f"{number(training)} s x {number(1 - plan.pause_share, 3)} / {_seconds(plan.step.total)} por "
            f"passo, arredondado para baixo = {number(config.max_steps)} passos x "
            f"{number(config.step_tokens)} = {many(plan.tokens)} de tokens, "
            f"{number(plan.tokens_per_parameter, 1)} por parâmetro.{read}"
        ),
    ])  # fmt: skip


def _recipe(plan: WeekPlan) -> str:
    config = plan.config
    return paragraph(
        f"A receita: {config.optimizer.name}, taxa {config.optimizer.learning_rate:.1e}, aquecimento de "
        f"{number(config.schedule.warmup_steps or 0)} passos, estável até o passo "
        f"{number(plan.cooldown_step)} e dali a zero ({number(100 * config.schedule.cooldown_fraction)} % do "
        f"treino). Checkpoint a cada {number(config.checkpoint.minutes)} minutos, avaliação a cada "
        f"{number(config.evaluation.minutes)}."
        + ("" if len(plan.sessions) == 1 else AVERAGED)
        + ("" if config.cooldown_data is None else f" O resfriamento lê {config.cooldown_data}.")
    )


def _room(plan: WeekPlan) -> str:
    """Disk, and text."""
    size = plan.checkpoint_bytes
    final = 4 * plan.model.num_parameters
    tokens = plan.budget.train_tokens or plan.tokens
    width = 2 if plan.model.vocab_size <= 1 << 16 else 4
    lines = [
        f"Disco: {_gb(size)} cada checkpoint (o treino guarda quantos couberem; dois enquanto grava), "
        f"{_gb(final)} o modelo final, {_gb(width * tokens)} os dados de {many(tokens)} de tokens."
    ]
    if plan.budget.train_tokens is None:
        lines.append(
            "Textos: prepare os dados antes, sem GPU (não gasta a cota), e junte-os ao caderno como Dataset. "
            f"Ler os mesmos até {MOST_PASSES} vezes rende quase como textos novos (Muennighoff et al., 2023)."
        )
    return paragraph(" ".join(lines))


def _commands(plan: WeekPlan) -> str:
    return "Os comandos\n\n" + "\n".join(f"  {line}".rstrip() for line in commands(plan))


def _notebook(plan: WeekPlan) -> str:
    lines = notebook(plan)
    if not lines:
        return ""
    return "No caderno do Kaggle, na primeira célula de código\n\n" + "\n".join(f"  {line}" for line in lines)


def plan_data(plan: WeekPlan, compared: Sequence[WeekPlan]) -> dict[str, Any]:
    """The same as JSON."""
    return {**_numbers(plan), "compared": [_numbers(other) for other in compared]}


def _numbers(plan: WeekPlan) -> dict[str, Any]:
    config, budget = plan.config, plan.budget
    return {
        "model_size": plan.size,
        "parameters": plan.model.num_parameters,
        "hours": budget.hours,
        "gpu": budget.hardware.name,
        "ranks": budget.hardware.machine.ranks,
        "batch_size": config.batch_size,
        "grad_accum": config.step_sequences // config.batch_size,
        "seq_len": config.seq_len,
        "tokens_per_step": config.step_tokens,
        "max_steps": config.max_steps,
        "tokens": plan.tokens,
        "tokens_per_parameter": round(plan.tokens_per_parameter, 2),
        "epochs": plan.epochs,
        "expected_bits_per_byte": asdict(expected(plan.model.num_parameters, plan.tokens)),
        "optimizer": config.optimizer.name,
        "learning_rate": config.optimizer.learning_rate,
        "warmup_steps": config.schedule.warmup_steps,
        "cooldown_step": plan.cooldown_step,
        "step_seconds": asdict(plan.step),
        "tokens_per_second": round(plan.tokens_per_second, 1),
        "speed_basis": "computed" if plan.budget.measured is None else "measured",
        "pause_share": plan.pause_share,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "memory_bytes": plan.setting.memory.total,
        "warnings": warnings(plan),
        "sessions": [{**asdict(session), "max_time_s": session.max_time_s} for session in plan.sessions],
    }


def _seconds(value: float) -> str:
    return f"{number(value, 2 if value >= 0.1 else 3)} s"


def _gb(count: float) -> str:
    return f"{number(count / 1e9, 2)} GB"
