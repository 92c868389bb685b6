"""The options of sampling that `generate` and `chat` share; each verb has its own defaults."""

from __future__ import annotations

from typing import Annotated

import typer

from ptbr_slm.errors import SlmError

SAMPLING = "Amostragem"
"""The panel of these options in the help."""

Temperature = Annotated[
    float, typer.Option(help="0 escolhe sempre o mais provável.", rich_help_panel=SAMPLING)
]
TopK = Annotated[int, typer.Option(help="Só os K mais prováveis; 0 são todos.", rich_help_panel=SAMPLING)]
TopP = Annotated[float, typer.Option(help="Só os mais prováveis até somarem P.", rich_help_panel=SAMPLING)]
MinP = Annotated[
    float, typer.Option(help="Só os de ao menos P vezes o mais provável.", rich_help_panel=SAMPLING)
]


def refuse_no_tokens(max_new_tokens: int, option: str) -> None:
    """Raises E_SAMPLING for 0, which the engine takes to score a prompt: nothing would be written."""
    if max_new_tokens == 0:
        raise SlmError(
            "E_SAMPLING",
            f"{option} 0 não escreve nada.",
            where="max_new_tokens",
            hint=f"Peça ao menos um token:  {option} 64",
        )
