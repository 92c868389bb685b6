"""The phenomena, a module an area of grammar. `ALL` lists them in the order of the documentation."""

from ptbr_slm.eval.grammar.phenomena import (
    comparison,
    nominal,
    predication,
    prepositions,
    pronouns,
    standard_norm,
    verb_forms,
    verbal,
)

ALL = (
    *nominal.PHENOMENA,
    *verbal.PHENOMENA,
    *predication.PHENOMENA,
    *verb_forms.PHENOMENA,
    *pronouns.PHENOMENA,
    *prepositions.PHENOMENA,
    *comparison.PHENOMENA,
    *standard_norm.PHENOMENA,
)
