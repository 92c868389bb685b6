"""The order of the data as a pure function of (seed, epoch, position): one integer says where a run is.

The cursor counts training windows consumed since the run began, so that a resume, another micro-batch or
another number of devices sees the same windows. Nothing is stored: a Feistel network permutes the windows of
an epoch, and a cycle walk keeps the result inside their number (Black and Rogaway, 2002).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 4
_U64 = np.uint64


class WindowOrder:
    """Windows of seq_len + 1 tokens (inputs and targets overlap by seq_len) out of `tokens` tokens, shuffled.

    Each epoch cuts the text at another offset, so that its windows are new ones. Needs tokens > seq_len.
    """

    def __init__(self, tokens: int, seq_len: int, seed: int) -> None:
        assert tokens > seq_len >= 1
        self.seq_len = seq_len
        self.seed = seed
        self.windows = max(1, tokens // seq_len - 1)
        """Windows of one epoch, the same in all of them."""
        self._slack = min(seq_len - 1, tokens - 1 - self.windows * seq_len)

    def starts(self, cursor: int, count: int) -> npt.NDArray[np.int64]:
        """(count,) first token of the windows number cursor, cursor + 1, ... of the run."""
        result = np.empty(count, np.int64)
        done = 0
        while done < count:
            epoch, position = divmod(cursor + done, self.windows)
            take = min(count - done, self.windows - position)
            keys = _keys(self.seed, epoch)
            order = permute(np.arange(position, position + take), self.windows, keys)
            result[done : done + take] = int(keys[_ROUNDS]) % (self._slack + 1) + order * self.seq_len
            done += take
        return result


def permute(values: npt.NDArray[np.int64], size: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """A bijection of range(size), drawn by the first round keys, applied to each of `values`."""
    half = _U64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (_U64(1) << half) - _U64(1)
    x = values.astype(_U64)
    outside = np.ones(len(x), bool)
    while outside.any():  # the domain is below 4 * size: under 4 rounds of walking on average
        left, right = x[outside] >> half, x[outside] & mask
        for key in keys[:_ROUNDS]:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        x[outside] = (left << half) | right
        outside = x >= _U64(size)
    return x.astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def _keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Four round keys and one number for the offset, independent for every seed and epoch."""
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8 * (_ROUNDS + 1)).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
