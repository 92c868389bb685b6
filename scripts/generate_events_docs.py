"""Write docs/eventos.md from the classes of the events:  python scripts/generate_events_docs.py [--check]."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ptbr_slm.events import Event, is_optional, key_of
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.train import events
from ptbr_slm.tune import events as tune_events

PAGE = Path(__file__).resolve().parent.parent / "docs" / "eventos.md"
INTRO = """# Os eventos de um treino

Gerado por `python scripts/generate_events_docs.py` a partir das classes de `ptbr_slm/train/events.py` e de
`ptbr_slm/tune/events.py`; um teste compara.

`ptbr-slm train --json` e `ptbr-slm tune --json` escrevem um objeto JSON por linha na saída padrão, o último
com `"event": "done"`. Os mesmos objetos ficam na pasta do treino: os que têm um passo em `metrics.jsonl` (e
em `cooldown.jsonl` os do resfriamento), os demais em `sessions.jsonl`, com a hora em `time`. Uma chave
marcada com `?` falta quando não há valor. Novas chaves podem aparecer; as que existem não mudam de sentido.
"""
JSON = {int: "inteiro", float: "número", str: "texto", bool: "booleano", type(None): "null"}


def render() -> str:
    """The whole page."""
    return "\n".join([INTRO, *map(_section, kinds())])


def kinds() -> list[type[Event]]:
    """The events of a run, in the order of their module."""
    named = {**vars(tune_events), **vars(events)}
    found = [kind for kind in named.values() if isinstance(kind, type) and issubclass(kind, Event)]
    return [kind for kind in found if "EVENT" in vars(kind)]


def _section(kind: type[Event]) -> str:
    hints = typing.get_type_hints(kind)
    rows = [
        f"| `{key_of(item)}`{'?' if is_optional(item) else ''} | "
        f"{_json(hints[item.name], optional=is_optional(item))} | {item.metadata['about']} |"
        for item in sorted(fields(kind), key=lambda item: item.name != "step")
    ]
    note = SUMMARY[kind]
    return "\n".join([f"## `{kind.EVENT}`\n", note + "\n", "| chave | valor | |", "|---|---|---|", *rows, ""])


def _json(hint: Any, *, optional: bool) -> str:
    """The Portuguese name of a field's JSON type."""
    if isinstance(hint, types.UnionType):
        options = [part for part in typing.get_args(hint) if not (optional and part is type(None))]
        return " ou ".join(_json(part, optional=False) for part in options)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " ou ".join(f'"{value}"' for value in typing.get_args(hint))
    if origin in (tuple, Sequence):
        return f"lista de {_json(typing.get_args(hint)[0], optional=False)}"
    if origin in (dict, Mapping):
        return "objeto"
    return JSON.get(hint, "objeto")


SUMMARY: dict[type[Event], str] = {
    tune_events.ConversationsRead: "Só em `tune`: as conversas foram lidas e preparadas.",
    tune_events.PairsRead: "Só em `tune --objective dpo`: os pares de respostas foram lidos e preparados.",
    tune_events.PreferenceMeasured: "Só em `tune --objective dpo`, antes do primeiro passo e em cada "
    "avaliação: o que os pares de validação valem para o modelo, e como ele responde livremente.",
    events.Warned: "Algo que convém saber; o treino segue.",
    events.Started: "O treino está decidido; nada foi treinado ainda.",
    events.RanksJoined: "Vários processos repartem cada passo.",
    events.Copied: "O checkpoint de uma versão anterior do notebook foi copiado para a pasta do treino.",
    events.Resumed: "O treino continua de um checkpoint.",
    events.Compiled: "As camadas foram compiladas e dão o mesmo resultado.",
    events.Step: "Um passo do otimizador foi feito.",
    events.Dropped: "Um passo cuja perda não é um número; os pesos ficam como estavam.",
    events.Evaluated: "A parte de validação foi lida.",
    events.TasksScored: "O modelo respondeu as tarefas de `evaluation.tasks`, sempre os mesmos itens.",
    events.Sampled: "O modelo escreveu um texto.",
    events.Saved: "Um checkpoint foi gravado.",
    events.MemoryRanOut: "A memória acabou; o passo é refeito com micro-lotes menores.",
    events.RolledBack: "A perda saltou, e o treino voltou ao checkpoint do passo `step`.",
    events.DataChanged: "Daqui em diante os passos leem outros dados (`--cooldown-data`).",
    events.CooldownStarted: "A sessão acaba logo: daqui em diante a taxa cai até zero, num ramo à parte.",
    events.CooldownEnded: "Só em `metrics.jsonl`: o modelo resfriado está em `final/`.",
    events.WeightsAveraged: "A sessão acabou: `final/` tem a média dos últimos pesos (`--cooldown average`).",
    events.SessionStarted: "Só em `sessions.jsonl`: um processo começou a trabalhar no treino.",
    events.SessionEnded: "Só em `sessions.jsonl`: o processo parou de trabalhar nele.",
    events.Planned: "A única linha de `train --dry-run --json`.",
    events.Done: "A última linha de `train --json`.",
}


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" not in sys.argv[1:]:
        write_text(PAGE, render())
        return 0
    fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == render()
    if not fresh:
        print(f"{PAGE.name} está desatualizado: rode  python {Path(__file__).name}", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main())
