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
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.teacher_logits import TeacherLogits
from ptbr_slm.eval.bits import HeldOut, held_out_windows
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import BatchSource, TextBatches
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.distill import DistilledBatches
from ptbr_slm.train.events import Listener, StepEvent, Warned
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import Ranks
from ptbr_slm.train.planning.plan import Plan, check_enough_text, make_plan
from ptbr_slm.train.state import TrainState


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

    def __init__(self, prepared: PreparedData, teacher: TeacherLogits | None = None) -> None:
        """Raises E_TOKENIZER_MISMATCH or E_DATA_CORRUPT where the predictions are not of these data."""
        if teacher is not None:
            teacher.check_data(prepared)
        self.prepared, self.teacher = prepared, teacher
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


class TrainSpec:
    """Pre-training: a new model, or `init_from`, learns to continue prepared text."""

    watched: ClassVar[type[StepEvent] | None] = None
    """What `watch` makes, before the first step and at every evaluation; None: nothing."""
    evaluates_start: ClassVar[bool] = False
    """Whether a run with evaluations begins with one, of the model that it begins from."""
    keeps_base: ClassVar[bool] = False
    """Whether a run goes on only beside the model that it began from (`TrainState.base_sha256`)."""

    def open_data(self, config: TrainConfig, listener: Listener) -> TrainingData:
        """Open config.data, which is prepared first where it is text. Raises what `open_or_prepare` does."""
        cache = config.output / "data"
        data = open_or_prepare(
            config.data,
            config.tokenizer,
            cache,
            progress=lambda now: listener.progress(0.0, f"preparando os dados: {now.tokens} tokens"),
        )
        if data.folder.parent == cache and data.index.dropped:  # prepared here, and not reported yet
            message = f"ficou de fora dos dados: {describe_dropped(data.index.dropped)}."
            listener.event(Warned(code="left_out", message=message))
        stored = config.distill.logits
        return TextData(data, None if stored is None else TeacherLogits.open(stored))

    def plan(self, config: TrainConfig, data: TrainingData, ranks: int, source: ModelFolder | None) -> Plan:
        """Decide the run, as `make_plan`. source: the model that it begins from."""
        config = replace(config, data=data.folder.resolve())
        if config.distill.logits is not None:
            config = replace(config, loss="chunked")  # as `Llama.loss_sum` makes it
        return make_plan(config, data.tokenizer, ranks, source=source)

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
        teacher = data.teacher if isinstance(data, TextData) else None
        if teacher is None:
            return {}
        facts, settings = teacher.facts, plan.config.distill
        return {
            "distilled_from": {
                "teacher": facts.teacher,
                "teacher_sha256": facts.teacher_sha256,
                "top_k": facts.top_k,
                "weight": settings.weight,
                "temperature": settings.temperature,
            }
        }

    def companions(self, source: ModelFolder) -> dict[str, bytes]:
        """Files beside the weights that a model made from `source` keeps (`write_model_files`)."""
        return source.companions
