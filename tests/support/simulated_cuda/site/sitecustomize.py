"""Puts simulated cards into any process that has this folder on PYTHONPATH, from its `import torch` on."""

import importlib.abc
import importlib.machinery
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class _StartAfter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports torch as ever, then starts the machine."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        from simulated_cuda import Card, machine

        asked = json.loads(os.environ.get("SIMULATED_CUDA", "{}"))
        count = asked.pop("cards", 1)
        globals()["_running"] = running = machine(*(Card(index, **asked) for index in range(count)))
        running.__enter__()


sys.meta_path.insert(0, _StartAfter())
