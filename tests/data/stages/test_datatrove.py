"""The rules of the preset `web` keep and drop what datatrove's own blocks do, with the same reasons."""

from __future__ import annotations

import importlib.metadata  # datatrove uses it without importing it
import importlib.util
import random

import pytest
from page_text import PAGE

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.c4 import LongLines, c4
from ptbr_slm.data.stages.figures import Figures
from ptbr_slm.data.stages.rules import fineweb2
from ptbr_slm.data.stages.stage import run
from ptbr_slm.data.stages.word_numbers import STOP_WORDS
from ptbr_slm.data.stages.words import split_words

filters = pytest.importorskip("datatrove.pipeline.filters", reason='pip install "ptbr-slm[scale]"')
from datatrove.data import Document as TheirDocument  # noqa: E402
from datatrove.utils import word_tokenizers  # noqa: E402
from datatrove.utils.text import split_into_words  # noqa: E402

assert importlib.metadata
LANGUAGE = "por_Latn"
REASONS = {
    "dup_line_frac": "repeated_lines",
    "empty": "few_ended_lines",
    "line_punct_ratio": "few_ended_lines",
    "char_dup_ratio": "repeated_characters",
    "list_ratio": "many_newlines",
    "gopher_short_doc": "few_words",
    "gopher_long_doc": "many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "many_hashes",
    "gopher_too_many_ellipsis": "many_ellipses",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "few_letters",
    "gopher_enough_stop_words": "few_stop_words",
}
NASTY = [
    "a",
    "...",
    "• a\n" * 30,
    "linha igual\n" * 40,
    "de a " * 60,
    "#" * 50 + " de a",
    "um dois três " * 100,
    "Olá… " * 60,
    PAGE + "- item de lista\n" * 20,
    "1 2 3 4 5 de a " * 20,
    " \t ",
    "Palavra" * 100,
    "de a e o " + "supercalifragilisticexpialidoso " * 60,
    "É de ver. " * 8 + "\n" * 20,
    "“Sim.”\n" * 30 + "de a",
    "🙂 " * 60 + "de a",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 5,
    "código = {x: 1}\n" * 20,
    "Tudo bem :) sim ;) é xD " * 20,
    "http://a.com/b?c=d " * 60,
]


REPLACEMENTS = ("\n", "12", "—", "#", "…", "de", "a b", "R$ 3,50", "fim.\n- ", "x" * 30)


def variations(count: int) -> list[str]:
    """Pages with words, lines and marks taken out, put in and repeated, more in each."""
    random_ = random.Random(7)
    pages = []
    for number in range(count):
        words = PAGE.split(" ")
        strength = number / count
        for place in range(len(words)):
            if random_.random() < strength * 0.6:
                words[place] = random_.choice(
                    [
                        "\n",
                        "12",
                        "—",
                        "#",
                        "…",
                        "de",
                        "a b",
                        "R$ 3,50",
                        "fim.\n- ",
                        words[place - 1],
                        "x" * 30,
                    ]
                )
        begin = random_.randrange(len(words) // 2)
        pages.append(" ".join(words[begin : begin + random_.randrange(30, 400)]))
    return pages


class OurTokenizer:
    """Our words for datatrove's blocks; its own, of spaCy, give the same: see the last test."""

    word_tokenize = staticmethod(split_words)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    if importlib.util.find_spec("spacy") is None:
        monkeypatch.setattr(word_tokenizers, "load_word_tokenizer", lambda language: OurTokenizer)
    return [
        filters.GopherRepetitionFilter(
            language=LANGUAGE,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            dup_line_frac=0.287,
            top_n_grams=((2, 0.371), (3, 0.191), (4, 0.163)),
            dup_n_grams=((5, 0.163), (6, 0.153), (7, 0.141), (8, 0.13), (9, 0.119), (10, 0.108)),
        ),
        filters.FineWebQualityFilter(
            language=LANGUAGE,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            line_punct_thr=0.077,
            new_line_ratio=0.186,
        ),
        filters.GopherQualityFilter(
            language=LANGUAGE,
            min_avg_word_length=3,
            max_avg_word_length=13,
            max_non_alpha_words_ratio=0.814,
            min_stop_words=2,
            stop_words=list(STOP_WORDS),
        ),
    ]


def theirs(text: str, blocks: list[object]) -> str | None:
    for block in blocks:
        answer = block.filter(TheirDocument(text=text, id="0"))
        if answer is not True:
            word = answer[1]
            grams = "top_gram" if word.startswith("top") else "repeated_grams"
            return REASONS.get(word, grams)
    return None


def ours(text: str) -> str | None:
    answer = run((Figures(), *fineweb2()), Document(text, "a.txt"))
    return None if isinstance(answer, Document) else answer[2].reason


def test_the_same_documents_are_kept_and_dropped_for_the_same_reasons(blocks: list[object]):
    pages = [PAGE, *NASTY, *variations(120)]
    ours_all, theirs_all = [ours(page) for page in pages], [theirs(page, blocks) for page in pages]
    assert ours_all == theirs_all
    assert theirs_all.count(None) > 15 and len(set(theirs_all)) > 6


C4_REASONS = {
    "lorem_ipsum": {"lorem_ipsum", "curly_brackets"},  # where a page has both
    "curly_bracket": {"curly_brackets", "lorem_ipsum"},
    "too_few_sentences": {"few_sentences", "no_lines"},
}
C4_LINES = (
    "Leia também as outras notícias",
    "Uma frase cortada...",
    "Ative o JavaScript para ver a página.",
    "This site uses cookies to work.",
    "Please read our Terms of Use.",
    "Fim. Sim.",
    "Nasceu em 1839[12] e morreu em 1908.[3]",
    "Foi assim. [4]",
    'Ele respondeu: "venha"',
    "Ele respondeu: “venha.”",
    "a " + "x" * 1_100 + " b.",
    "O Sr. Silva pagou R$ 3.500,00 ao Dr. Souza. E foi embora!",
    "...",
    "— Não sei! — disse ela. — E você?",
)
C4_PAGES = (
    "Depois vem lorem ipsum dolor sit amet.",
    "O código é {x}, diz ele.",
    "Menu { x }",
    "JavaScript com {x} não conta.",
    "This uses cookies and {x} too.",
    "This uses cookies and lorem ipsum too.",
    "lorem ipsum e javascript juntos.",
)


def pages_of_lines(count: int) -> list[str]:
    """Good and bad lines in any order, some pages with what drops a whole one."""
    random_ = random.Random(11)
    good = [line for line in PAGE.split("\n") if line]
    sentences = [sentence + "." for line in good for sentence in line.rstrip(".").split(". ")]
    pages = []
    for number in range(count):
        pool = [*sentences, *C4_LINES, *C4_LINES, ""]
        lines = random_.choices(pool, k=random_.randrange(1, 14))
        if number % 4 == 0:
            lines.insert(random_.randrange(len(lines) + 1), random_.choice(C4_PAGES))
        pages.append("\n".join(lines))
    return pages


def test_the_rules_of_c4_leave_the_same_lines_and_drop_the_same_pages():
    pytest.importorskip("spacy", reason='pip install "ptbr-slm[datatrove]"')  # sentences
    block = filters.C4QualityFilter(language=LANGUAGE)
    dropped = 0
    for text in [PAGE, *NASTY, *pages_of_lines(300)]:
        page = "\n".join(line.rstrip() for line in text.split("\n"))  # as `Clean` leaves it
        document = TheirDocument(text=page, id="0")
        theirs = block.filter(document)
        result = run(c4(), Document(page, "a.txt"))
        if theirs is True:
            assert isinstance(result, Document), page
            assert [line.strip() for line in result.text.split("\n") if line.strip()] == [
                line.strip() for line in document.text.split("\n") if line.strip()
            ]
        else:
            dropped += 1
            assert not isinstance(result, Document) and result[2].reason in C4_REASONS[theirs[1]], page
    assert 50 < dropped < 250


def test_the_long_lines_of_mc4_are_the_same():
    block = filters.C4ParagraphFilter()
    for page in [PAGE, *NASTY, *variations(60)]:
        kept = block.filter(TheirDocument(text=page, id="0")) is True
        assert kept == isinstance(LongLines()(Document(page, "a.txt")), Document)


def test_the_tokens_are_the_same():
    pytest.importorskip("spacy", reason='pip install "ptbr-slm[datatrove]"')
    for page in [PAGE, *variations(60)]:
        assert split_words(page) == split_into_words(page, LANGUAGE)
