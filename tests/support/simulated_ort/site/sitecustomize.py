"""On PYTHONPATH: this process has the simulated card as soon as it imports onnxruntime."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds onnxruntime as usual, and installs the card when it is loaded."""

    looking = False

    def find_spec(self, name, path=None, target=None):
        if name != "onnxruntime" or self.looking:
            return None
        self.looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.looking = False
        if spec is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            sys.path.append(str(Path(__file__).parents[2]))
            from simulated_ort import Card, install

            card = Card()
            limit = os.environ.get("SIMULATED_CARD_BYTES")
            card.limit = int(limit) if limit else card.limit
            unsupported = os.environ.get("SIMULATED_CARD_UNSUPPORTED_M")
            card.unsupported_m = int(unsupported) if unsupported else None
            install(card)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _AfterImport())
