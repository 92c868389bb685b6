"""Write docs/configuracao.md from the settings' own metadata:  python scripts/generate_settings_docs.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ptbr_slm.storage.atomic import write_text
from ptbr_slm.text import number
from ptbr_slm.train.config_file import Entry, from_values, settings, to_values, wanted
from ptbr_slm.tune.config import LONGEST_SEQ_LEN, TuneConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuracao.md"
HEAD = """# As opções de um treino

Gerado por `python scripts/generate_settings_docs.py` a partir das próprias opções; um teste compara.

Cada chave vale no arquivo de `--config` (TOML) e em `--set CHAVE=VALOR`, que vence o arquivo e as demais
opções da linha de comando ([cli.md](cli.md)). Uma opção sem valor padrão fica de fora ou é calculada; o
treino grava em `RUN/config.resolved.toml` o que valeu. Em TOML, `optimizer.name` é `name` na seção
`[optimizer]`. O ajuste (`ptbr-slm tune`) tem as mesmas, com [alguns padrões próprios](#padrões-do-ajuste),
e a mais as da seção [`tune`](#tune)."""
TUNE_HEAD = f"""## Padrões do ajuste

`ptbr-slm tune` ajusta um modelo com conversas ([CONVERSAR.md](CONVERSAR.md)). O modelo é o argumento do
comando, e não `init_from`. Sem `seq_len`, vale o contexto do modelo, até {number(LONGEST_SEQ_LEN)} tokens.

| chave | no treino | no ajuste |
|---|---|---|"""

Defaults = Mapping[str, object]
_GIVEN = {"data": "DADOS", "output": "RUN"}


def render() -> str:
    """The whole page: a table for the run itself, one for each section, and those of a tuning."""
    known, defaults = settings(), to_values(from_values(_GIVEN))
    tuning, tuning_defaults = settings(TuneConfig), to_values(from_values(_GIVEN, TuneConfig))
    rows = [
        f"| `{key}` | {default_of(key, defaults)} | {default_of(key, tuning_defaults)} |"
        for key in known
        if key != "seq_len" and default_of(key, defaults) != default_of(key, tuning_defaults)
    ]
    own = {key: entry for key, entry in tuning.items() if key not in known}
    parts = [HEAD, *sections(known, defaults), "", TUNE_HEAD, *rows, *sections(own, tuning_defaults)]
    return "\n".join(parts) + "\n"


def sections(known: Mapping[str, Entry], defaults: Defaults) -> list[str]:
    """The lines of a table for each section."""
    lines, section = [], None
    for key, entry in known.items():
        head = key.rpartition(".")[0]
        if head != section:
            section = head
            title = f"## `{head}`" if head else "## O treino"
            lines.append(f"\n{title}\n\n| chave | valores | padrão |\n|---|---|---|")
        lines.append(f"| `{key}` | {values_of(entry)} | {default_of(key, defaults)} |")
    return lines


def values_of(entry: Entry) -> str:
    """What the setting allows, with its unit."""
    unit = f" ({entry.setting.unit})" if entry.setting.unit else ""
    return f"{wanted(entry)}{unit}"


def default_of(key: str, defaults: Defaults) -> str:
    """The default as TOML writes it; a dash for those that must be given and for those that are computed."""
    if key in ("data", "output") or defaults.get(key) in (None, "", []):
        return "—"
    return f"`{json.dumps(defaults[key], ensure_ascii=False)}`"


if __name__ == "__main__":
    write_text(PAGE, render())
