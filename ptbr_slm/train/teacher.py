"""A teacher reads prepared text once and writes down what it expects after each token.

The student then learns from the file (`train.distill`), as often and with as many ranks as it wants, and the
teacher's time and memory are spent once. The format is in `ptbr_slm.data.teacher_logits`.

The text is read in blocks: each is read with a quarter of the context before it, which is not written, so
that no prediction knows less than that (but for the first ones of the text). Documents do not see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptbr_slm.data import teacher_logits as store
from ptbr_slm.data.prepared import PreparedData, Split
from ptbr_slm.data.teacher_logits import LEAST, Records, TeacherFacts, TeacherLogits
from ptbr_slm.errors import SlmError
from ptbr_slm.loss_chunks import chunk_rows
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.output import make_folder
from ptbr_slm.train.config import seq_len_too_long
from ptbr_slm.train.planning.devices import choose_device
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.step import autocast, is_out_of_memory

TOP_K = 32
"""Tokens that are kept of each prediction."""
BATCH_SIZE = 8
"""Sequences that the teacher reads at once."""


def write_teacher_logits(
    teacher: Path,
    data: Path,
    output: Path,
    *,
    top_k: int = TOP_K,
    context: int | None = None,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    progress: Callable[[int], None] = lambda tokens: None,
) -> TeacherLogits:
    """Write the predictions of a model folder for the training part of prepared data; or go on with them.

    What is finished already is only opened. context: tokens that the teacher reads at once, by default all
    that it can. progress: called with the tokens that are done.
    Raises E_TOKENIZER_MISMATCH where the teacher has another tokenizer, E_SEQ_LEN for a context longer than
    its own, E_CONFIG, E_EXISTS, E_MEMORY, and what `ModelFolder.open` and `PreparedData.open` raise.
    """
    folder, prepared = ModelFolder.open(teacher), PreparedData.open(data)
    store.check_same_tokenizer(folder.tokenizer.sha256, prepared, folder.path)
    facts = _facts(folder, prepared, top_k, context)
    make_folder(output)
    missing = store.begin(output, facts)
    done = facts.tokens - sum(stop - start for _, start, stop in missing)
    progress(done)
    if missing:
        keep_freed_memory()
        reader = _Reader(folder, prepared.split("train"), facts, batch_size, device)
        for name, start, stop in missing:
            offset = done - start
            records = reader.records(start, stop, lambda record: progress(record + offset))  # noqa: B023
            store.write_records(output, name, records)
            done += stop - start
    return store.finish(output)


def _facts(folder: ModelFolder, prepared: PreparedData, top_k: int, context: int | None) -> TeacherFacts:
    """What will be written. Raises E_CONFIG, E_SEQ_LEN or E_DATA_EMPTY."""
    most, vocabulary = folder.config.max_seq_len, folder.tokenizer.vocab_size
    context = context or most
    if context > most:
        raise seq_len_too_long(context, most, new_run=False)
    if not 1 <= top_k < vocabulary:
        raise SlmError(
            "E_CONFIG",
            f"o número de tokens guardados vai de 1 a {vocabulary - 1}, e não {top_k}.",
            where="--top-k",
            hint=f"O usual é {TOP_K}.",
        )
    tokens = prepared.split("train").tokens
    if not tokens:
        raise SlmError(
            "E_DATA_EMPTY",
            "os dados não têm texto de treino.",
            where=prepared.folder,
            hint="Confira com:  ptbr-slm data stats DADOS",
        )
    step = _step(context)
    return TeacherFacts(
        teacher=folder.path.resolve().name,
        teacher_sha256=folder.sha256,
        data_sha256=prepared.sha256,
        tokenizer_sha256=prepared.tokenizer_sha256,
        vocab_size=vocabulary,
        tokens=tokens,
        top_k=top_k,
        context=context,
        shard_records=step * max(1, store.SHARD_RECORDS // step),
    )


def _step(context: int) -> int:
    """Predictions that a block gives."""
    return max(1, context - context // 4)


class _Reader:
    """The teacher on its device, and the text."""

    def __init__(
        self, folder: ModelFolder, split: Split, facts: TeacherFacts, batch_size: int, device: str
    ) -> None:
        self.split, self.facts, self.batch_size = split, facts, batch_size
        self.device, capability, _ = choose_device(device)
        self.precision = choose_precision(self.device.type, capability)
        self.model = Llama(folder.config).load_hf_weights(folder.weights.read).to(self.device).eval()

    @torch.no_grad()
    def records(self, start: int, stop: int, progress: Callable[[int], None]) -> Records:
        """(stop - start,) records; `start` is where a block begins.

        progress: called with the record that is next. Raises E_MEMORY.
        """
        records = np.empty(stop - start, self.facts.dtype)
        step = _step(self.facts.context)
        blocks = [(low, min(low + step, stop)) for low in range(start, stop, step)]
        for first in range(0, len(blocks), self.batch_size):
            some = blocks[first : first + self.batch_size]
            part = records[some[0][0] - start : some[-1][1] - start]
            try:
                self._fill(part, some)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise SlmError(
                    "E_MEMORY",
                    f"a memória não foi suficiente para o professor ler {len(some)} sequências por vez.",
                    where=str(error).splitlines()[0][:160],
                    hint="Leia menos por vez, com --batch-size 1, ou um contexto menor, com --context N.",
                ) from error
            progress(some[-1][1])
        return records

    def _fill(self, part: Records, blocks: Sequence[tuple[int, int]]) -> None:
        """part: the records of these blocks, [low, high) each, end to end."""
        before = self.facts.context // 4
        begins = [max(0, low - before) for low, _ in blocks]
        length = max(high - begin for begin, (_, high) in zip(begins, blocks, strict=True))
        tokens = np.zeros((len(blocks), length), np.int64)  # (B, T); what is behind a block's end is not read
        documents = np.full((len(blocks), length), -1, np.int32)
        wanted = np.zeros((len(blocks), length), bool)
        for row, (begin, (low, high)) in enumerate(zip(begins, blocks, strict=True)):
            tokens[row, : high - begin] = self.split.read(begin, high)
            documents[row, : high - begin] = self.split.document_ids(np.array([begin]), high - begin)[0]
            wanted[row, low - begin : high - begin] = True
        part["log_probabilities"], part["ids"] = self._predictions(tokens, documents, wanted)

    def _predictions(
        self, tokens: npt.NDArray[np.int64], documents: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """(n, k + 1) log-probabilities and (n, k) ids of the n wanted positions of tokens (B, T)."""
        several = ((documents != documents[:, :1]) & (documents >= 0)).any()
        masked = torch.from_numpy(documents).to(self.device) if several else None
        with autocast(self.device, self.precision):
            hidden = self.model.hidden(torch.from_numpy(tokens).to(self.device), document_ids=masked)
            hidden = hidden[torch.from_numpy(wanted).to(self.device)]  # (n, C)
            rows = chunk_rows(len(hidden), self.facts.vocab_size, self.device.type)
            parts = [self._best(self.model.head(piece).float()) for piece in torch.split(hidden, rows)]
        log_probabilities, ids = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        return log_probabilities, ids

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits: (R, V) -> (R, k + 1) log-probabilities, (R, k) ids."""
        logits = logits[:, : self.facts.vocab_size]  # rows of the embedding without a token are no prediction
        total = logits.logsumexp(-1, keepdim=True)
        best, ids = logits.topk(self.facts.top_k)
        rest = logits.scatter_(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        return (torch.cat((best, rest), -1) - total).clamp_(LEAST, 0.0), ids
