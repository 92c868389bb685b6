"""How many rows of logits the chunked loss makes at once. No torch here: the planner counts with it."""

from __future__ import annotations

CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 128 << 20}
"""fp32 logits of one chunk. A CPU reads a chunk several times, which is faster in its cache: 2,048 x 4,096
logits of one thread take 52 ms in bf16 and 129 in fp32 at once, 39 and 119 in four chunks (decision 0126)."""
FEWEST_ROWS = {"cpu": 512, "cuda": 1}
"""Of a chunk whatever its size: fewer make the head's products slower (measured on a CPU, 32,000 x 256, one
thread: 95 GFLOP/s with 1,024 rows, 89 with 512, 83 with 256)."""


def chunk_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Rows of one chunk for `tokens` rows in all: the fewest chunks within CHUNK_BYTES and of FEWEST_ROWS or
    more, of about equal size.

    A function of the shape and the kind of device alone, so that a run rounds the same after every resume.
    """
    kind = device if device in CHUNK_BYTES else "cuda"
    most = max(FEWEST_ROWS[kind], CHUNK_BYTES[kind] // (4 * vocab_size))
    chunks = -(-tokens // most)
    return -(-tokens // chunks)
