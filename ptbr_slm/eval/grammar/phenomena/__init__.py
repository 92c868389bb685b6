"""The phenomena, a module an area of grammar. `ALL` lists them in the order of the documentation."""

from ptbr_slm.eval.grammar.phenomena import nominal, predication, verbal

ALL = (*nominal.PHENOMENA, *verbal.PHENOMENA, *predication.PHENOMENA)
