"""How many rows of logits the chunked loss makes at once. No torch here: the planner counts with it."""

from __future__ import annotations

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 128 << 20}
"""fp32 logits of one chunk. At 32,000 tokens 524 rows on a CPU and 1,048 on a GPU. Fewer rows make the head's
products slower (measured on a CPU, 32,000 x 256, one thread: 95 GFLOP/s with 1,024 rows, 89 with 512, 83 with
256)."""


def chunk_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Rows of one chunk for `tokens` rows in all: the fewest chunks within CHUNK_BYTES, of about equal size.

    A function of the shape and the kind of device alone, so that a run rounds the same after every resume.
    """
    most = max(1, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocab_size))
    chunks = -(-tokens // most)
    return -(-tokens // chunks)
