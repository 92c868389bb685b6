"""What a run trains: its data and its model. `TrainSpec` is pre-training; a subclass trains something else.

`train.run` and `train.find_lr` ask a spec for the parts below; the trainer, the loop, the guards, the
checkpoints and the report are the same for all.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

from ptbr_slm.data.document import describe_dropped
from ptbr_slm.data.pipeline import open_or_prepare
from ptbr_slm.data.prepared import PreparedData, is_prepared
from ptbr_slm.data.teacher_logits import TeacherLogits
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import HeldOut, held_out_windows
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import quoted
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import BatchSource, TextBatches
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.distill import DistilledBatches
from ptbr_slm.train.events import Listener, StepEvent, Warned
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import Ranks
from ptbr_slm.train.planning.plan import Plan, check_enough_text, make_plan
from ptbr_slm.train.state import TrainState
from ptbr_slm.train.streams import DataStreams, Stream


class TrainingData(Protocol):
    """What a run reads, opened and checked."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def sha256(self) -> str:
        """Its identity: a run goes on only with the same."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that it was made with."""

    @property
    def cooldown(self) -> TrainingData | None:
        """What the steps of a cooldown read in its place; None: the same."""

    @property
    def train_tokens(self) -> int:
        """Tokens of the part to train on."""

    def check_enough(self, config: TrainConfig) -> None:
        """Refuse a part to train on that is less than one sequence. Raises E_DATA_TOO_SMALL."""

    def batches(self, config: TrainConfig) -> BatchSource:
        """The part to train on."""

    def held_out(self, config: TrainConfig) -> HeldOut | None:
        """The part that evaluations measure; None where nothing is held out."""

    def held_out_text(self, config: TrainConfig) -> HeldOut | None:
        """Text that evaluations measure too, where `held_out` is none: what the model could do before."""

    def prompt_ids(self, text: str) -> list[int]:
        """The ids that a sample goes on from, for one of `evaluation.prompts`."""


class TextData:
    """Prepared text, with a teacher's predictions of it or without: a `TrainingData`."""

    def __init__(
        self,
        prepared: PreparedData,
        teacher: TeacherLogits | None = None,
        cooldown: TextData | None = None,
    ) -> None:
        """Raises E_TOKENIZER_MISMATCH or E_DATA_CORRUPT where the predictions are not of these data."""
        if teacher is not None:
            teacher.check_data(prepared)
        self.prepared, self.teacher, self.cooldown = prepared, teacher, cooldown
        self.folder = prepared.folder
        self.tokenizer = prepared.load_tokenizer()
        self.train_tokens = prepared.split("train").tokens

    @property
    def sha256(self) -> str:
        """As `TrainingData.sha256`: of the text, and of the teacher's predictions."""
        if self.teacher is None:
            return self.prepared.sha256
        return hashlib.sha256(f"{self.prepared.sha256} {self.teacher.sha256}".encode()).hexdigest()

    def check_enough(self, config: TrainConfig) -> None:
        """As `TrainingData.check_enough`."""
        check_enough_text(config, self.prepared)
        if self.cooldown is not None:
            self.cooldown.check_enough(config)

    def batches(self, config: TrainConfig) -> TextBatches | DistilledBatches:
        """As `TrainingData.batches`."""
        text = TextBatches(
            self.prepared.split("train"),
            seq_len=config.seq_len,
            seed=config.seed,
            document_mask=config.data_options.document_mask,
        )
        return text if self.teacher is None else DistilledBatches(text, self.teacher, config.distill)

    def held_out(self, config: TrainConfig) -> HeldOut | None:
        """As `TrainingData.held_out`."""
        return held_out_windows(
            self.prepared.split("valid"),
            self.tokenizer,
            config.seq_len,
            config.evaluation.tokens,
            data_sha256=self.prepared.sha256,
        )

    def held_out_text(self, config: TrainConfig) -> None:
        """As `TrainingData.held_out_text`: `held_out` is text already."""

    def prompt_ids(self, text: str) -> list[int]:
        """As `TrainingData.prompt_ids`."""
        return self.tokenizer.encode(text)


def data_streams(data: TrainingData, config: TrainConfig) -> DataStreams:
    """The training parts of these data, and of those of a cooldown."""
    own, other = Stream(data.batches(config), data.sha256), data.cooldown
    return DataStreams(own, None if other is None else Stream(other.batches(config), other.sha256))


def _open_text(path: Path, tokenizer: Path | None, cache: Path, listener: Listener) -> PreparedData:
    """As `open_or_prepare`; what preparing leaves out is a warning."""
    data = open_or_prepare(
        path,
        tokenizer,
        cache,
        progress=lambda now: listener.progress(0.0, f"preparando os dados: {now.tokens} tokens"),
    )
    if data.folder.parent == cache and data.index.dropped:  # prepared here, and not reported yet
        message = f"ficou de fora dos dados: {describe_dropped(data.index.dropped)}."
        listener.event(Warned(code="left_out", message=message))
    return data


def _check_cooldown(cooldown: PreparedData, data: PreparedData, asked: Path) -> None:
    """Refuse data for the cooldown that are no other, or of another tokenizer than the run's."""
    if cooldown.tokenizer_sha256 != data.tokenizer_sha256:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"os dados do resfriamento são de outro tokenizador ({cooldown.vocab_size} tokens, sha256 "
            f"{cooldown.tokenizer_sha256[:12]}) que não o do treino ({data.vocab_size} tokens, sha256 "
            f"{data.tokenizer_sha256[:12]}).",
            where=f"--cooldown-data {asked}",
            hint=f"Prepare-os de novo com --tokenizer {quoted(data.folder / 'tokenizer.json')}.",
        )
    if cooldown.sha256 == data.sha256:
        raise SlmError(
            "E_USAGE",
            "os dados do resfriamento são os mesmos do treino.",
            where=f"--cooldown-data {asked}",
            hint="Tire --cooldown-data, ou prepare com ptbr-slm data prepare o texto melhor.",
        )


class TrainSpec:
    """Pre-training: a new model, or `init_from`, learns to continue prepared text."""

    watched: ClassVar[type[StepEvent] | None] = None
    """What `watch` makes, before the first step and at every evaluation; None: nothing."""
    evaluates_start: ClassVar[bool] = False
    """Whether a run with evaluations begins with one, of the model that it begins from."""
    keeps_base: ClassVar[bool] = False
    """Whether a run goes on only beside the model that it began from (`TrainState.base_sha256`)."""

    def open_data(self, config: TrainConfig, listener: Listener) -> TrainingData:
        """Open config.data, which is prepared first where it is text, and config.cooldown_data likewise.

        Raises what `open_or_prepare` does, and E_USAGE where both are the same.
        """
        data = _open_text(config.data, config.tokenizer, config.output / "data", listener)
        stored, asked = config.distill.logits, config.cooldown_data
        cooldown = None
        if asked is not None:
            own = None if is_prepared(asked) else data.folder / "tokenizer.json"
            cooldown = _open_text(asked, own, config.output / "data", listener)
            _check_cooldown(cooldown, data, asked)
        return TextData(
            data,
            None if stored is None else TeacherLogits.open(stored),
            None if cooldown is None else TextData(cooldown),
        )

    def plan(self, config: TrainConfig, data: TrainingData, ranks: int, source: ModelFolder | None) -> Plan:
        """Decide the run, as `make_plan`. source: the model that it begins from."""
        config = replace(config, data=data.folder.resolve())
        if data.cooldown is not None:
            config = replace(config, cooldown_data=data.cooldown.folder.resolve())
        if config.distill.logits is not None:
            config = replace(config, loss="chunked")  # as `Llama.loss_sum` makes it
        return make_plan(config, data.tokenizer, ranks, source=source, train_tokens=data.train_tokens)

    def prepare_model(self, model: Llama, plan: Plan, data: TrainingData) -> None:
        """Change a new model, on the CPU and without weights, before it is moved to its device.

        Where this freezes weights, checkpoints keep the rest beside the whole model, and a resumed run reads
        the frozen ones from `init_from` again.
        """

    def watch(
        self,
        parallel: Parallel,
        plan: Plan,
        data: TrainingData,
        step: int,
        batch_size: int,
        ranks: Ranks,
    ) -> StepEvent | None:
        """Measure what is watched beside the loss; all ranks call it, and the main one's event counts."""
        return None

    def check(self, event: StepEvent, plan: Plan) -> None:
        """Raise an SlmError where this event of `watch`, which is recorded by now, should end the run."""

    def finish(
        self, folder: Path, model: Llama, plan: Plan, data: TrainingData, state: TrainState
    ) -> dict[str, object]:
        """Add to the folder of a finished model, not yet sealed; returns what its manifest should say too.

        model: whole, as it was trained. Only the main rank calls it.
        """
        made: dict[str, object] = {}
        if plan.config.init_from is not None:
            made["init_from"] = plan.config.init_from.name
        if not isinstance(data, TextData):
            return made
        made["data"] = data.prepared.provenance()
        if data.cooldown is not None:
            began = [entry for entry in state.data if entry["sha256"] == data.cooldown.sha256]
            if began:
                made["cooldown_data"] = {
                    **data.cooldown.prepared.provenance(),
                    "from_step": began[-1]["step"],
                }
        if data.teacher is not None:
            facts, settings = data.teacher.facts, plan.config.distill
            made["distilled_from"] = {
                "teacher": facts.teacher,
                "teacher_sha256": facts.teacher_sha256,
                "top_k": facts.top_k,
                "weight": settings.weight,
                "temperature": settings.temperature,
            }
        return made

    def companions(self, source: ModelFolder) -> dict[str, bytes]:
        """Files beside the weights that a model made from `source` keeps (`write_model_files`)."""
        return source.companions
