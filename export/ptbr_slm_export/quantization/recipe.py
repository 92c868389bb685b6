"""How the matrices of an export are quantised: one documented choice, made before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ptbr_slm.errors import SlmError

Precision = Literal["fp32", "fp16", "int8", "int4"]
"""How weights are stored. Activations are fp32 on a CPU and fp16 on a GPU whatever it is."""
Method = Literal["search", "rtn", "kquant", "hqq", "gptq"]
METHODS: tuple[Method, ...] = get_args(Method)
Head = Literal["int8", "int4", "int4-rescored"]
"""How the output head is stored and multiplied."""
HEADS: tuple[Head, ...] = get_args(Head)
CALIBRATED: frozenset[str] = frozenset({"kquant", "gptq"})
"""Methods that weigh errors by what the model does on a text."""
LOOKED_UP: frozenset[str] = frozenset({"embedding", "head.exact"})
"""Matrices, by their names in the graph, whose rows are looked up: always int8."""
BLOCK_SIZES = (16, 32, 64, 128, 256)
"""What MatMulNBits takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Bits, block and method of every matrix.

    Blocks are upper limits: a width that one does not divide gets the largest power of two that does.
    """

    bits: int
    """Of the matrices in the layers: 8 or 4."""
    block: int
    """Weights of a row that share a scale."""
    method: Method = "search"
    """How scales, zeros and codes are found (see `rounding.py` and `gptq.py`)."""
    head_bits: int = 8
    """Of the output head. 8 with a tied embedding shares the embedding's matrix; 4 stores one of its own,
    as the embedding is always int8: rows are looked up, not multiplied, and int4 hurts them most."""
    head_block: int = 128
    """Of the head, and of the embedding."""
    head_rescored: int = 0
    """Of an int4 head: how many of its largest logits a position are scored again, in fp32 from int8 rows,
    which are the embedding's where the model ties them, else a second copy of the head. 0 for none."""
    mixed_extra: float = 0.0
    """Bytes that int8 may add to the layers' matrices, as a part of what they take in int4, for those that
    int4 hurts most: each model is asked which (`quantization/sensitivity.py`). 0 asks for none."""
    mixed: tuple[str, ...] = ()
    """Those matrices, by their names in the graph: `layers.0.down`. Measured where empty."""
    mixed_block: int = 128
    """Of those."""
    exact: tuple[str, ...] = ()
    """Matrices multiplied in fp32, their weights in codes as ever: those whose inputs int8 cannot hold. It is
    measured (`quantization/sensitivity.py`) where activations are rounded to int8, on a CPU; mostly none."""
    symmetric: bool = False
    """int4 without zeros, for CUDA's kernels; by every method but hqq."""

    def __post_init__(self) -> None:
        if not 0 <= self.mixed_extra <= 1:
            raise _unusable(f"mixed_extra vai de 0 a 1, e não é {self.mixed_extra}")
        if self.symmetric and self.bits == 4 and self.method == "hqq":
            raise _unusable("o int4 das GPUs não tem o método hqq; tem rtn, search, kquant e gptq")
        if self.head_rescored < 0 or (self.head_rescored and self.head_bits == 8):
            raise _unusable("só uma saída de 4 bits tem logits a recalcular, e não menos que nenhum")
        for name in ("bits", "head_bits"):
            if getattr(self, name) not in (4, 8):
                raise _unusable(f"{name} deve ser 4 ou 8, e não {getattr(self, name)}")
        for name in ("block", "head_block", "mixed_block"):
            if getattr(self, name) not in BLOCK_SIZES:
                raise _unusable(f"{name} deve ser um de {BLOCK_SIZES}, e não {getattr(self, name)}")

    @property
    def head(self) -> Head:
        """The head's kind."""
        if self.head_bits == 8:
            return "int8"
        return "int4-rescored" if self.head_rescored else "int4"

    def choice(self, name: str) -> tuple[int, int]:
        """(bits, largest block) of the matrix called `name` in the graph."""
        if name in LOOKED_UP:
            return 8, self.head_block
        if name == "head":
            return self.head_bits, self.head_block
        return (8, self.mixed_block) if name in self.mixed else (self.bits, self.block)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        body = {name: getattr(self, name) for name in self.__slots__ if name != "exact"}
        exact = {"exact": list(self.exact)} if self.exact else {}
        return body | {"mixed": list(self.mixed)} | exact


RESCORED = 64
"""Logits a position that an int4 head scores again (docs/decisions/0110-int4-head-rescored.md)."""
_HEADS: dict[str, dict[str, Any]] = {
    "int8": {"head_bits": 8, "head_block": 128, "head_rescored": 0},
    "int4": {"head_bits": 4, "head_block": 256, "head_rescored": 0},
    "int4-rescored": {"head_bits": 4, "head_block": 128, "head_rescored": RESCORED},
}
"""Name -> fields of `Recipe`."""


def with_head(recipe: Recipe, head: Head) -> Recipe:
    """The recipe with this head in its own blocks."""
    return replace(recipe, **_HEADS[head])


RECIPES: dict[str, Recipe] = {
    "int8": Recipe(bits=8, block=128),
    "int4": with_head(Recipe(bits=4, block=256, method="gptq"), "int4-rescored"),
}
"""A decode step of int4 is bound by its instructions and by the bytes it reads, and blocks of 256 need the
fewest of both: 1.37 times the speed of blocks of 64 at 85m on AVX-512, and the fewest instructions on AVX2.
What they lose `gptq` wins back: on two trained models they cost about what Q4_K_M does, and less than Q4_0
(docs/decisions/0049-int4-blocks-256.md). In int8 all methods cost the same."""


def recipe_for(
    precision: Precision, method: str | None = None, head: str | None = None, **changes: Any
) -> Recipe | None:
    """The recipe of a precision; None where nothing is quantised. Raises E_USAGE for what does not fit.

    head: one of `HEADS`. changes: fields of `Recipe` to differ in. None leaves the default.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if precision not in RECIPES:
        if method is not None or head is not None or changes:
            asked = "um método de quantização foi pedido"
            if method is None:
                asked = "uma opção de quantização foi pedida"
            raise _unusable(f"{precision} não é quantizado, e {asked}")
        return None
    recipe = RECIPES[precision]
    if head is not None:
        if head not in _HEADS:
            raise _unusable(f"a saída {head!r} não existe; há {', '.join(_HEADS)}")
        changes = _HEADS[head] | changes
    for known in METHODS:
        if known == (method or recipe.method):
            return replace(recipe, **changes, method=known)
    raise _unusable(f"o método {method!r} não existe; há {', '.join(METHODS)}")


def _unusable(detail: str) -> SlmError:
    return SlmError(
        "E_USAGE",
        f"esta quantização não existe: {detail}.",
        where="quantização",
        hint="Por exemplo:  ptbr-slm export MODELO -o PASTA --precision int4 --method search",
    )
