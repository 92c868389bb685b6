"""The options that `train`, `find-lr` and `tune` share: a table, and what they say as settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ptbr_slm.train.config import TrainConfig

SAME = "the option's own name"

SESSION, LEARNING, MEMORY, WATCHING = "Sessões", "Aprendizado", "Memória e velocidade", "Acompanhar o treino"
"""Headings of the help."""


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of the command line."""

    name: str
    """As it is typed: `--batch-size`."""
    kind: type = str
    """What its value is; bool: a switch, list[str]: may be repeated."""
    key: str | None = SAME
    """The setting that it gives (`train.config`); None: it is no setting."""
    short: str = ""
    metavar: str | None = None
    help: str = ""
    """In Portuguese."""
    heading: str | None = None
    """Below which the help shows it; None: among the first."""

    @property
    def parameter(self) -> str:
        """The name of its argument: `batch_size`."""
        return self.name.removeprefix("--").replace("-", "_")

    def signature(self) -> inspect.Parameter:
        """The parameter that Typer makes the option from. Without a value it is None, or False."""
        names = [self.name, *([self.short] if self.short else [])]
        option = typer.Option(*names, metavar=self.metavar, help=self.help, rich_help_panel=self.heading)
        switch = self.kind is bool
        kind: Any = self.kind if switch else self.kind | None
        return inspect.Parameter(
            self.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if switch else None,
            annotation=Annotated[kind, option],
        )


FLAGS = (
    Flag(
        "--data",
        kind=Path,
        metavar="DADOS",
        help="Pasta de ptbr-slm data prepare; ou textos: .txt, JSONL, Parquet.",
    ),
    Flag(
        "--output", short="-o", kind=Path, metavar="PASTA", help="Pasta do treino; o modelo fica em final/."
    ),
    Flag("--model-size", metavar="TAMANHO", help="nano, mini, 85m, 160m, 400m ou 800m."),
    Flag(
        "--max-steps",
        kind=int,
        help="Passos do treino inteiro; sem isto, 20 tokens por parâmetro ou 4 leituras dos dados.",
    ),
    Flag("--max-time", metavar="11h30m", help="Salva e para antes deste tempo, com código de saída 75."),
    Flag("--tokenizer", kind=Path, metavar="T", help="tokenizer.json; pode faltar se os dados já têm um."),
    Flag("--config", kind=Path, key=None, metavar="ARQUIVO.toml", help="Arquivo de configuração."),
    Flag(
        "--set",
        kind=list[str],
        key=None,
        metavar="CHAVE=VALOR",
        help="Qualquer opção do arquivo; vence as demais; pode repetir.",
    ),
    Flag(
        "--dry-run", kind=bool, key=None, help="Só mostra tamanho, memória, passos e épocas; não grava nada."
    ),
    Flag(
        "--resume",
        metavar="auto|never|CAMINHO",
        help="Continuar o treino que a pasta já tem (auto), nunca, ou de um checkpoint.",
        heading=SESSION,
    ),
    Flag(
        "--allow-config-change",
        kind=bool,
        help="Aceita continuar com opções diferentes das do checkpoint.",
        heading=SESSION,
    ),
    Flag(
        "--session-start",
        metavar="kaggle|HORA",
        help="De quando contar --max-time: kaggle, data e hora ISO ou segundos; padrão: deste processo.",
        heading=SESSION,
    ),
    Flag(
        "--cooldown",
        metavar="auto|schedule|session|average",
        help="O que uma sessão com --max-time deixa em RUN/final: session, um modelo resfriado à parte (auto "
        "sem --max-steps); average, a média dos últimos pesos (auto com eles); schedule, nada.",
        heading=SESSION,
    ),
    Flag(
        "--save-every",
        kind=int,
        key="checkpoint.every",
        help="Passos entre checkpoints.",
        heading=SESSION,
    ),
    Flag("--seq-len", kind=int, help="Tokens por sequência.", heading=LEARNING),
    Flag(
        "--batch-size",
        metavar="N|auto",
        help="Sequências por micro-lote; auto, o padrão: o que couber.",
        heading=LEARNING,
    ),
    Flag("--grad-accum", kind=int, help="Micro-lotes por passo.", heading=LEARNING),
    Flag("--tokens-per-step", kind=int, help="Tokens por passo; calcula --grad-accum.", heading=LEARNING),
    Flag(
        "--optimizer",
        metavar="muon|adamw|adamw8bit",
        key="optimizer.name",
        help="muon, o padrão, aprende mais por passo; adamw8bit guarda 2 bytes por parâmetro em vez de 8.",
        heading=LEARNING,
    ),
    Flag(
        "--learning-rate",
        kind=float,
        key="optimizer.learning_rate",
        help="Taxa de aprendizado máxima (ptbr-slm find-lr).",
        heading=LEARNING,
    ),
    Flag(
        "--warmup-steps",
        kind=int,
        key="schedule.warmup_steps",
        help="Passos de aquecimento.",
        heading=LEARNING,
    ),
    Flag(
        "--gradient-clip",
        kind=float,
        key="optimizer.gradient_clip",
        help="Norma máxima do gradiente; 0 não limita.",
        heading=LEARNING,
    ),
    Flag("--init-from", kind=Path, metavar="MODELO", help="Parte dos pesos de um modelo.", heading=LEARNING),
    Flag(
        "--cooldown-data",
        kind=Path,
        metavar="DADOS",
        help="Texto melhor, do mesmo tokenizador, para os passos do resfriamento (schedule wsd).",
        heading=LEARNING,
    ),
    Flag(
        "--teacher-logits",
        kind=Path,
        metavar="PASTA",
        key="distill.logits",
        help="Aprende também das previsões de um modelo maior (ptbr-slm data teacher-logits).",
        heading=LEARNING,
    ),
    Flag("--seed", kind=int, help="Semente dos pesos e da ordem dos dados.", heading=LEARNING),
    Flag("--precision", metavar="auto|fp32|fp16|bf16", help="Formato dos cálculos.", heading=MEMORY),
    Flag(
        "--checkpointing",
        metavar="auto|none|full|every:K",
        help="Recalcular ativações para gastar menos memória.",
        heading=MEMORY,
    ),
    Flag(
        "--parallel",
        metavar="auto|none|ddp|fsdp",
        help="Várias GPUs: uma cópia em cada (ddp, o padrão), o modelo repartido (fsdp), ou só uma.",
        heading=MEMORY,
    ),
    Flag(
        "--compile",
        kind=bool,
        help="torch.compile por camada, conferido antes de ser usado.",
        heading=MEMORY,
    ),
    Flag(
        "--eval-every",
        kind=int,
        key="evaluation.every",
        help="Passos entre avaliações.",
        heading=WATCHING,
    ),
    Flag(
        "--eval-tasks",
        kind=list[str],
        metavar="A,B",
        key="evaluation.tasks",
        help="Tarefas que o modelo responde em cada avaliação (ptbr-slm eval --list); pode repetir.",
        heading=WATCHING,
    ),
    Flag(
        "--eval-tasks-seconds",
        kind=float,
        metavar="S",
        key="evaluation.tasks_seconds",
        help="Segundos para todas as tarefas de uma avaliação; o que couber na primeira é o que se repete.",
        heading=WATCHING,
    ),
    Flag(
        "--task-data",
        kind=list[str],
        metavar="PASTA",
        key="evaluation.task_data",
        help="Onde estão os arquivos das tarefas; pode repetir.",
        heading=WATCHING,
    ),
    Flag(
        "--logger",
        kind=list[str],
        metavar="tensorboard|trackio|wandb",
        help="Mostra as curvas também ali; pode repetir. Nada sai do computador sem você pedir.",
        heading=WATCHING,
    ),
)


def with_flags(
    verb: Callable[..., Any], *, leave_out: tuple[str, ...] = (), more: tuple[Flag, ...] = ()
) -> Callable[..., Any]:
    """A verb that takes `**given`, with the options of `more` and of the table after its own.

    leave_out: names of those of the table that it has not.

    `verb` itself stays as it is, so that it can be registered more than once.
    """

    @functools.wraps(verb)
    def wrapped(out: Any, **given: Any) -> Any:
        return verb(out, **given)

    own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
    shared = [flag.signature() for flag in (*more, *(f for f in FLAGS if f.name not in leave_out))]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    wrapped.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    return wrapped


def settings_of(given: Mapping[str, Any]) -> TrainConfig:
    """The settings that the options say, by parameter name; None: not given. Raises E_CONFIG, E_USAGE."""
    from ptbr_slm.train.config_file import load_config

    return load_config(given.get("config"), flag_values(given), given.get("set") or [])


def flag_values(given: Mapping[str, Any], more: tuple[Flag, ...] = ()) -> dict[str, Any]:
    """Dotted key -> what its option says. more: options beside those of the table."""
    values: dict[str, Any] = {}
    for flag in (*more, *FLAGS):
        value = given.get(flag.parameter)
        if flag.key is not None and value is not False:  # a switch that is off was not given
            values[flag.parameter if flag.key == SAME else flag.key] = value
    for key in ("logger", "evaluation.tasks"):
        if names := values.get(key):
            values[key] = [name.strip() for text in names for name in text.split(",")]
    if (batch_size := values.get("batch_size")) and batch_size.isdecimal():
        values["batch_size"] = int(batch_size)
    return values
