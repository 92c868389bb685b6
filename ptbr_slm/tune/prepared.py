"""Conversations and pairs of answers prepared for training, in a folder that is reused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.data.index import SplitName
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.examples import Example
from ptbr_slm.tune.preparation import CONVERSATIONS, PREFERENCES, Preparation, Progress
from ptbr_slm.tune.store import StoreReader, open_store

_Opened = TypeVar("_Opened")


class ConversationSplit:
    """One part of the data, `train` or `valid`: examples by their number."""

    def __init__(self, store: StoreReader, name: SplitName) -> None:
        facts = store.index.splits[name]
        self.conversations = facts.items
        self.tokens = facts.tokens
        """Ids of all conversations."""
        self.target_tokens = facts.target_tokens
        """Of these, the ones that are learnt."""
        self.target_bytes = facts.target_bytes
        """UTF-8 bytes of the learnt text; special tokens have none."""
        self.sha256 = store.index.sha256
        """Identity of the data that this is a part of."""
        self.seq_len = store.index.seq_len
        """Every example fits into a sequence of this many positions."""
        self._store, self._items = store, store.items(name)

    def example(self, number: int) -> Example:
        """Conversation `number`, from 0. Raises E_DATA_CORRUPT."""
        return self._store.example(int(self._items[number]))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(conversations,) ids of each."""
        offsets, items = self._store.offsets, self._items.astype(np.int64)
        return np.asarray(offsets[items + 1] - offsets[items])

    @property
    def first(self) -> Example:
        """The first conversation."""
        return self.example(0)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> rows of the input that neither split has."""
        return dict(self._store.index.skipped)


class _Prepared:
    """A prepared folder that agreed with its index."""

    def __init__(self, store: StoreReader) -> None:
        index = store.index
        self.folder = store.folder
        self.index = index
        self.sha256 = index.sha256
        """Identity: the same examples in the same order, for the same tokenizer and template."""
        self.vocab_size = index.vocab_size
        self.tokenizer_sha256 = index.tokenizer_sha256
        self.template_sha256 = index.template_sha256
        self.skipped = dict(index.skipped)
        """Reason (a key of `conversations.REASONS`) -> rows of the input."""
        self.skipped_examples = dict(index.skipped_examples)
        """Reason -> where the first of them are."""
        self.shortened = index.shortened
        """Conversations that have lost their oldest turns, since they are longer than a sequence."""
        self._store = store

    @property
    def first(self) -> Example:
        """The first example of the files, with where it is."""
        found = self._store.example(0)
        return Example(found.ids, found.target, self.index.first)


class PreparedConversations(_Prepared):
    """A folder of prepared conversations that agreed with its index."""

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> PreparedConversations:
        """Open a prepared folder. verify: compare every file's sha256; otherwise only the sizes.

        Raises E_NOT_FOUND, E_DATA_CORRUPT or E_SCHEMA.
        """
        return cls(open_store(path, CONVERSATIONS, verify=verify))

    def split(self, name: SplitName) -> ConversationSplit:
        """`train` or `valid`; valid is empty where no conversation could be spared."""
        return ConversationSplit(self._store, name)


class PreferenceSplit:
    """One part of prepared pairs, `train` or `valid`: pairs by their number."""

    def __init__(self, store: StoreReader, name: SplitName) -> None:
        facts = store.index.splits[name]
        self.pairs = facts.items
        self.tokens = facts.tokens
        """Ids of all examples, two a pair."""
        self.target_tokens = facts.target_tokens
        """Of these, those of the answers."""
        self._store, self._items = store, store.items(name)

    def pair(self, number: int) -> tuple[Example, Example]:
        """(chosen, rejected) of pair `number`, from 0: the same ids up to the first learnt token of each.

        Raises E_DATA_CORRUPT.
        """
        item = int(self._items[number])
        return self._store.example(2 * item), self._store.example(2 * item + 1)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(pairs, 2) ids of each example."""
        first = 2 * self._items.astype(np.int64)
        at = np.stack([first, first + 1], axis=1)
        return np.asarray(self._store.offsets[at + 1] - self._store.offsets[at])


class PreparedPreferences(_Prepared):
    """A folder of prepared pairs that agreed with its index."""

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> PreparedPreferences:
        """As `PreparedConversations.open`."""
        return cls(open_store(path, PREFERENCES, verify=verify))

    def split(self, name: SplitName) -> PreferenceSplit:
        """`train` or `valid`; valid is empty where no pair could be spared."""
        return PreferenceSplit(self._store, name)


def prepare_conversations(
    files: Sequence[Path],
    folder: Path,
    chat: ChatFormat,
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    valid_fraction: float = 0.05,
    loss: str = "answers",
    format: str = "auto",
    evaluation_sets: Sequence[Path] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> PreparedConversations:
    """The conversations of `files` in a folder inside `folder`, made now or, where it is whole, opened.

    The folder's name depends on the files (their sizes and times too), the tokenizer, the template and the
    arguments. files: see `conversations.read_items`. valid_fraction: share of the tokens held out, 0 to 0.5;
    conversations with the same first question are in the same part, unless all have the same.
    evaluation_sets: files, or folders of them, whose items no conversation may repeat. seed: of the choice of
    the held-out part. Memory: some 60 bytes a conversation.
    Raises E_CONFIG, E_DATA_EMPTY where nothing is left, and what `read_items`, `read_evaluation_set` and
    `ExampleEncoder.examples` raise.
    """
    preparation = Preparation(
        files, chat, tokenizer, seq_len, valid_fraction, loss, format, evaluation_sets, seed
    )
    return _open_or_write(preparation, folder, "conversations", PreparedConversations.open, progress)


def prepare_preferences(
    files: Sequence[Path],
    folder: Path,
    chat: ChatFormat,
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    valid_fraction: float = 0.05,
    format: str = "auto",
    evaluation_sets: Sequence[Path] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> PreparedPreferences:
    """The pairs of answers of `files`, as `prepare_conversations` makes conversations of them.

    Where a pair is too long, both of its examples lose the same turns.
    """
    preparation = Preparation(
        files, chat, tokenizer, seq_len, valid_fraction, "answers", format, evaluation_sets, seed, PREFERENCES
    )
    return _open_or_write(preparation, folder, "preferences", PreparedPreferences.open, progress)


def _open_or_write(
    preparation: Preparation,
    folder: Path,
    name: str,
    open_: Callable[[Path, bool], _Opened],
    progress: Progress | None,
) -> _Opened:
    """What is in the folder for these arguments; a damaged one is made again."""
    target = folder / f"{name}-{preparation.digest()[:16]}"
    if target.exists():
        try:
            return open_(target, True)
        except SlmError as error:
            if error.exit_code is not Exit.CORRUPT and error.code != "E_NOT_FOUND":
                raise
            shutil.rmtree(target, ignore_errors=True)
    preparation.write(target, progress)
    return open_(target, False)
