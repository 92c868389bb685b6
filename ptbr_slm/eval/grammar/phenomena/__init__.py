"""The phenomena, a module an area of grammar. `ALL` lists them in the order of the documentation."""

from ptbr_slm.eval.grammar.phenomena import (
    comparison,
    nominal,
    norm_agreement,
    norm_usage,
    predication,
    prepositions,
    pronouns,
    relative,
    verb_forms,
    verbal,
)

ALL = (
    *nominal.PHENOMENA,
    *verbal.PHENOMENA,
    *predication.PHENOMENA,
    *verb_forms.PHENOMENA,
    *pronouns.PHENOMENA,
    *relative.PHENOMENA,
    *prepositions.PHENOMENA,
    *comparison.PHENOMENA,
    *norm_agreement.PHENOMENA,
    *norm_usage.PHENOMENA,
)
