"""What a preference tuning trains: pairs of answers, by the trainer of pre-training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.chat.tuned import tuning_format
from ptbr_slm.data.index import SplitName
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import number
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.events import Listener, StepEvent
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.shards import gather
from ptbr_slm.train.parallel.world import Ranks
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.spec import TrainingData
from ptbr_slm.tune.config import TuneConfig
from ptbr_slm.tune.events import PairsRead, PreferenceMeasured
from ptbr_slm.tune.examples import Example
from ptbr_slm.tune.packing import held_out
from ptbr_slm.tune.preference import DPO, Floats, PairBatches, Pairs
from ptbr_slm.tune.prepared import PreparedPreferences, prepare_preferences
from ptbr_slm.tune.reference import measure_rows, stored_reference
from ptbr_slm.tune.spec import TunedData, TuneSpec
from ptbr_slm.tune.watch import Answers, check_chosen, measured, prompts_of, write_answers


class PreferenceData(TunedData):
    """Prepared pairs and what they are worth to the reference: a `TrainingData`."""

    def __init__(
        self,
        prepared: PreparedPreferences,
        reference: Mapping[SplitName, Floats],
        chat: ChatFormat,
        model: ModelFolder,
    ) -> None:
        """model: the reference."""
        super().__init__(prepared.folder, prepared.index, chat, model)
        self.prepared, self.reference = prepared, reference
        self.train_tokens = prepared.split("train").tokens

    @property
    def sha256(self) -> str:
        """As `TrainingData.sha256`: of the pairs and of the reference model."""
        return hashlib.sha256(f"{self.prepared.sha256} {self.model.sha256}".encode()).hexdigest()

    def check_enough(self, config: TrainConfig) -> None:
        """As `TrainingData.check_enough`: one pair is enough."""

    def batches(self, config: TrainConfig) -> PairBatches:
        """As `TrainingData.batches`."""
        return self.pairs("train", config)

    def rows(self, config: TuneConfig) -> int:
        """As `TunedData.rows`."""
        return self.batches(config).rows

    def pairs(self, split: SplitName, config: TrainConfig) -> PairBatches:
        """A split, packed."""
        assert isinstance(config, TuneConfig)
        key = (split, config.seq_len, config.seed)
        if key not in self._packings:
            self._packings[key] = PairBatches(
                self.prepared.split(split),
                self.reference[split],
                DPO(config.tune.beta, config.tune.nll_weight),
                seq_len=config.seq_len,
                seed=config.seed,
                pad_id=self.pad_id,
            )
        return self._packings[key]

    def held_out(self, config: TrainConfig) -> HeldOut | None:
        """As `TrainingData.held_out`: bits per byte of the chosen answers."""
        return held_out(
            _Chosen(self.prepared.split("valid"), self.prepared.sha256),
            self.tokenizer,
            config.seq_len,
            config.evaluation.tokens,
            name=str(self.folder),
            pad_id=self.pad_id,
        )

    @cached_property
    def _packings(self) -> dict[tuple[SplitName, int, int], PairBatches]:
        return {}


class _Chosen:
    """The chosen answers of a split as examples."""

    def __init__(self, pairs: Pairs, sha256: str) -> None:
        """sha256: of the pairs."""
        self._pairs, self.sha256 = pairs, sha256

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(pairs,) ids of each."""
        return self._pairs.lengths[:, 0]

    def example(self, number: int) -> Example:
        """That of pair `number`."""
        return self._pairs.pair(number)[0]


class PreferenceSpec(TuneSpec):
    """Direct preference optimization, against the model as it was."""

    watched = PreferenceMeasured

    def open_data(self, config: TrainConfig, listener: Listener) -> PreferenceData:
        """Read config.data, whose pairs are encoded and measured once and kept in the run's folder."""
        assert isinstance(config, TuneConfig) and config.init_from is not None
        model, folder, options = ModelFolder.open(config.init_from), config.output / "data", config.tune
        chat = tuning_format(model)
        prepared = prepare_preferences(
            [config.data],
            folder,
            chat,
            model.tokenizer,
            seq_len=config.seq_len // 2,  # both answers of a pair stand in one row
            valid_fraction=options.valid_fraction,
            format=options.format,
            evaluation_sets=[Path(path) for path in options.evaluation_sets],
            seed=config.seed,
            progress=lambda now: listener.progress(0.0, f"lendo os pares: {number(now.conversations)}"),
        )
        reference = stored_reference(
            prepared,
            model,
            folder,
            config,
            lambda done: listener.progress(0.0, f"medindo a referência: {number(100 * done, 0)} %"),
        )
        listener.event(_read(prepared))
        return PreferenceData(prepared, reference, chat, model)

    def watch(
        self,
        parallel: Parallel,
        plan: Plan,
        data: TrainingData,
        step: int,
        batch_size: int,
        ranks: Ranks,
    ) -> PreferenceMeasured | None:
        """As `TrainSpec.watch`, on the held-out pairs."""
        config = plan.config
        assert isinstance(config, TuneConfig) and isinstance(data, PreferenceData)
        split = data.prepared.split("valid")
        if not split.pairs:
            return None
        source = data.pairs("valid", config)
        wanted = min(source.rows, max(1, config.evaluation.tokens // config.seq_len))
        rows = (np.arange(wanted) * source.rows // wanted).tolist()
        numbers, found = measure_rows(parallel, source, rows, batch_size, plan.precision, ranks)
        tokens = np.array([[example.targets for example in split.pair(number)] for number in numbers])
        answers = self._answers(parallel, data, config, ranks)
        return measured(step, found, data.reference["valid"][numbers], tokens, answers)

    def check(self, event: StepEvent, plan: Plan) -> None:
        """As `TrainSpec.check`. Raises E_TRAINING_DIVERGED where the chosen answers fell too far."""
        assert isinstance(event, PreferenceMeasured) and isinstance(plan.config, TuneConfig)
        check_chosen(event, plan.config.tune.max_chosen_drop)

    def _answers(
        self, parallel: Parallel, data: PreferenceData, config: TuneConfig, ranks: Ranks
    ) -> Answers | None:
        """What the model writes to held-out prompts: the main rank's work; None on the others."""
        if not config.tune.watched_answers:
            return None
        model = gather(parallel.model, ranks)
        if not ranks.main:
            return None
        prompts, longest = prompts_of(data.prepared.split("valid"), config.tune.watched_answers)
        return write_answers(model, prompts, 2 * longest, config.seed)


def _read(prepared: PreparedPreferences) -> PairsRead:
    """The event of this folder."""
    train = prepared.split("train")
    return PairsRead(
        pairs=train.pairs,
        held_out=prepared.split("valid").pairs,
        tokens=train.tokens,
        target_tokens=train.target_tokens,
        skipped=prepared.skipped,
        folder=str(prepared.folder),
    )
