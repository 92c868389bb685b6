"""Write docs/configuracao.md from the settings' own metadata:  python scripts/generate_settings_docs.py."""

from __future__ import annotations

import json
from pathlib import Path

from ptbr_slm.storage.atomic import write_text
from ptbr_slm.train.config_file import Entry, from_values, settings, to_values, wanted

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuracao.md"
HEAD = """# As opções de um treino

Gerado por `python scripts/generate_settings_docs.py` a partir das próprias opções; um teste compara.

Cada chave vale no arquivo de `--config` (TOML) e em `--set CHAVE=VALOR`, que vence o arquivo e as demais
opções da linha de comando ([cli.md](cli.md)). Uma opção sem valor padrão fica de fora ou é calculada; o
treino grava em `RUN/config.resolved.toml` o que valeu. Em TOML, `optimizer.name` é `name` na seção
`[optimizer]`."""


def render() -> str:
    """The whole page: a table for the run itself, then one for each section."""
    known = settings()
    defaults = to_values(from_values({"data": "DADOS", "output": "RUN"}))
    parts, section = [HEAD], None
    for key, entry in known.items():
        head = key.rpartition(".")[0]
        if head != section:
            section = head
            title = f"## `{head}`" if head else "## O treino"
            parts.append(f"\n{title}\n\n| chave | valores | padrão |\n|---|---|---|")
        parts.append(f"| `{key}` | {values_of(entry)} | {default_of(key, defaults)} |")
    return "\n".join(parts) + "\n"


def values_of(entry: Entry) -> str:
    """What the setting allows, with its unit."""
    unit = f" ({entry.setting.unit})" if entry.setting.unit else ""
    return f"{wanted(entry)}{unit}"


def default_of(key: str, defaults: dict[str, object]) -> str:
    """The default as TOML writes it; a dash for those that must be given and for those that are computed."""
    if key in ("data", "output") or defaults.get(key) in (None, "", []):
        return "—"
    return f"`{json.dumps(defaults[key], ensure_ascii=False)}`"


if __name__ == "__main__":
    write_text(PAGE, render())
