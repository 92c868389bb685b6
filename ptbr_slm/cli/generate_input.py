"""What `ptbr-slm generate` reads besides its flags: the prompt, a JSON schema, a logit bias."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.text import decode, is_utf16


def read_prompt(prompt: str | None) -> str:
    """The argument, or standard input for `-` and for no argument in a pipe. Raises E_PROMPT."""
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        return ""
    try:
        with os_errors("entrada padrão"):
            raw = sys.stdin.buffer.read()
        text = decode(raw)
    except UnicodeDecodeError as error:
        encoding, guess = ("utf-16", " (parece UTF-16)") if is_utf16(raw) else ("latin1", "")
        raise SlmError(
            "E_PROMPT",
            f"a entrada padrão não é texto em UTF-8{guess}.",
            where=f"byte {error.start}",
            hint=f"Converta antes:  iconv -f {encoding} -t utf-8 T | ptbr-slm generate -m PASTA -",
        ) from error
    return text.removesuffix("\n").removesuffix("\r")  # the line end that echo adds


def read_schema(source: str | None, *, prompt: str | None) -> str | None:
    """The text of a JSON schema from a file, or from standard input for `-`; None for None.

    Raises E_USAGE where the prompt is to come from standard input too, E_SAMPLING for what is not UTF-8.
    """
    if source is None:
        return None
    if source == "-" and prompt in (None, "-"):
        raise SlmError(
            "E_USAGE",
            "a entrada padrão não pode trazer o texto inicial e o esquema ao mesmo tempo.",
            where="--json-schema -",
            hint='Dê o texto inicial na linha:  ptbr-slm generate -m PASTA "TEXTO" --json-schema -',
        )
    with os_errors("entrada padrão" if source == "-" else source):
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return decode(raw)
    except UnicodeDecodeError as error:
        raise SlmError(
            "E_SAMPLING",
            "o esquema JSON não é texto em UTF-8.",
            where=f"{source}, byte {error.start}",
            hint="Salve o arquivo em UTF-8 e repita o comando.",
        ) from error


def parse_bias(entries: Sequence[str]) -> dict[int, float]:
    """`["42=-100"]` -> {42: -100.0}. Raises E_SAMPLING for what is not ID=V, or an id given twice."""
    bias: dict[int, float] = {}
    for entry in entries:
        token, _, value = entry.partition("=")
        try:
            key, added = int(token), float(value)
        except ValueError:
            key, added = -1, 0.0
        if key < 0 or key in bias:
            raise SlmError(
                "E_SAMPLING",
                f"--logit-bias leva ID=VALOR, um id por vez, e não {entry[:60]!r}.",
                where="--logit-bias",
                hint="Exemplo: --logit-bias 42=-100. Os ids:  ptbr-slm tokenizer inspect TEXTO --tokenizer T",
            )
        bias[key] = added
    return bias
