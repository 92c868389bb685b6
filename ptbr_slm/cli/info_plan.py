"""The part of `info` that calculates: shape, parameters, memory by batch and length, FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ptbr_slm.cli.info_choice import recommended_data, recommended_text
from ptbr_slm.cli.info_decode import decode_data, decode_text
from ptbr_slm.cli.output import Report, table
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number
from ptbr_slm.train.planning.activations import FP32
from ptbr_slm.train.planning.choice import LOSSES
from ptbr_slm.train.planning.memory import CUDA_CONTEXT_BYTES, GIB, T4_BYTES, MemoryEstimate, estimate
from ptbr_slm.train.planning.speed import flops_per_token
from ptbr_slm.train.saving.retention import BYTES_PER_PARAMETER

POLICIES = {"none": 0, "full": 1}
"""`--checkpointing` -> `checkpoint_every`: the two ends of what the table shows."""

FITS: dict[str, str] = {"yes": "cabe", "tight": "no limite", "no": "não cabe"}
TIGHT = 0.05
"""Share of the card below which free memory is called tight: the allocator's fragmentation is not counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked the memory for."""

    batch_size: int
    seq_len: int
    precision: str
    optimizer: str = "adamw"
    card_bytes: int = T4_BYTES
    """Memory of the card to fit, the CUDA context included."""

    def around(self) -> list[tuple[int, int]]:
        """(batch_size, seq_len): the one asked for and its neighbours, in growing order of tokens."""
        batch, length = self.batch_size, self.seq_len
        found = {(batch, length), (max(1, batch // 2), length), (batch * 2, length), (batch * 4, length)}
        found.add((batch, length * 2))
        return sorted(found, key=lambda pair: (pair[0] * pair[1], pair[1]))


def card(gpu_memory: float | None) -> int:
    """`--gpu-memory` in bytes, a T4's where it is not given. Raises E_CONFIG for what is no amount."""
    if gpu_memory is None:
        return T4_BYTES
    if not 0 < gpu_memory < 10_000:
        raise SlmError(
            "E_CONFIG",
            f"a memória da placa deve ser um número de GiB, e não {gpu_memory}.",
            where="--gpu-memory",
            hint="Exemplo: --gpu-memory 14.56, o que o PyTorch enxerga de uma T4.",
        )
    return int(gpu_memory * GIB)


def fit(e: MemoryEstimate, card_bytes: int = T4_BYTES) -> Literal["yes", "tight", "no"]:
    """Whether the card holds it: yes, tight (less than 5 % of it left), or no."""
    if e.total > card_bytes:
        return "no"
    return "tight" if e.total > (1 - TIGHT) * card_bytes else "yes"


def size_report(name: str, config: ModelConfig, plan: Plan) -> Report:
    """The report on a named size."""
    data = {"model_size": name, **plan_data(config, plan)}
    text = f"Modelo {name}\n{shape_text(config)}\n\n{plan_text(config, plan)}"
    return Report(data, text, brief=str(config.num_parameters))


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
        "recommended": recommended_data(config, plan.seq_len, plan.precision, plan.card_bytes),
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
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label.ljust(width)}  {value}" for label, value in rows)


def plan_text(config: ModelConfig, plan: Plan) -> str:
    """FLOPs, checkpoint size and the memory table, with what was only computed named so."""
    none, full = (
        number(flops_per_token(config, plan.seq_len, checkpoint_every=every) / 1e9, 2)
        for every in POLICIES.values()
    )
    checkpoint = BYTES_PER_PARAMETER * config.num_parameters
    name = "T4" if plan.card_bytes == T4_BYTES else "GPU"
    header = ["lote", "seq", "checkpointing", "perda", "pesos", "cópias", "grad.", "otim.", "ativ.", "logits"]
    header += ["outros", "total", name]
    return "\n".join(
        [
            f"Treinar um token custa {none} GFLOP ({full} com --checkpointing full).",
            f"Cada checkpoint ocupa {number(checkpoint / 1e9, 2)} GB; só os pesos, "
            f"{number(FP32 * config.num_parameters / 1e9, 2)} GB.",
            "",
            f"Memória do treino numa GPU, em GiB ({plan.precision}, {plan.optimizer}) — "
            "tudo calculado, não medido:",
            "",
            table([_row_text(row, plan) for row in _rows(config, plan)], header=header),
            "",
            f"{name}: {_gib(plan.card_bytes)} GiB visíveis ao PyTorch, "
            f"{_gib(plan.card_bytes - CUDA_CONTEXT_BYTES)} fora o contexto CUDA. "
            f"«no limite»: sobra menos de {number(100 * TIGHT)} %.",
            "cópias: pesos em meia precisão. outros: gradientes em trânsito e o contexto CUDA.",
            "Cada linha é o instante do pico; onde ele vem depois da perda, os logits já foram liberados.",
            f"No processador, em fp32, lote {plan.batch_size} e seq {plan.seq_len}: "
            f"{_gib(_on_cpu(config, plan).total)} GiB, e mais {_gib(FP32 * config.num_parameters)} "
            "ao gravar um checkpoint.",
            "",
            recommended_text(config, plan.seq_len, plan.precision, plan.card_bytes),
            "",
            decode_text(config),
        ]
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
    parts = (
        "weights",
        "autocast_cache",
        "gradients",
        "optimizer",
        "activations",
        "logits",
        "workspace",
        "communication",
        "context",
    )
    return {
        "batch_size": batch,
        "seq_len": length,
        "checkpointing": policy,
        "loss": loss,
        **{part: getattr(e, part) for part in parts},
        "total": e.total,
        "fits": fit(e, plan.card_bytes),
    }


def _row_text(row: _Row, plan: Plan) -> list[str]:
    batch, length, policy, loss, e = row
    parts = (
        e.weights,
        e.autocast_cache,
        e.gradients,
        e.optimizer,
        e.activations,
        e.logits,
        e.workspace + e.communication + e.context,
    )
    return [
        str(batch),
        str(length),
        policy,
        loss,
        *map(_gib, parts),
        _gib(e.total),
        FITS[fit(e, plan.card_bytes)],
    ]


def _gib(count: int) -> str:
    return number(count / GIB, 2)


def _millions(count: int) -> str:
    return f"{number(count / 1e6, 1)} milhões"
