"""How the planner's figures are shown, as text and as JSON: by `info`, and by `train --dry-run`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ptbr_slm.cli.output import fitting_table
from ptbr_slm.cli.terminal import columns, paragraph
from ptbr_slm.config import ModelConfig
from ptbr_slm.text import number
from ptbr_slm.train.checkpoint.retention import BYTES_PER_PARAMETER
from ptbr_slm.train.planning.activations import FP32
from ptbr_slm.train.planning.choice import LOSSES, Machine, Setting, policy_name
from ptbr_slm.train.planning.memory import CUDA_CONTEXT_BYTES, GIB, T4_BYTES, MemoryEstimate, estimate
from ptbr_slm.train.planning.recommend import (
    DECODE_BITS,
    DECODE_SHARE,
    TIGHT,
    Recommendation,
    decode_bytes,
    decode_speed,
    fit,
    recommend,
)
from ptbr_slm.train.planning.speed import T4, flops_per_token

POLICIES = {"none": 0, "full": 1}
"""`--checkpointing` -> `checkpoint_every`: the two ends of what the table shows."""

FITS: dict[str, str] = {"yes": "cabe", "tight": "no limite", "no": "não cabe"}
_FITS_SHORT: dict[str, str] = {"yes": "sim", "tight": "no limite", "no": "não"}


_HEADER = ("lote", "seq", "recalc.", "perda", "cópias", "ativ.", "logits", "outros", "total", "cabe")
_OPTIONS_HEADER = (
    "recalc.", "perda", "lote", "cópias", "ativ.", "logits", "outros", "total", "tokens/s", "cabe",
)  # fmt: skip
_SPARE = ("outros", "cópias", "logits", "ativ.")
"""Columns that narrow terminals do without, the first one first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked the memory for."""

    batch_size: int
    seq_len: int
    precision: str
    optimizer: str = "muon"
    card_bytes: int = T4_BYTES
    """Memory of the card to fit, the CUDA context included."""

    def around(self) -> list[tuple[int, int]]:
        """(batch_size, seq_len): the one asked for and its neighbours, in growing order of tokens."""
        batch, length = self.batch_size, self.seq_len
        found = {(batch, length), (max(1, batch // 2), length), (batch * 2, length), (batch * 4, length)}
        found.add((batch, length * 2))
        return sorted(found, key=lambda pair: (pair[0] * pair[1], pair[1]))


def plan_data(config: ModelConfig, plan: Plan) -> dict[str, Any]:
    """Shape, parameters, FLOPs and memory as JSON; bytes throughout, all of it computed."""
    return {
        "config": config.to_hf(),
        "parameters": {
            "total": config.num_parameters,
            "embedding": config.vocab_size * config.hidden_size,
            "per_layer": config.layer_parameters,
        },
        "flops_per_token": {
            policy: flops_per_token(config, plan.seq_len, checkpoint_every=every)
            for policy, every in POLICIES.items()
        },
        "weights_bytes": FP32 * config.num_parameters,
        "checkpoint_bytes": BYTES_PER_PARAMETER * config.num_parameters,
        "memory_basis": "computed",
        "card_bytes": plan.card_bytes,
        "precision": plan.precision,
        "memory": [_row_data(row, plan) for row in _rows(config, plan)],
        "recommended": [_recommended_data(found) for found in _recommended(config, plan)],
        "cpu_fp32_bytes": _on_cpu(config, plan).total,
        "decode_t4": decode_data(config),
    }


def shape_text(config: ModelConfig) -> str:
    """Shape and parameters, a line each."""
    embedding = config.vocab_size * config.hidden_size
    tied = "compartilhado com a saída" if config.tie_embeddings else "separado da saída"
    rows = [
        ["  camadas", f"{config.num_layers} de largura {number(config.hidden_size)}"],
        ["  atenção", f"{config.num_heads} cabeças de consulta, {config.num_kv_heads} de chave e valor, "
                      f"de {config.head_dim}"],
        ["  feed-forward", f"SwiGLU de {number(config.intermediate_size)}"],
        ["  vocabulário", f"{number(config.vocab_size)} tokens, embedding {tied}"],
        ["  contexto", f"{number(config.max_seq_len)} tokens"],
        ["  parâmetros", f"{number(config.num_parameters)} ({_millions(config.num_parameters)})"],
        ["    embedding", f"{number(embedding)} ({number(100 * embedding / config.num_parameters)} %)"],
        ["    cada camada", number(config.layer_parameters)],
    ]  # fmt: skip
    margin = max(len(label) for label, _ in rows) + 2
    lines: list[str] = []
    for label, value in rows:
        first, *others = textwrap.wrap(value, columns() - margin)
        lines += [label.ljust(margin) + first, *(" " * margin + line for line in others)]
    return "\n".join(lines)


def plan_text(config: ModelConfig, plan: Plan) -> str:
    """FLOPs, checkpoint size and the memory table, with what was only computed named so."""
    none, full = (
        number(flops_per_token(config, plan.seq_len, checkpoint_every=every) / 1e9, 2)
        for every in POLICIES.values()
    )
    checkpoint = BYTES_PER_PARAMETER * config.num_parameters
    name = "numa T4" if plan.card_bytes == T4_BYTES else "na placa"
    rows = _rows(config, plan)
    return "\n".join(
        [
            paragraph(f"Treinar um token custa {none} GFLOP ({full} com --checkpointing full)."),
            paragraph(
                f"Cada checkpoint ocupa {number(checkpoint / 1e9, 2)} GB; só os pesos, "
                f"{number(FP32 * config.num_parameters / 1e9, 2)} GB."
            ),
            "",
            paragraph(
                f"Memória do treino numa GPU, em GiB ({plan.precision}, {plan.optimizer}); tudo calculado, "
                f"não medido. {_always(rows[0][-1])}"
            ),
            "",
            fitting_table([_row_text(row, plan) for row in rows], header=_HEADER, spare=_SPARE),
            "",
            paragraph(
                f"cabe: {name}, com {_gib(plan.card_bytes)} GiB visíveis ao PyTorch, "
                f"{_gib(plan.card_bytes - CUDA_CONTEXT_BYTES)} fora o contexto CUDA; «no limite»: sobra "
                f"menos de {number(100 * TIGHT)} %. recalc.: --checkpointing. cópias: pesos em meia "
                "precisão. outros: gradientes em trânsito e o contexto CUDA. Cada linha é o instante do "
                "pico; onde ele vem depois da perda, os logits já foram liberados."
            ),
            "",
            paragraph(
                f"No processador, em fp32, lote {plan.batch_size} e seq {plan.seq_len}: "
                f"{_gib(_on_cpu(config, plan).total)} GiB, e mais {_gib(FP32 * config.num_parameters)} "
                "ao gravar um checkpoint."
            ),
            "",
            _recommended_text(config, plan),
            "",
            decode_text(config),
        ]
    )


def _always(memory: MemoryEstimate) -> str:
    """The parts that are the same whatever the micro-batch, recomputation and loss."""
    held = memory.weights + memory.gradients + memory.optimizer
    return (
        f"O total tem sempre {_gib(held)} de pesos ({_gib(memory.weights)}), gradientes "
        f"({_gib(memory.gradients)}) e otimizador ({_gib(memory.optimizer)})."
    )


_Row = tuple[int, int, str, str, MemoryEstimate]
"""batch_size, seq_len, checkpointing, loss, and what they take."""


def _rows(config: ModelConfig, plan: Plan) -> list[_Row]:
    return [
        (
            batch,
            length,
            policy,
            loss,
            estimate(
                config,
                batch_size=batch,
                seq_len=length,
                checkpoint_every=every,
                precision=plan.precision,
                optimizer=plan.optimizer,
                loss=loss,
            ),
        )
        for batch, length in plan.around()
        for policy, every in POLICIES.items()
        for loss in LOSSES
    ]


def _on_cpu(config: ModelConfig, plan: Plan) -> MemoryEstimate:
    return estimate(
        config,
        batch_size=plan.batch_size,
        seq_len=plan.seq_len,
        checkpoint_every=0,
        precision="fp32",
        device="cpu",
    )


def _row_data(row: _Row, plan: Plan) -> dict[str, Any]:
    batch, length, policy, loss, e = row
    return {
        "batch_size": batch,
        "seq_len": length,
        "checkpointing": policy,
        "loss": loss,
        **{part: size for part, size in asdict(e).items() if part in _PARTS},
        "total": e.total,
        "fits": fit(e, plan.card_bytes),
    }


_PARTS = (
    "weights", "autocast_cache", "gradients", "optimizer", "activations", "logits", "workspace",
    "communication", "context",
)  # fmt: skip
"""Fields of a `MemoryEstimate` in bytes."""


def _row_text(row: _Row, plan: Plan) -> list[str]:
    batch, length, policy, loss, e = row
    others = e.workspace + e.communication + e.context
    parts = (e.autocast_cache, e.activations, e.logits, others, e.total)
    return [str(batch), str(length), policy, loss, *map(_gib, parts), _FITS_SHORT[fit(e, plan.card_bytes)]]


def _recommended(config: ModelConfig, plan: Plan) -> list[Recommendation]:
    return recommend(config, plan.seq_len, plan.precision, plan.card_bytes)


def _recommended_data(found: Recommendation) -> dict[str, Any]:
    best = found.setting
    body: dict[str, Any] = {
        "cards": found.cards,
        "optimizer": found.optimizer,
        "parallel": found.parallel,
        "fits": best is not None,
    }
    if best is not None:
        body |= {
            "batch_size": best.batch_size,
            "grad_accum": found.sequences // best.batch_size,
            "checkpointing": policy_name(best.checkpoint_every),
            "loss": best.loss,
            "total": best.memory.total,
            "tokens_per_second": round(best.tokens_per_second, 1),
            "basis": "computed",
        }
    return body


def _recommended_text(config: ModelConfig, plan: Plan) -> str:
    """What `--batch-size auto` would choose on one T4 and on two, as a table."""
    found = _recommended(config, plan)
    tokens = found[0].sequences * plan.seq_len
    header = ("placas", "otimizador", "dividir", "lote", "acum.", "recalc.", "perda", "GiB", "tokens/s")
    return "\n".join(
        [
            paragraph(
                f"O que o treino escolheria com --batch-size auto, seq {plan.seq_len}, "
                f"{number(tokens)} tokens/passo (GiB por placa, tokens/s de todas as placas: "
                "calculados, com a velocidade de T4s do Kaggle):"
            ),
            "",
            fitting_table([_recommended_row(one) for one in found], header=header, spare=("acum.", "perda")),
        ]
    )


def _recommended_row(found: Recommendation) -> list[str]:
    best = found.setting
    head = [str(found.cards), found.optimizer, "–" if found.cards == 1 else found.parallel]
    if best is None:
        return [*head, "não cabe", "–", "–", "–", "–", "–"]
    return [
        *head,
        str(best.batch_size),
        str(found.sequences // best.batch_size),
        policy_name(best.checkpoint_every),
        best.loss,
        _gib(best.memory.total),
        number(best.tokens_per_second),
    ]


def decode_data(config: ModelConfig) -> list[dict[str, Any]]:
    """For each precision, what a T4 would generate, as JSON."""
    return [
        {
            "precision": precision,
            "weight_bytes": decode_bytes(config, precision),
            "tokens_per_second": round(decode_speed(config, precision), 1),
            "basis": "computed",
        }
        for precision in DECODE_BITS
    ]


def decode_text(config: ModelConfig) -> str:
    """The same as a sentence."""
    rows = decode_data(config)
    speeds = ", ".join(f"{row['precision']} {number(row['tokens_per_second'])}" for row in rows)
    share, bandwidth = number(100 * DECODE_SHARE), number(T4.bandwidth / 1e9)
    return paragraph(
        f"Escrever numa T4 com o export para CUDA, um texto por vez, em tokens/s: {speeds} "
        f"(calculado: só a leitura dos pesos, a {share} % dos {bandwidth} GB/s)."
    )


def _gib(count: int) -> str:
    return number(count / GIB, 2)


def _millions(count: int) -> str:
    return f"{number(count / 1e6, 1)} milhões"


def options_text(options: Sequence[Setting], machine: Machine) -> str:
    """A line a setting: GiB of each part at the peak, tokens/s of all devices, and whether it fits."""
    where = "por GPU" if machine.kind == "cuda" else "neste computador"
    title = f"Opções, em GiB {where}; tudo calculado, nada medido. {_always(options[0].memory)}"
    rows = [_option_row(option, machine) for option in options]
    return f"{paragraph(title)}\n\n{fitting_table(rows, header=_OPTIONS_HEADER, spare=_SPARE)}"


def options_data(options: Sequence[Setting], machine: Machine) -> list[dict[str, Any]]:
    """The same as JSON; bytes."""
    return [
        {
            "checkpointing": policy_name(option.checkpoint_every),
            "loss": option.loss,
            "batch_size": option.batch_size,
            "memory_bytes": {**asdict(option.memory), "total": option.memory.total},
            "tokens_per_second": round(option.tokens_per_second, 1),
            "fits": option.memory.total <= machine.budget,
            "basis": "computed",
        }
        for option in options
    ]


def _option_row(option: Setting, machine: Machine) -> list[str]:
    m = option.memory
    others = m.workspace + m.communication + m.context
    parts = (m.autocast_cache, m.activations, m.logits, others, m.total)
    return [
        policy_name(option.checkpoint_every),
        option.loss,
        str(option.batch_size),
        *(number(part / GIB, 2) for part in parts),
        number(option.tokens_per_second),
        "sim" if m.total <= machine.budget else "não",
    ]
