"""A user's own stage: a Python function that a mixture file names `module:function` or `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.errors import SlmError, os_errors

UserFunction = Callable[[Document], Document | Dropped | bool | None]
"""A document or True to keep; False, None or a `Dropped` to drop."""


@dataclass(frozen=True, slots=True)
class UserStage:
    """A function of the user's, named `module:function` or `file.py:function`."""

    target: str
    sha256: str = ""
    """Of the file, so that a changed function makes other data."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.target.rpartition(":")[2]

    def __call__(self, document: Document) -> Document | Dropped:
        """What the function answers. Raises E_CONFIG for one that fails or answers something else."""
        try:
            answer = load_function(self.target)(document)
        except Exception as error:
            if isinstance(error, SlmError):
                raise
            raise SlmError(
                "E_CONFIG",
                f"a etapa {self.target} falhou: {type(error).__name__}: {error}",
                where=document.source,
                hint="Corrija a função; com --debug aparece o erro completo.",
            ) from error
        if answer is True:
            return document
        if answer is False or answer is None:
            return Dropped(self.name)
        if isinstance(answer, Document | Dropped):
            return answer
        raise SlmError(
            "E_CONFIG",
            f"a etapa {self.target} deve devolver um Document, um Dropped, True ou False, "
            f"e não {type(answer).__name__}.",
            where=document.source,
            hint="Veja docs/DADOS.md.",
        )


@lru_cache
def load_function(target: str) -> UserFunction:
    """The function that `module:function` or `file.py:function` names. Raises E_CONFIG."""
    place, _, name = target.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function: UserFunction = vars(module)[name]
    except Exception as error:
        raise SlmError(
            "E_CONFIG",
            f"não achei a etapa {target!r} ({type(error).__name__}: {error}).",
            where="stages",
            hint="Escreva modulo:funcao ou arquivo.py:funcao.",
        ) from error
    if not callable(function):
        raise SlmError(
            "E_CONFIG", f"{target!r} não é uma função.", where="stages", hint="Escreva arquivo.py:funcao."
        )
    return function


def user_stage(target: str, folder: Path) -> UserStage:
    """The stage of a mixture file in `folder`, checked by loading it. Raises E_CONFIG."""
    place, separator, name = target.rpartition(":")
    sha256 = ""
    if separator and place.endswith(".py"):
        file = folder / place
        with os_errors(file):
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        target = f"{file}:{name}"
    load_function(target)
    return UserStage(target, sha256)
