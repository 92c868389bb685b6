"""Training text with a teacher's predictions beside it: micro-batches that bring distillation's loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptbr_slm.data.teacher_logits import TeacherLogits
from ptbr_slm.distillation import TeacherTargets
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import DeviceBatch, MicroBatch, TextBatches, to_device
from ptbr_slm.train.config import DistillConfig


@dataclass(frozen=True, slots=True)
class DistilledMicroBatch(MicroBatch):
    """A micro-batch, and what the teacher expects after each of its tokens."""

    teacher_ids: npt.NDArray[np.int32] = field(kw_only=True)
    """(B, T, k)."""
    teacher_log_probabilities: npt.NDArray[np.float16] = field(kw_only=True)
    """(B, T, k + 1) of these, then of all others together."""
    settings: DistillConfig = field(kw_only=True)

    def __getitem__(self, part: slice) -> DistilledMicroBatch:
        """Some of the sequences."""
        some = MicroBatch.__getitem__(self, part)
        return DistilledMicroBatch(
            some.tokens,
            some.targets,
            some.document_ids,
            teacher_ids=self.teacher_ids[part],
            teacher_log_probabilities=self.teacher_log_probabilities[part],
            settings=self.settings,
        )

    def to(self, device: torch.device) -> DistilledDeviceBatch:
        """On the device; the host does not wait for a GPU."""
        there = MicroBatch.to(self, device)
        return DistilledDeviceBatch(
            there.tokens,
            there.targets,
            there.document_ids,
            teacher_ids=to_device(self.teacher_ids, device),
            teacher_log_probabilities=to_device(self.teacher_log_probabilities, device),
            settings=self.settings,
        )


@dataclass(frozen=True, slots=True)
class DistilledDeviceBatch(DeviceBatch):
    """A `DistilledMicroBatch` on its device."""

    teacher_ids: Tensor = field(kw_only=True)
    """(B, T, k) int32."""
    teacher_log_probabilities: Tensor = field(kw_only=True)
    """(B, T, k + 1) float16."""
    settings: DistillConfig = field(kw_only=True)

    def loss_sum(self, model: Llama) -> Tensor:
        """As `DeviceBatch.loss_sum`: (1 - w) CE + w T^2 KL (`ptbr_slm.distillation`)."""
        teacher = TeacherTargets(
            self.teacher_ids.flatten(0, 1),
            self.teacher_log_probabilities.flatten(0, 1),
            self.settings.weight,
            self.settings.temperature,
        )
        return model.loss_sum(self.tokens, self.targets, self.document_ids, soft=teacher)


class DistilledBatches:
    """The windows of prepared text with the teacher's predictions, a `BatchSource`."""

    def __init__(self, text: TextBatches, teacher: TeacherLogits, settings: DistillConfig) -> None:
        """teacher: of the same data as the text (`TeacherLogits.check_data`)."""
        self._text, self._teacher, self._settings = text, teacher, settings

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> DistilledMicroBatch:
        """As `BatchSource.sequences`. Raises E_DATA_CORRUPT for what no teacher wrote."""
        batch, length = self._text.sequences(windows, share), self._text.order.seq_len
        starts = self._text.starts(windows, share).tolist()
        ids, log_probabilities = zip(
            *(self._teacher.read(start, start + length) for start in starts), strict=True
        )
        return DistilledMicroBatch(
            batch.tokens,
            batch.targets,
            batch.document_ids,
            teacher_ids=np.stack(ids),
            teacher_log_probabilities=np.stack(log_probabilities),
            settings=self._settings,
        )
