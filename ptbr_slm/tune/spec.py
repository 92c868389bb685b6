"""What a tuning trains: conversations, by the trainer of pre-training (`ptbr_slm.train.spec`)."""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.chat.messages import Message
from ptbr_slm.chat.tuned import tuned_companions, tuned_config, tuning_format
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError, named_instead
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.output import make_folder
from ptbr_slm.text import number
from ptbr_slm.train.batches import BatchSource
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.events import Listener
from ptbr_slm.train.parallel.environment import ranks_to_start
from ptbr_slm.train.planning.parameters import Adapters
from ptbr_slm.train.planning.plan import DryRun, Plan, make_plan
from ptbr_slm.train.spec import TextData, TrainingData, TrainSpec
from ptbr_slm.train.state import TrainState
from ptbr_slm.tune.adapter_files import write_adapter
from ptbr_slm.tune.card import TuningFacts, card
from ptbr_slm.tune.config import TuneConfig
from ptbr_slm.tune.events import ConversationsRead
from ptbr_slm.tune.lora import LoraConfig, add_adapters
from ptbr_slm.tune.packing import ConversationBatches, held_out
from ptbr_slm.tune.prepared import PreparedConversations, prepare_conversations
from ptbr_slm.tune.replay import WithReplay
from ptbr_slm.tune.store import StoreIndex

ADAPTER = "adapter"
"""The folder of the adapter's own files, in a finished model's."""


class TunedData(ABC):
    """What the data of every tuning has."""

    cooldown = None
    """As `TrainingData.cooldown`."""

    def __init__(self, folder: Path, index: StoreIndex, chat: ChatFormat, model: ModelFolder) -> None:
        """folder, index: of the prepared data. model: the one that is tuned."""
        self.folder, self.index, self.chat, self.model = folder, index, chat, model
        self.tokenizer = model.tokenizer
        self.pad_id = model.config.pad_token_id or 0  # any id: nothing sees it, and it is no target

    @property
    @abstractmethod
    def sha256(self) -> str:
        """As `TrainingData.sha256`."""

    @abstractmethod
    def rows(self, config: TuneConfig) -> int:
        """Sequences of one epoch."""

    def held_out_text(self, config: TrainConfig) -> HeldOut | None:
        """As `TrainingData.held_out_text`: none, where no text was given."""
        return None

    def prompt_ids(self, text: str) -> list[int]:
        """As `TrainingData.prompt_ids`: what the user says."""
        return self.chat.prompt([Message("user", text)])

    def lora(self, config: TuneConfig) -> LoraConfig:
        """What is trained beside frozen weights: adapters, and the rows of the tokens of the template."""
        rows = self.control_tokens
        return LoraConfig(
            rank=config.tune.lora_rank,
            alpha=config.tune.lora_alpha,
            embed_rows=rows,
            head_rows=() if self.model.config.tie_embeddings else rows,
        )

    @cached_property
    def control_tokens(self) -> tuple[int, ...]:
        """The control tokens that the template writes, but for the one that begins every text: pre-training
        has shown the model few of them, or none.
        """
        exchange = (Message("user", "a"), Message("assistant", "b"), Message("user", "a"))
        written = {*self.chat.prompt(exchange), *self.chat.encode(exchange[:2]).ids.tolist()}
        control = {*self.tokenizer.special_ids, *self.chat.end_ids}
        return tuple(sorted((written & control) - {self.model.config.bos_token_id}))


class ConversationData(TunedData):
    """Prepared conversations, with pre-training text among them or without: a `TrainingData`."""

    def __init__(
        self,
        prepared: PreparedConversations,
        chat: ChatFormat,
        model: ModelFolder,
        text: TextData | None,
        share: float,
    ) -> None:
        """text: of the pre-training, to measure. share: of the sequences that are this text."""
        super().__init__(prepared.folder, prepared.index, chat, model)
        self.prepared, self.text, self.share = prepared, text, share
        self.train_tokens = prepared.split("train").tokens

    @property
    def sha256(self) -> str:
        """As `TrainingData.sha256`: of the conversations, and of the text of the replay."""
        if self.text is None or not self.share:
            return self.prepared.sha256
        return hashlib.sha256(f"{self.prepared.sha256} {self.text.sha256}".encode()).hexdigest()

    def check_enough(self, config: TrainConfig) -> None:
        """As `TrainingData.check_enough`: a conversation is enough, and the text was checked before."""

    def batches(self, config: TrainConfig) -> BatchSource:
        """As `TrainingData.batches`."""
        conversations = self.conversations(config)
        if self.text is None or not self.share:
            return conversations
        return WithReplay(conversations, self.text.batches(config), self.share)

    def rows(self, config: TuneConfig) -> int:
        """Sequences in which every conversation is once, those of the replay among them."""
        return max(1, round(self.conversations(config).rows / (1.0 - self.share)))

    def conversations(self, config: TrainConfig) -> ConversationBatches:
        """The conversations alone, packed."""
        return self._packed(config.seq_len, config.seed)

    def held_out(self, config: TrainConfig) -> HeldOut | None:
        """As `TrainingData.held_out`: bits per byte of the answers."""
        return held_out(
            self.prepared.split("valid"),
            self.tokenizer,
            config.seq_len,
            config.evaluation.tokens,
            name=str(self.folder),
            pad_id=self.pad_id,
        )

    def held_out_text(self, config: TrainConfig) -> HeldOut | None:
        """As `TrainingData.held_out_text`: the held-out part of the replay's text."""
        return None if self.text is None else self.text.held_out(config)

    def _packed(self, seq_len: int, seed: int) -> ConversationBatches:
        key = (seq_len, seed)
        if key not in self._packings:
            self._packings[key] = ConversationBatches(
                self.prepared.split("train"), seq_len=seq_len, seed=seed, pad_id=self.pad_id
            )
        return self._packings[key]

    @cached_property
    def _packings(self) -> dict[tuple[int, int], ConversationBatches]:
        return {}


class TuneSpec(TrainSpec):
    """Supervised fine-tuning, of every weight or of adapters (`tune.method`)."""

    evaluates_start = keeps_base = True

    def open_data(self, config: TrainConfig, listener: Listener) -> TrainingData:
        """Read config.data, which is encoded once and kept in the run's folder."""
        assert isinstance(config, TuneConfig)
        model, options = ModelFolder.open(_base_of(config)), config.tune
        chat = tuning_format(model)
        text = None if options.replay_data is None else _replay_text(options.replay_data, model, config)
        prepared = prepare_conversations(
            [config.data],
            config.output / "data",
            chat,
            model.tokenizer,
            seq_len=config.seq_len,
            valid_fraction=options.valid_fraction,
            loss=options.loss,
            format=options.format,
            evaluation_sets=[Path(path) for path in options.evaluation_sets],
            seed=config.seed,
            progress=lambda now: listener.progress(0.0, f"lendo as conversas: {number(now.conversations)}"),
        )
        listener.event(_read(prepared, model))
        return ConversationData(prepared, chat, model, text, options.replay)

    def plan(self, config: TrainConfig, data: TrainingData, ranks: int, source: ModelFolder | None) -> Plan:
        """As `TrainSpec.plan`; the model also ends a text with its end-of-turn token."""
        assert isinstance(config, TuneConfig) and isinstance(data, TunedData)
        adapters = None if config.tune.method == "full" else data.lora(config).planned
        plan = make_plan(
            config.with_steps(data.rows(config)), data.tokenizer, ranks, source=source, adapters=adapters
        )
        notes = () if adapters is None else (_what_lora_trains(plan, adapters),)
        return replace(plan, model=tuned_config(plan.model, data.chat), notes=(*plan.notes, *notes))

    def prepare_model(self, model: Llama, plan: Plan, data: TrainingData) -> None:
        """As `TrainSpec.prepare_model`: adapters, where only they are trained."""
        assert isinstance(plan.config, TuneConfig) and isinstance(data, TunedData)
        if plan.config.tune.method == "lora":
            add_adapters(model, data.lora(plan.config), plan.config.seed)

    def companions(self, source: ModelFolder) -> dict[str, bytes]:
        """As `TrainSpec.companions`: the model ends its turns now, and has the template."""
        return tuned_companions(source, tuning_format(source))

    def finish(
        self, folder: Path, model: Llama, plan: Plan, data: TrainingData, state: TrainState
    ) -> dict[str, object]:
        """As `TrainSpec.finish`: the card of the model, and adapters in the form that `peft` opens too."""
        assert isinstance(plan.config, TuneConfig) and isinstance(data, TunedData)
        made = TuningFacts(
            base=plan.config.init_from.name if plan.config.init_from else "",
            base_sha256=data.model.sha256,
            data=plan.config.data.name,
            data_sha256=data.sha256,
            template_sha256=data.chat.sha256,
            ends=tuple(name for i in data.chat.end_ids if (name := data.tokenizer.token_name(i))),
            conversations=data.index.splits["train"].items,
            held_out=data.index.splits["valid"].items,
            skipped=data.index.skipped,
            steps=state.step,
            target_tokens=state.tokens,
        )
        write_text(folder / "README.md", card(made, plan.config, model.config))
        if plan.config.tune.method == "lora":
            assert plan.config.init_from is not None
            make_folder(folder / ADAPTER)
            base = str(plan.config.init_from.resolve())
            write_adapter(folder / ADAPTER, model, data.lora(plan.config), base)
        return {"tuning": asdict(made)}


def dry_run(config: TuneConfig, spec: TrainSpec, listener: Listener) -> DryRun:
    """Decide all that a tuning would decide; the data are read into a folder that is deleted.

    Raises what `train` would raise before its first step.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ptbr-slm-tune-") as cache,
        named_instead(Path(cache), config.data),
    ):
        data = spec.open_data(replace(config, output=Path(cache)), listener)
        assert isinstance(data, TunedData)
        plan = spec.plan(config, data, ranks_to_start(config), data.model)
        assert isinstance(plan.config, TuneConfig)
        rows = data.rows(plan.config)
        return DryRun(
            plan, data.train_tokens, plan.config.step_sequences * plan.config.max_steps / rows, rows
        )


def _base_of(config: TrainConfig) -> Path:
    """The model that is tuned."""
    assert config.init_from is not None
    return config.init_from


def _what_lora_trains(plan: Plan, adapters: Adapters) -> str:
    """A note for the reader."""
    trained = adapters.count(plan.model)
    share = number(100 * trained / plan.model.num_parameters, 1)
    return (
        f"lora treina {number(trained)} números, {share} % do modelo (adaptadores de posto {adapters.rank} e "
        f"{adapters.rows} linhas de tokens da conversa); os pesos do modelo não mudam até a fusão, no fim."
    )


def _replay_text(folder: Path, model: ModelFolder, config: TrainConfig) -> TextData:
    """The prepared text of the replay.

    Raises E_TOKENIZER_MISMATCH, E_DATA_EMPTY, E_DATA_TOO_SMALL and what `PreparedData.open` raises.
    """
    prepared = PreparedData.open(folder, verify=False)
    prepared.check_tokenizer(model.tokenizer, folder)
    if prepared.split("train").tokens == 0:
        raise SlmError(
            "E_DATA_EMPTY",
            "os dados de --replay-data não têm texto de treino.",
            where=folder,
            hint="Dê a pasta de ptbr-slm data prepare com que o modelo foi treinado.",
        )
    text = TextData(prepared)
    text.check_enough(config)
    return text


def _read(prepared: PreparedConversations, model: ModelFolder) -> ConversationsRead:
    """The event of this folder."""
    train, valid = prepared.split("train"), prepared.split("valid")
    return ConversationsRead(
        conversations=train.conversations,
        held_out=valid.conversations,
        tokens=train.tokens,
        target_tokens=train.target_tokens,
        skipped=prepared.skipped,
        folder=str(prepared.folder),
        model=str(model.path),
    )
