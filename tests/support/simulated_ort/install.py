"""Puts the simulated provider below onnxruntime's Python classes, and takes it away again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulated_ort.card import Card
from simulated_ort.session import CPU_PROVIDER, CUDA_PROVIDER, Binding, Session
from simulated_ort.values import ort_value_class


class _Compiled:
    """`onnxruntime_pybind11_state` with a few classes replaced."""

    def __init__(self, card: Card, real: Any) -> None:
        self._real = real
        self.OrtValue = ort_value_class(card, real.OrtValue)
        self.get_available_providers = lambda: [CUDA_PROVIDER, CPU_PROVIDER]
        self.InferenceSession = lambda options, model, is_path, config: Session(
            card, real, options, model, is_path, config
        )

        def binding(session: Session) -> Any:
            if not session.simulated:
                return real.SessionIOBinding(session._real)
            return Binding(card, real, session)

        self.SessionIOBinding = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def install(card: Card) -> Any:
    """Until the returned function is called, onnxruntime has a CUDA provider over `card`."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_inference_collection as collection

    former = collection.C, onnxruntime.get_available_providers, getattr(onnxruntime, "cuda_version", None)
    collection.C = _Compiled(card, former[0])
    onnxruntime.get_available_providers = collection.C.get_available_providers
    onnxruntime.cuda_version = "13.0"

    def remove() -> None:
        collection.C, onnxruntime.get_available_providers, onnxruntime.cuda_version = former

    return remove


@contextmanager
def installed(card: Card) -> Iterator[Card]:
    """`install` for a while."""
    remove = install(card)
    try:
        yield card
    finally:
        remove()
