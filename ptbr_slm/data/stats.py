"""What `data stats` and `data prepare` tell about prepared data."""

from __future__ import annotations

from typing import Any

from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.prepared import PreparedData


def summarize(data: PreparedData) -> dict[str, Any]:
    """Documents, bytes (UTF-8 of the texts), words, tokens and drops, in all and for each split.

    `valid_fraction` is the share of the text that was asked for validation, `valid_share` what it has.
    `tokens` count bos and eos; `tokens_per_word` and `bytes_per_token` do not.
    """
    around = 1 if data.index["bos_id"] is None else 2
    parts = {
        name: {key: getattr(data.split(name), key) for key in ("documents", "bytes", "words", "tokens")}
        for name in SPLITS
    }
    total = {
        key: sum(part[key] for part in parts.values()) for key in ("documents", "bytes", "words", "tokens")
    }
    text_tokens = total["tokens"] - around * total["documents"]
    return {
        "folder": str(data.folder),
        **total,
        "tokens_per_word": round(text_tokens / max(total["words"], 1), 4),
        "bytes_per_token": round(total["bytes"] / max(text_tokens, 1), 4),
        "splits": parts,
        "valid_fraction": data.index.get("valid_fraction", 0.0),
        "valid_share": round(parts["valid"]["bytes"] / max(total["bytes"], 1), 6),
        "vocab_size": data.vocab_size,
        "tokenizer_sha256": data.tokenizer_sha256,
        "sha256": data.sha256,
        "dropped": data.index["dropped"],
        "repaired": data.index["repaired"],
    }
