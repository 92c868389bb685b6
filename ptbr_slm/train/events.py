"""The events of a run, and its result.

Every record of `train --json`, metrics.jsonl, cooldown.jsonl and sessions.jsonl is one of these classes
(`ptbr_slm.events`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from ptbr_slm.errors import Exit
from ptbr_slm.events import Event, entry


class Listener(Protocol):
    """Receives the events of a run. The run does not depend on what a listener does."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def progress(self, done: float, status: str) -> None:
        """The share of the run that is done, 0 to 1, and a short Portuguese status."""


class Silent:
    """A listener that ignores everything."""

    def event(self, event: Event) -> None:
        """Ignore."""

    def progress(self, done: float, status: str) -> None:
        """Ignore."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned(Event):
    """Something that the user should know; the run goes on."""

    EVENT: ClassVar = "warning"
    code: str = entry("O que foi, em uma palavra: um código de erro, ou left_out, restart, loss_spike...")
    message: str = entry("Uma frase em português.")
    where: str | None = entry("O arquivo ou a pasta.", optional=True)
    logger: str | None = entry("O registrador que falhou.", optional=True)


# At the start.


@dataclass(frozen=True, kw_only=True, slots=True)
class Started(Event):
    """The run is decided; nothing has been trained yet."""

    EVENT: ClassVar = "start"
    parameters: int = entry("Parâmetros do modelo; uma embedding compartilhada conta uma vez.")
    device: str = entry("cpu, ou cuda:N.")
    precision: str = entry("fp32, fp16 ou bf16.")
    precision_reason: str = entry("Por que esta precisão.")
    checkpoint_every: int = entry("Recalcular as ativações de uma camada a cada N; 0: de nenhuma.")
    checkpointing_reason: str = entry("Por que este recálculo.")
    batch_size: int = entry("Sequências de um micro-lote.")
    grad_accum: int = entry("Micro-lotes de um passo, de todos os processos juntos.")
    loss: str = entry("plain ou chunked: como a perda é calculada.")
    plan_reasons: tuple[str, ...] = entry("Por que o micro-lote e a perda são estes.")
    memory_bytes: int = entry("Memória que um passo pede, calculada, em bytes.")
    tokens_per_step: int = entry("Tokens de um passo do otimizador.")
    train_tokens: int = entry("Tokens da parte de treino dos dados.")
    learning_rate: float | None = entry("A taxa de aprendizado máxima.")
    notes: tuple[str, ...] = entry("O que convém saber antes de começar.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RanksJoined(Event):
    """Several processes share each step."""

    EVENT: ClassVar = "ranks"
    world: int = entry("Processos.")
    parallel: str = entry("ddp ou fsdp.")
    restarts: int = entry("Vezes que todos recomeçaram porque um morreu.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied(Event):
    """The checkpoint of an earlier notebook version was copied into the run's folder."""

    EVENT: ClassVar = "copied"
    step: int = entry("O passo do checkpoint.")
    source: str = entry("De onde.", key="from")
    path: str = entry("Para onde.")
    message: str = entry("Uma frase em português.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed(Event):
    """The run goes on from a checkpoint."""

    EVENT: ClassVar = "resume"
    step: int = entry("O passo do checkpoint.")
    path: str = entry("A pasta do checkpoint.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled(Event):
    """The layers were compiled, and gave what they give uncompiled."""

    EVENT: ClassVar = "compile"
    seconds: float = entry("Segundos que levou.")
    loss_difference: float = entry("Diferença relativa da perda.")
    gradient_difference: float = entry("Diferença relativa da norma do gradiente.")
    message: str = entry("Uma frase em português.")


# From step to step.


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEvent(Event):
    """An event of a step: what metrics.jsonl keeps."""

    step: int = entry("O passo do otimizador, a partir de 1; 0 antes do primeiro.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step(StepEvent):
    learning_rate: float = entry("A taxa de aprendizado do passo.")
    grad_norm: float | None = entry("Norma do gradiente antes do limite; null se não é um número.")
    tokens: int = entry("Tokens treinados até aqui, em todas as sessões.")
    tokens_per_second: float = entry("Média dos últimos 50 passos, sem avaliação nem gravação.")
    mfu: float | None = entry("Parte do pico da placa que o treino usa, 0 a 1.", optional=True)
    mfu_gemm: float | None = entry("O mesmo, de um produto de matrizes medido aqui.", optional=True)
    memory_bytes: int | None = entry("A maior memória até aqui, em bytes.", optional=True)
    energy_kwh: float | None = entry("Energia das GPUs nesta sessão, em kWh.", optional=True)
    elapsed_s: float = entry("Segundos de treino em todas as sessões.")
    scale: float | None = entry("A escala da perda em fp16.", optional=True)
    skipped: bool | None = entry("true se os pesos não foram mudados.", optional=True)
    bad_micro_batches: tuple[int, ...] | None = entry(
        "Os micro-lotes, a partir de 1, com perda ou gradiente que não é um número.", optional=True
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(_Step):
    """An optimizer step was made."""

    EVENT: ClassVar = "step"
    loss: float = entry("Entropia cruzada média do passo, em nats por token.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped(_Step):
    """A step whose loss was no number; the weights are as before."""

    EVENT: ClassVar = "dropped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated(StepEvent):
    """The held-out part was read."""

    EVENT: ClassVar = "eval"
    bits_per_byte: float = entry("Bits por byte da parte de validação.")
    text_bits_per_byte: float | None = entry(
        "Bits por byte da validação do texto do pré-treino (--replay-data), que mostra o esquecimento.",
        optional=True,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TasksScored(StepEvent):
    """The model was asked the items of `evaluation.tasks`, the same ones each time."""

    EVENT: ClassVar = "tasks"
    scores: Mapping[str, float] = entry("Tarefa e a sua nota, de 0 a 1 (a primeira medida da tarefa).")
    items: Mapping[str, int] = entry("Tarefa e quantos itens foram perguntados.")
    chance: Mapping[str, float] = entry("Tarefa e a nota de quem adivinha, onde se conhece.")
    seconds: float = entry("Segundos que levou.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled(StepEvent):
    """The model wrote a text."""

    EVENT: ClassVar = "sample"
    prompt: str = entry("O começo dado.")
    text: str = entry("A continuação.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved(StepEvent):
    """A checkpoint was written."""

    EVENT: ClassVar = "checkpoint"
    path: str = entry("A pasta do checkpoint.")
    seconds: float = entry("Segundos que levou.")


# When something goes wrong, or ends.


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryRanOut(StepEvent):
    """The memory ran out; the step is done again in smaller micro-batches."""

    EVENT: ClassVar = "out_of_memory"
    before: int = entry("Sequências do micro-lote que não coube.")
    after: int = entry("Sequências do micro-lote daqui em diante.")
    reported: str = entry("O que o dispositivo disse.", key="said")
    message: str = entry("Uma frase em português.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RolledBack(StepEvent):
    """The loss spiked, and the run went back to the checkpoint of `step`."""

    EVENT: ClassVar = "rollback"
    from_step: int = entry("O passo em que a volta foi decidida.")
    high_since: int = entry("O primeiro passo com a perda alta.")
    loss: float = entry("A perda em from_step.")
    mean_loss: float = entry("A média antes do salto.")
    grad_norm: float = entry("A norma do gradiente em from_step.")
    learning_rate: float = entry("A taxa em from_step.")
    skipped_windows: tuple[int, int] = entry("[primeira, última + 1) das janelas que ficam de fora.")
    message: str = entry("Uma frase em português.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataChanged(StepEvent):
    """The next step reads other data than the one before: a cooldown of --cooldown-data begins."""

    EVENT: ClassVar = "data"
    sha256: str = entry("Dos dados que se leem daqui em diante.")
    cursor: int = entry("As janelas lidas até aqui, em todos os dados.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CooldownStarted(StepEvent):
    """The session ends soon: from here the learning rate falls to zero, in a branch of its own."""

    EVENT: ClassVar = "cooldown"
    message: str = entry("Uma frase em português.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CooldownEnded(StepEvent):
    """The cooled model is worth keeping; the run itself stays at `step`. In metrics.jsonl only."""

    EVENT: ClassVar = "cooldown"
    until_step: int = entry("O último passo do resfriamento.")
    bits_per_byte: float | None = entry("Do modelo resfriado; null sem validação.")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsAveraged(StepEvent):
    """The mean of the session's last weights is in final/; the run itself stays at `step`."""

    EVENT: ClassVar = "average"
    first_step: int = entry("O passo dos primeiros pesos da média.")
    count: int = entry("De quantos pesos é a média.")
    bits_per_byte: float | None = entry("Da média dos pesos; null sem validação.")
    raw_bits_per_byte: float | None = entry("Dos pesos do último passo, sem média; null sem validação.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStarted(Event):
    """A process began to work on the run. In sessions.jsonl only."""

    EVENT: ClassVar = "start"
    time: str = entry("Data e hora ISO.")
    step: int = entry("O passo de onde continua.")
    command: str = entry("A linha de comando.")
    versions: Mapping[str, str] = entry("Versões dos pacotes.")
    commit: str | None = entry("O commit do ptbr-slm; + se há mudanças; null se instalado como pacote.")
    device: str = entry("cpu, ou cuda:N.")
    ranks: int = entry("Processos.")
    precision: str = entry("fp32, fp16 ou bf16.")
    batch_size: int = entry("Sequências de um micro-lote.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnded(Event):
    """The process stopped working on it. In sessions.jsonl only."""

    EVENT: ClassVar = "end"
    time: str = entry("Data e hora ISO.")
    step: int | None = entry("O último passo; null depois de um erro.")
    reason: str = entry("Como em done, ou o código do erro.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned(Event):
    """The only record of `train --dry-run --json`."""

    EVENT: ClassVar = "plan"
    parameters: int = entry("Parâmetros do modelo.")
    tokens_per_step: int = entry("Tokens de um passo do otimizador.")
    max_steps: int = entry("Passos do treino inteiro.")
    epochs: float | None = entry("Vezes que os dados são lidos; null antes de prepará-los.")
    train_tokens: int | None = entry("Tokens da parte de treino; null antes de preparar os dados.")
    precision: str = entry("fp32, fp16 ou bf16.")
    batch_size: int = entry("Sequências de um micro-lote.")
    grad_accum: int = entry("Micro-lotes de um passo, de todos os processos juntos.")
    checkpoint_every: int = entry("Recalcular as ativações de uma camada a cada N; 0: de nenhuma.")
    loss: str = entry("plain ou chunked.")
    ranks: int = entry("Processos.")
    options: Sequence[Mapping[str, Any]] = entry("Memória e velocidade calculadas das outras escolhas.")
    reasons: tuple[str, ...] = entry("Por que o plano é este.")
    learning_rate: float | None = entry("A taxa de aprendizado máxima.")
    memory_bytes: Mapping[str, int] = entry("Memória calculada por parte, em bytes, e total.")
    notes: tuple[str, ...] = entry("O que convém saber antes de começar.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Event):
    """The last record of `train --json`."""

    EVENT: ClassVar = "done"
    status: Literal["done", "stopped"] = entry("done, ou stopped: repetir o comando continua.")
    reason: str = entry("complete, sigterm, sighup, interrupt ou max_time.")
    run: str | None = entry("A pasta do treino.", optional=True)
    model: str | None = entry("O modelo para usar agora: final/, ou um checkpoint.", optional=True)
    step: int | None = entry("O último passo; null se não houve nenhum.")
    tokens: int | None = entry("Tokens treinados em todas as sessões.", optional=True)
    loss: float | None = entry("A perda do último passo; null se esta sessão não fez nenhum.")
    bits_per_byte: float | None = entry("Da última avaliação; null sem ela.")
    seconds: float | None = entry("Segundos de treino em todas as sessões.", optional=True)
    tokens_per_second: float | None = entry("Dos últimos passos desta sessão.", optional=True)
    skipped_steps: int | None = entry("Passos cujo gradiente passou do fp16.", optional=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """How a run ended."""

    status: Literal["done", "stopped"]
    reason: str
    """`complete`, `sigterm`, `sighup`, `interrupt` or `max_time`."""
    exit_code: Exit
    run: Path
    model: Path
    """The model folder to use now: final/, or the checkpoint of a stopped run."""
    step: int
    tokens: int
    """Target tokens trained on over all sessions."""
    loss: float | None
    """Of the last step, nats a token; None where this session made none."""
    bits_per_byte: float | None
    """On the held-out part, of the newest evaluation."""
    seconds: float
    """Of training over all sessions, evaluation included."""
    tokens_per_second: float
    """Of this session's recent steps, evaluation and saving excluded."""
    skipped_steps: int
    """Steps whose fp16 gradient overflowed."""

    def event(self) -> Done:
        """The same as the last event."""
        return Done(
            status=self.status,
            reason=self.reason,
            run=str(self.run),
            model=str(self.model),
            step=self.step,
            tokens=self.tokens,
            loss=self.loss,
            bits_per_byte=self.bits_per_byte,
            seconds=round(self.seconds, 3),
            tokens_per_second=round(self.tokens_per_second, 1),
            skipped_steps=self.skipped_steps,
        )
