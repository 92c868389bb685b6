"""README.md of a tuned model: its card, as the Hugging Face hub and people read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ptbr_slm.config import ModelConfig
from ptbr_slm.text import number
from ptbr_slm.tune.config import TuneConfig
from ptbr_slm.tune.conversations import describe_skipped
from ptbr_slm.version import __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningFacts:
    """What a tuned model was made of, for its card and its manifest."""

    base: str
    """Name of the base model's folder."""
    base_sha256: str
    data: str
    """Name of the file or folder of the conversations."""
    data_sha256: str
    """Of the prepared conversations, and of the text of the replay."""
    template_sha256: str
    ends: tuple[str, ...]
    """Tokens that end a turn."""
    conversations: int
    """Trained on."""
    held_out: int
    skipped: Mapping[str, int]
    """Reason -> rows of the data that were left out."""
    steps: int
    target_tokens: int
    """Trained on, over all epochs."""


def card(made: TuningFacts, config: TuneConfig, model: ModelConfig) -> str:
    """The header between two lines of dashes (huggingface.co/docs/hub/model-cards), and a Portuguese text.

    It says what is known: the licence of the data is for the user to fill in.
    """
    options = config.tune
    method = "todos os pesos (full)"
    if options.method == "lora":
        method = f"adaptadores (LoRA, posto {options.lora_rank}, alfa {options.lora_alpha:g}), já fundidos"
    trained = "só as respostas" if options.loss == "answers" else "a conversa toda"
    kind = "conversas"
    if options.objective == "dpo":
        kind = "pares de respostas"
        trained = f"qual de duas respostas é a melhor (DPO, beta {number(options.beta, 2)})"
    replay = "nenhum"
    if options.replay and options.replay_data is not None:
        replay = f"{number(100 * options.replay, 1)} % das sequências, de {options.replay_data.name}"
    ends = ", ".join(f"`{name}`" for name in made.ends)
    rows = [
        ("modelo de partida", f"{made.base} (sha256 {made.base_sha256[:16]})"),
        ("parâmetros", number(model.num_parameters)),
        ("contexto", f"{number(model.max_seq_len)} tokens"),
        (kind, f"{number(made.conversations)} de {made.data}, {number(made.held_out)} na validação"),
        ("linhas de fora", describe_skipped(made.skipped) or "nenhuma"),
        ("dados preparados", f"sha256 {made.data_sha256[:16]}"),
        ("método", method),
        ("o que foi aprendido", trained),
        ("treino", f"{number(made.target_tokens)} tokens aprendidos em {number(made.steps)} passos"),
        ("taxa de aprendizado", f"{config.optimizer.learning_rate:g}, {config.optimizer.name}"),
        ("texto de pré-treino junto", replay),
        ("modelo de conversa", f"sha256 {made.template_sha256[:16]}, cada resposta termina em {ends}"),
        ("feito com", f"ptbr-slm {__version__}"),
    ]
    lines = [
        "---",
        "language: pt",
        "pipeline_tag: text-generation",
        f"base_model: {_quoted(made.base)}",
        "---",
    ]
    lines += ["", "# Modelo ajustado para conversar", ""]
    lines += [
        "Um modelo pequeno de português que responde no formato das conversas com que foi ajustado. Ele erra"
    ]
    lines += ["e inventa: confira o que ele diz.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    lines += ["", "## Como usar", "", "```", "ptbr-slm chat PASTA", "```", ""]
    lines += ["## Licença", "", "A licença deste modelo depende da dos dados acima: escreva-a aqui.", ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A JSON string is a YAML one."""
    return json.dumps(text, ensure_ascii=False)
