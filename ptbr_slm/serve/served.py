"""The models that a server answers with, by name."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import untuned_warning
from ptbr_slm.serve.errors import ApiError

_log = logging.getLogger("ptbr_slm.serve")


@dataclass(slots=True)
class ServedModel:
    """One opened model and what clients call it."""

    name: str
    model: Model
    fingerprint: str
    """`system_fingerprint`: the first 16 hex digits of the sha256 of what is served."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time, s."""
    _warned: bool = field(default=False, init=False)

    def warn_if_untuned(self) -> None:
        """Tell the log once that the model has a chat template and has not learnt it.

        Raises E_CHAT_TEMPLATE where it has none.
        """
        if not self.model.is_tuned and not self._warned:
            self._warned = True
            _log.warning("%s: %s", self.name, untuned_warning(self.model.path))


class ServedModels:
    """Names to models; the first one answers requests that name none."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = dict(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def add(self, served: ServedModel) -> None:
        """Answer with one more model."""
        self._models[served.name] = served

    def find(self, name: str | None) -> ServedModel:
        """Raises ApiError 404 `model_not_found`."""
        if name is None:
            return next(iter(self))
        if name not in self._models:
            shown = name if len(name) <= 80 else name[:80] + "…"
            raise ApiError(
                404,
                f"O modelo {shown!r} não está neste servidor; estão: {', '.join(self._models)}.",
                code="model_not_found",
                param="model",
            )
        return self._models[name]
