"""Reads, checks, encodes and splits the items of files, once, into a folder of examples (`tune.store`)."""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.data.decontamination.evaluation_sets import FORMATS as SET_FORMATS
from ptbr_slm.data.decontamination.evaluation_sets import read_evaluation_set
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.duplicates.exact import SeenTexts, fingerprint, split_keys
from ptbr_slm.data.hold_out import MIN_CUT_BYTES, choose_hold_out
from ptbr_slm.data.read.files import ROW_FORMATS, InputFile, list_files
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tune.conversations import (
    Conversation,
    Item,
    PlainText,
    Preference,
    Unusable,
    describe_skipped,
    read_items,
)
from ptbr_slm.tune.examples import LOSSES, ExampleEncoder
from ptbr_slm.tune.store import SCHEMA, StoreIndex, StoreWriter, write_index

CONVERSATIONS, PREFERENCES = "prepared-conversations", "prepared-preferences"
"""The kinds of folders, as their indices name them."""
_PROGRESS_EVERY = 500
"""Items between two calls of `progress`."""


@dataclass(frozen=True, slots=True)
class ConversationsProgress:
    """How far the preparation is."""

    input_bytes: int
    """Of the files read so far, compressed ones as they are on disk."""
    conversations: int
    """Kept so far."""
    tokens: int


Progress = Callable[[ConversationsProgress], None]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is to be prepared, and how."""

    files: Sequence[Path]
    chat: ChatFormat
    tokenizer: Tokenizer
    seq_len: int
    valid_fraction: float
    loss: str
    format: str
    evaluation_sets: Sequence[Path]
    seed: int
    kind: str = CONVERSATIONS
    """`CONVERSATIONS` or `PREFERENCES`."""

    def __post_init__(self) -> None:
        """Raises E_CONFIG."""
        if not 0 <= self.valid_fraction <= 0.5:
            raise SlmError(
                "E_CONFIG",
                f"a fração de validação deve estar entre 0 e 0,5, e não {self.valid_fraction}.",
                where="valid_fraction",
                hint="Use 0.05.",
            )
        if self.loss not in LOSSES:
            raise SlmError(
                "E_CONFIG",
                f"não existe a perda {self.loss!r}.",
                where="loss",
                hint="Use answers (só as respostas) ou all (tudo).",
            )

    def digest(self) -> str:
        """What the folder's content depends on: the files as they are now, and every argument."""
        found = list(list_files(self.files, ROW_FORMATS))
        sets = [(str(path.absolute()), *_stamp(path)) for path in _set_files(self.evaluation_sets)]
        stamps = [(file.name, *_stamp(file.path)) for file in found if isinstance(file, InputFile)]
        arguments = [self.seq_len, self.valid_fraction, self.loss, self.format, self.seed, self.kind]
        body = [SCHEMA, self.tokenizer.sha256, self.chat.sha256, arguments, stamps, sets]
        return hashlib.sha256(json.dumps(body).encode("utf-8", "surrogatepass")).hexdigest()

    def write(self, target: Path, progress: Progress | None) -> None:
        """Make the folder, atomically."""
        counts, keys = DocumentCounts(), array("d")
        encoder = ExampleEncoder(self.chat, self.tokenizer, seq_len=self.seq_len, loss=self.loss)
        first = ""
        with (
            os_errors(target),
            atomic_folder(target) as new,
            StoreWriter(new, self.tokenizer) as writer,
        ):
            for item, key in self._distinct(counts):
                try:
                    examples = encoder.examples(item)
                except Unusable as error:
                    counts.drop(error.reason, item.where)
                    continue
                first = first or item.where
                if isinstance(item, PlainText):
                    for example in examples:
                        writer.add(example)
                else:
                    writer.add(*examples)
                keys.extend([key] * (writer.items - len(keys)))
                if progress is not None and writer.items % _PROGRESS_EVERY == 0:
                    progress(ConversationsProgress(counts.input_bytes, writer.items, writer.tokens))
            if not writer.items:
                raise _nothing_left(self.files, counts, self.seq_len)
            held_out = self._held_out(np.frombuffer(keys, np.float64), writer.item_tokens)
            store, splits = writer.finish(held_out)
            if progress is not None:
                progress(ConversationsProgress(counts.input_bytes, writer.items, writer.tokens))
            index = StoreIndex(
                kind=self.kind,
                dtype=writer.dtype.name,
                vocab_size=self.tokenizer.vocab_size,
                tokenizer_sha256=self.tokenizer.sha256,
                template_sha256=self.chat.sha256,
                loss=self.loss,
                seq_len=self.seq_len,
                store=store,
                splits=splits,
                skipped=dict(counts.dropped),
                skipped_examples=dict(counts.examples),
                shortened=encoder.shortened,
                first=first,
            )
            write_index(new, index)

    def _distinct(self, counts: DocumentCounts) -> Iterator[tuple[Item, float]]:
        """(item, its split key) without copies and without what repeats an evaluation set."""
        seen, forbidden = SeenTexts(), None
        if self.evaluation_sets:
            sets = _set_files(self.evaluation_sets)
            forbidden = EvaluationIndex(item for path in sets for item in read_evaluation_set(path))
        pairs = self.kind == PREFERENCES
        for item in read_items(self.files, format=self.format, pairs=pairs, counts=counts):
            if isinstance(item, Preference) != pairs:
                raise _other_kind(item)
            parts = _texts(item)
            identity, _ = fingerprint(json.dumps(parts, ensure_ascii=False), 0)
            if not seen.add(identity):
                counts.drop("duplicate", item.where)
            elif forbidden is not None and forbidden.search("\n\n".join(text for _, text in parts)):
                counts.drop("contaminated", item.where)
            else:
                question = next((text for role, text in parts if role != "system"))
                yield item, fingerprint(question, self.seed)[1]

    def _held_out(
        self, keys: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """(items,) whether each is in the validation part."""
        sizes = np.minimum(tokens, MIN_CUT_BYTES - 1)  # no conversation is cut in two
        if len(keys) and (keys == keys[0]).all():  # one question for all of them
            keys = split_keys(np.arange(len(keys), dtype=np.uint64))
        return choose_hold_out(keys, sizes, self.valid_fraction).held_out(keys)


def _texts(item: Item) -> list[tuple[str, str]]:
    """(role, text) of everything in an item, in order."""
    if isinstance(item, PlainText):
        return [("text", item.text)]
    if isinstance(item, Conversation):
        return [(message.role, message.content) for message in item.messages]
    prompt = [(message.role, message.content) for message in item.prompt]
    return [*prompt, ("chosen", item.chosen), ("rejected", item.rejected)]


def _set_files(sets: Sequence[Path]) -> list[Path]:
    """The files of evaluation sets. Raises E_NOT_FOUND for what is missing, and for a folder without any."""
    files: list[Path] = []
    for given in sets:
        below = [given]
        if given.is_dir():
            below = sorted(path for path in given.rglob("*") if path.suffix.lower() in SET_FORMATS)
        if not below or not given.exists():
            raise SlmError(
                "E_NOT_FOUND",
                "não há conjuntos de avaliação aqui.",
                where=given,
                hint=f"Use arquivos {', '.join(SET_FORMATS)}, ou uma pasta com eles.",
            )
        files += below
    return files


def _stamp(path: Path) -> tuple[int, int]:
    """(size, time) of a file; of the standard input or a pipe, what no other reading has."""
    if not path.is_file():
        return os.getpid(), time.time_ns()
    with os_errors(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _other_kind(item: Item) -> SlmError:
    if not isinstance(item, Preference):
        return SlmError(
            "E_DATA_FORMAT",
            "o treino por preferência pede pares de respostas, e aqui há conversas.",
            where=item.where,
            hint="Use linhas com prompt, chosen e rejected.",
        )
    return SlmError(
        "E_DATA_FORMAT",
        "aqui há pares de respostas (chosen e rejected), que servem ao treino por preferência.",
        where=item.where,
        hint="Repita com --objective dpo; para aprender só as escolhidas, use linhas com prompt e "
        "completion.",
    )


def _nothing_left(files: Sequence[Path], counts: DocumentCounts, seq_len: int) -> SlmError:
    reasons = describe_skipped(counts.dropped)
    hint = (
        'Cada linha precisa de mensagens que terminem com a do assistente: {"messages": '
        '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'
    )
    if counts.dropped.get("too_long", 0) > counts.dropped.total() / 2:
        hint = (
            f"Use um --seq-len maior que {seq_len}, se o contexto do modelo deixar, ou respostas mais curtas."
        )
    return SlmError(
        "E_DATA_EMPTY",
        f"nenhuma conversa aproveitável ({reasons or 'nenhum arquivo de conversas'}).",
        where=", ".join(map(str, files)),
        hint=hint,
    )
