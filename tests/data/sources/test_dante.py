"""The sentences of a CoNLL-U file become documents."""

from __future__ import annotations

from ptbr_slm.data.sources.dante import as_printed, conllu_words, join_sentences, parse_conllu

CONLLU = """\
# sent_id = FOLHA_DOC000007_SENT012
# text = Choveu em a praia .
1\tChoveu\tchover\tVERB\t_\t_\t_\t_\t_\t_
2\tem\tem\tADP\t_\t_\t_\t_\t_\t_
3\ta\to\tDET\t_\t_\t_\t_\t_\t_
4\tpraia\tpraia\tNOUN\t_\t_\t_\t_\t_\t_
5\t.\t.\tPUNCT\t_\t_\t_\t_\t_\t_

# text = Fui ao mar .
# sent_id = 20-2014-TESE_0-3
1\tFui\tir\tVERB\t_\t_\t_\t_\t_\t_
2-3\tao\t_\t_\t_\t_\t_\t_\t_\t_
2\ta\ta\tADP\t_\t_\t_\t_\t_\t_
3\to\to\tDET\t_\t_\t_\t_\t_\t_
4\tmar\tmar\tNOUN\t_\t_\t_\t_\t_\t_
5\t.\t.\tPUNCT\t_\t_\t_\t_\t_\t_
"""


def test_conllu_sentences_know_their_document_and_surface_words():
    first, second = parse_conllu(CONLLU)
    assert (first.document, first.number, as_printed(first)) == ("FOLHA_DOC000007", 12, "Choveu na praia.")
    assert (second.document, second.number, as_printed(second)) == ("20-2014-TESE_0", 3, "Fui ao mar.")
    assert [conllu_words(sentence.rows)[1] for sentence in (first, second)] == [False, True]


def test_headings_get_a_line_of_their_own():
    assert join_sentences(["1. - INTRODUÇÃO", "O poço é fundo.", "Tem óleo.", "Conclusão"]) == (
        "1. - INTRODUÇÃO\nO poço é fundo. Tem óleo.\nConclusão"
    )
