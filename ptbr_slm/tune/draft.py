"""Trains the draft layer of a finished model, which stays as it is (see `ptbr_slm.draft_layer`).

The frozen model reads prepared text; at each position the layer is given the model's state there and the
text's next token, and learns the model's own distribution of the token after that one, among the tokens that
it can guess. It learns the model, not the text: a guess is right where it is what the model would choose.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptbr_slm.data.pipeline import open_or_prepare
from ptbr_slm.data.prepared import PreparedData, Split, is_prepared
from ptbr_slm.draft_layer import DraftLayer
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.draft_folder import DraftConfig, require_replaceable_draft, write_draft
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import quoted
from ptbr_slm.train.planning.devices import choose_device
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.step import autocast

TOKENS_PER_STEP = 4096
SEQ_LEN = 512
"""Tokens of a window, at most."""
LEARNING_RATE = 2e-3
WARMUP_STEPS = 10
COOLDOWN = 0.5
"""Last part of the training, in which the rate falls to zero in a line."""
COVERED, MOST_TOKENS = 0.9, 4096
"""Of the data's tokens, what a layer can guess by default, and its largest head then."""
HELD_OUT_TOKENS = 16_384
"""On which the acceptance is measured, at most."""
_COUNT_BLOCK, _COUNT_BLOCKS = 1 << 20, 64
"""Tokens of a block, and blocks, spread over the data, in which the tokens' frequencies are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftSettings:
    """How a draft layer is trained."""

    minutes: float = 5.0
    """Of training; `max_steps` in its place gives the same layer on the same machine."""
    max_steps: int | None = None
    head_tokens: int | None = None
    """The likeliest tokens of the data, which it can guess; fewer cost less time a guess. By default those
    that are 90 % of the data, at most 4,096: what covers less costs guesses, what covers more brings none
    (docs/decisions/0113-draft-layer.md)."""
    intermediate_size: int | None = None
    """Of its feed-forward; by default the model's hidden size."""
    seed: int = 0
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftReport:
    """What was trained."""

    folder: Path
    parameters: int
    steps: int
    tokens: int
    """Of text that the model read for it."""
    seconds: float
    acceptance: float
    """Part of the guesses that were the model's own greedy choice, on text held out."""
    held_out: int
    """Guesses that it was measured on."""
    head_tokens: int
    """Tokens that it can guess."""
    coverage: float
    """Part of the data's tokens that are among those."""


def train_draft(
    source: Path | ModelFolder,
    data: Path,
    output: Path,
    settings: DraftSettings | None = None,
    *,
    progress: Callable[[float, str], None] = lambda done, status: None,
) -> DraftReport:
    """Train the draft layer of a model folder and write it to `output`, replacing an earlier one.

    data: prepared with the model's tokenizer, or texts. progress: told what part is done, and the loss.
    Raises E_TOKENIZER_MISMATCH for data of another tokenizer, E_DATA_TOO_SMALL, E_EXISTS where `output` is
    something else, E_TRAINING_DIVERGED, and what `ModelFolder` and `PreparedData.open` raise.
    """
    settings = settings or DraftSettings()
    folder = ModelFolder.of(source)
    folder.check()
    require_replaceable_draft(output)
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-draft-") as cache:
        prepared = _open(data, folder, Path(cache))
        keep_freed_memory()
        trainer = _DraftTrainer(folder, prepared, settings)
        trainer.train(progress)
        acceptance, held_out = trainer.acceptance()
        facts = {"acceptance": acceptance, "held_out": held_out, "steps": trainer.steps,
                 "tokens": trainer.steps * trainer.step_tokens, "coverage": trainer.coverage}  # fmt: skip
        write_draft(
            output,
            trainer.layer.config,
            trainer.layer.to_arrays(),
            trainer.layer.tokens.cpu().numpy(),
            {"model_sha256": folder.sha256, "data": prepared.provenance(), **facts},
        )
    return DraftReport(
        folder=output,
        parameters=trainer.layer.config.num_parameters,
        head_tokens=trainer.layer.config.head_tokens,
        seconds=trainer.seconds,
        **facts,  # type: ignore[arg-type]
    )


def _open(data: Path, model: ModelFolder, cache: Path) -> PreparedData:
    """The data, made with the model's tokenizer. Raises E_TOKENIZER_MISMATCH."""
    prepared = open_or_prepare(data, None if is_prepared(data) else model.path / "tokenizer.json", cache)
    if prepared.tokenizer_sha256 != model.tokenizer.sha256:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"o tokenizador do modelo ({model.tokenizer.sha256[:12]}) não é o dos dados "
            f"({prepared.tokenizer_sha256[:12]}).",
            where=data,
            hint=f"Prepare-os com o do modelo:  ptbr-slm data prepare TEXTOS -o PASTA --tokenizer "
            f"{quoted(model.path / 'tokenizer.json')}",
        )
    return prepared


class _DraftTrainer:
    """The frozen model, the layer, and the windows that both read."""

    def __init__(self, folder: ModelFolder, data: PreparedData, settings: DraftSettings) -> None:
        self.settings = settings
        self.device, capability, _ = choose_device(settings.device)
        self._precision = choose_precision(self.device.type, capability)
        config = folder.config
        seq_len = min(SEQ_LEN, config.max_seq_len)
        self._windows = _Windows(data, seq_len, settings.seed)
        self.step_tokens = max(1, TOKENS_PER_STEP // seq_len) * seq_len
        tokens, self.coverage = likeliest_tokens(data.split("train"), config.vocab_size, settings.head_tokens)
        model = Llama(config).load_hf_weights(folder.weights.read)
        self._model = model.to(self.device).eval().requires_grad_(False)
        shape = DraftConfig(
            hidden_size=config.hidden_size,
            intermediate_size=settings.intermediate_size or config.hidden_size,
            head_tokens=len(tokens),
            vocab_size=config.vocab_size,
            norm_eps=config.norm_eps,
        )
        self.layer = DraftLayer(shape, tokens).initialize(model.head.weight.cpu(), settings.seed)
        self.layer.to(self.device).train()
        self.steps = 0
        self.seconds = 0.0

    def train(self, progress: Callable[[float, str], None]) -> None:
        """Run the steps. Raises E_TRAINING_DIVERGED."""
        optimizer = torch.optim.AdamW(self.layer.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
        began = time.monotonic()
        for batch in self._windows.batches(self.step_tokens, self.device):
            self.seconds = time.monotonic() - began
            done = self._done()
            if done >= 1:
                return
            warm = min(1.0, (self.steps + 1) / WARMUP_STEPS)
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm * min(1.0, (1 - done) / COOLDOWN)
            loss = self._loss(batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.layer.parameters(), 1.0)
            optimizer.step()
            self.steps += 1
            value = float(loss.detach())
            if not math.isfinite(value):
                raise SlmError(
                    "E_TRAINING_DIVERGED",
                    "a perda da camada de rascunho deixou de ser um número.",
                    where=f"passo {self.steps}",
                    hint="Confira se o modelo gera texto:  ptbr-slm generate -m MODELO",
                )
            progress(done, f"passo {self.steps} · perda {value:.3f}".replace(".", ","))

    def _done(self) -> float:
        """What part of the training lies behind."""
        if self.settings.max_steps is not None:
            return self.steps / self.settings.max_steps
        return self.seconds / (60 * self.settings.minutes)

    def _loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy in nats against the model's own distribution; tokens (B, T)."""
        states = self._states(tokens)
        scores = self.layer(states[:, :-1], self._model.embed(tokens[:, 1:]))  # (B, T - 1, K)
        with torch.no_grad():
            wanted = (states[:, 1:] @ self._model.head.weight[self.layer.tokens].T).softmax(-1)
        loss: Tensor = -(wanted * scores.log_softmax(-1)).sum(-1).mean()
        return loss

    @torch.no_grad()
    def acceptance(self) -> tuple[float, int]:
        """Part of the guesses on held-out text that are the model's greedy choice, and how many they were."""
        self.layer.eval()
        right = total = 0
        for tokens in self._windows.held_out(self.step_tokens, self.device):
            states = self._states(tokens)
            scores = self.layer(states[:, :-1], self._model.embed(tokens[:, 1:]))
            chosen = self._model.logits(states[:, 1:]).argmax(-1)  # (B, T - 1)
            right += int((self.layer.tokens[scores.argmax(-1)] == chosen).sum())
            total += chosen.numel()
        return right / total, total

    @torch.no_grad()
    def _states(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, C) of the frozen model, fp32."""
        with autocast(self.device, self._precision):
            return self._model.hidden(tokens).float()


class _Windows:
    """The data in windows of `seq_len` tokens, in an order that the seed gives; some are held out."""

    def __init__(self, data: PreparedData, seq_len: int, seed: int) -> None:
        """Raises E_DATA_TOO_SMALL."""
        self._seq_len = seq_len
        self._train, valid = data.split("train"), data.split("valid")
        starts = _starts(self._train, seq_len)
        self._held, held = valid, _starts(valid, seq_len)
        if not len(starts) or len(starts) + len(held) < 2:
            raise SlmError(
                "E_DATA_TOO_SMALL",
                f"os dados têm menos de duas sequências de {seq_len} tokens.",
                where=data.folder,
                hint="Prepare mais texto: alguns megabytes bastam.",
            )
        if not len(held):  # nothing was held out: the end of the text is
            self._held, held = self._train, starts[-max(1, len(starts) // 20) :]
            starts = starts[: -len(held)]
        self._starts = np.random.default_rng(seed).permutation(starts)
        self._held_starts = held[: max(1, HELD_OUT_TOKENS // seq_len)]

    def batches(self, tokens: int, device: torch.device) -> Iterator[Tensor]:
        """Batches (B, T) of about `tokens`, as many passes over the data as are asked for."""
        rows = max(1, tokens // self._seq_len)
        at = 0
        while True:
            chosen = [int(self._starts[(at + row) % len(self._starts)]) for row in range(rows)]
            at += rows
            yield self._read(self._train, chosen, device)

    def held_out(self, tokens: int, device: torch.device) -> Iterator[Tensor]:
        """The held-out windows, (B, T) at a time."""
        rows = max(1, tokens // self._seq_len)
        for first in range(0, len(self._held_starts), rows):
            yield self._read(self._held, self._held_starts[first : first + rows].tolist(), device)

    def _read(self, split: Split, starts: list[int], device: torch.device) -> Tensor:
        rows = [split.read(start, start + self._seq_len) for start in starts]
        return torch.from_numpy(np.stack(rows)).to(device)


def _starts(split: Split, seq_len: int) -> npt.NDArray[np.int64]:
    """Where the whole windows of a split begin."""
    return np.arange(split.tokens // seq_len, dtype=np.int64) * seq_len


def likeliest_tokens(split: Split, vocab_size: int, most: int | None) -> tuple[npt.NDArray[np.int64], float]:
    """The `most` ids that occur most often, rising, and what part of all tokens they are.

    most: None for as many as are `COVERED` of the tokens, up to `MOST_TOKENS`. Counted in blocks that are
    spread over the split: 64 million tokens at most.
    """
    blocks = -(-split.tokens // _COUNT_BLOCK)
    counts = np.zeros(vocab_size, dtype=np.int64)
    for block in sorted({round(i * (blocks - 1) / (_COUNT_BLOCKS - 1)) for i in range(_COUNT_BLOCKS)}):
        start = block * _COUNT_BLOCK
        counts += np.bincount(
            split.read(start, min(start + _COUNT_BLOCK, split.tokens)), minlength=vocab_size
        )
    order = np.argsort(-counts, kind="stable")
    if most is None:
        enough = 1 + int(np.searchsorted(np.cumsum(counts[order]), COVERED * counts.sum()))
        most = min(enough, MOST_TOKENS)
    order = order[: min(most, vocab_size)]
    return np.sort(order), float(counts[order].sum() / max(1, counts.sum()))
