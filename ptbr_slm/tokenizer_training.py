"""Feeds texts to the tokenizers library's BPE trainer so that no word takes hours and Ctrl-C is answered.

Its trainer walks a whole word for each merge inside it (huggingface/tokenizers, models/bpe/word.rs: `merge`),
so the time grows with the square of a word's length. It holds Python's signals back until it is done, too:
here it works in a thread of its own, and the caller's thread reads the texts and waits.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

LONGEST_RUN = 1_024
"""Letters, spaces or marks in a row that stay one word for the trainer. No language has longer words."""
_SPACES = re.compile(r"\s{2,}")
_RUN = re.compile(r"[^\W\d_]+|\d+|\s+|(?:[^\w\s]|_)+")
_BATCH_CHARACTERS = 1 << 18
_WAIT_S = 0.1
_LEAVE_S = 1.0
"""Long enough for a thread that waits for texts; one that merges is left behind."""


def train_from(inner: Any, texts: Iterable[str], trainer: Any) -> int:
    """Train a `tokenizers.Tokenizer` on `texts`, read in this thread; the number of characters it was given.

    KeyboardInterrupt leaves within a second. The library cannot be stopped while it merges: its thread, a
    daemon, then works on until it is done or the process ends.
    """
    feed: queue.Queue[list[str] | None] = queue.Queue(maxsize=4)
    given_up, failure = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            inner.train_from_iterator(_taken(feed, given_up), trainer)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="ptbr-slm-tokenizer", daemon=True)
    thread.start()
    characters = 0
    try:
        for batch in _batches(texts):
            characters += sum(map(len, batch))
            _give(feed, batch, thread)
        _give(feed, None, thread)
        while thread.is_alive():
            thread.join(_WAIT_S)
    except BaseException:
        given_up.set()
        thread.join(_LEAVE_S)  # a thread that comes back to Python while the process ends would abort it
        raise
    if failure:
        raise failure[0]
    return characters


def bounded(text: str) -> Iterator[str]:
    """`text` itself; where something in it runs longer than `LONGEST_RUN`, in pieces cut inside that."""
    longest = max(map(len, text.split()), default=0)
    spaces = max((found.end() - found.start() for found in _SPACES.finditer(text)), default=0)
    start = 0
    if max(longest, spaces) > LONGEST_RUN:
        for run in _RUN.finditer(text):
            for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch += bounded(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _give(feed: queue.Queue[list[str] | None], batch: list[str] | None, thread: threading.Thread) -> None:
    """Put `batch` where the trainer takes it; not for ever, as it may have failed."""
    while thread.is_alive():
        with suppress(queue.Full):
            feed.put(batch, timeout=_WAIT_S)
            return


def _taken(feed: queue.Queue[list[str] | None], given_up: threading.Event) -> Iterator[list[str]]:
    """What `_give` puts, until None or until the caller has left."""
    while not given_up.is_set():
        try:
            batch = feed.get(timeout=_WAIT_S)
        except queue.Empty:
            continue
        if batch is None:
            return
        yield batch
    raise InterruptedError("the caller has left")
