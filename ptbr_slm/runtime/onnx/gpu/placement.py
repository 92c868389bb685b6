"""On which provider every node of a session really ran, read from a profile of its first run.

`InferenceSession.get_providers` lists a provider even where single nodes fell back to the CPU, and the copies
that this costs (Memcpy nodes) are in no list at all. A profiled run names every node with its provider.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError

Nodes = Counter[tuple[str, str]]
"""(provider, operator) -> how many nodes ran."""

_COPIES = ("MemcpyFromHost", "MemcpyToHost")


def profiled_nodes(profile: Path) -> Nodes:
    """Nodes in a file that `InferenceSession.end_profiling` wrote, each counted once however often it ran."""
    seen = set()
    for event in json.loads(profile.read_bytes()):
        facts: Mapping[str, Any] = event.get("args") or {}
        if event.get("cat") == "Node" and "op_name" in facts and "provider" in facts:
            seen.add((event["name"], str(facts["provider"]), str(facts["op_name"])))
    return Counter((provider, op) for _, provider, op in seen)


def require_whole(nodes: Nodes, provider: str, where: Path) -> None:
    """Raise E_PROVIDER unless every node ran on `provider`, with no copy between it and the host."""
    astray = {key: count for key, count in nodes.items() if key[0] != provider or key[1] in _COPIES}
    if nodes and not astray:
        return
    shown = ", ".join(f"{op} ({count})" for (_, op), count in sorted(astray.items(), key=lambda x: -x[1])[:4])
    detail = f"{sum(astray.values())} de {sum(nodes.values())} operações ficaram fora dele: {shown}"
    raise SlmError(
        "E_PROVIDER",
        f"o {provider} não executa este modelo inteiro ({detail if nodes else 'nada foi executado'}).",
        where=where,
        hint="Exporte de novo com esta versão:  ptbr-slm export MODELO -o PASTA --target cuda;  e confira o "
        "onnxruntime-gpu com:  ptbr-slm doctor",
    )
