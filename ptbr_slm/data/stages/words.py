"""Words and punctuation marks, split as spaCy's blank Portuguese pipeline splits them.

FineWeb2 tuned its thresholds on these tokens (datatrove assigns `SpaCyTokenizer("pt")` to Portuguese in
`assets/tokenizer_assignment.csv`): a comma counts as a token, so 0.814 alphabetic tokens is another rule than
0.814 alphabetic words between spaces. The algorithm and the affixes follow spaCy 3.8 (`spacy/tokenizer.pyx`,
`spacy/lang/punctuation.py`, `spacy/lang/pt`), without the packages. What is left out: rare emoticons, and
scripts that Portuguese text does not hold. On 14 Portuguese corpora 0 to 0.01 % of the tokens differ.

A text repeats its words, so the pieces between spaces are split once and remembered.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain

MAX_CACHED = 1 << 16
"""Pieces remembered; the memory is emptied when it is full."""
MAX_CACHED_LENGTH = 40
"""Longer pieces (addresses, encoded data) are not remembered."""

MAX_PIECE = 1000
"""A longer piece (encoded data, a ruler of `=`) is one token: the affixes are looked for in its square."""

_EXCEPTION_WORDS = """
Adm. Art. art. Av. av. Cia. dom. Dr. dr. e.g. E.g. E.G. e/ou ed. eng. etc. Fund. Gen. Gov. i.e. I.e. I.E. Inc.
Jr. km/h Ltd. Mr. p.m. Ph.D. Rep. Rev. S/A Sen. Sr. sr. Sra. sra. vs. tel. pág. pag.
' '' — C++ a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü.
:) :-) :)) (: (-: =) (= :] [: =] [= :o) :} ;) ;-) (; :( :-( :(( ): )-: =( >:( :') :'( :/ :-/ =/ =| :| :-|
]= :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD
XDD 8D 8-D 8) 8-) ^_^ ._. ;_; -_- <3 </3 >.< @_@ 0.0 o.o O.o o.O O.O o_o O_O 0_0 v.v V.V
"""
"""spacy/lang/pt/tokenizer_exceptions.py, and from the third line on spacy/lang/tokenizer_exceptions.py."""
_EXCEPTIONS = frozenset(_EXCEPTION_WORDS.split())

_LOWER = "".join(chr(code) for code in range(0x61, 0x250) if chr(code).islower() and code not in (0xAA, 0xBA))
_BEFORE_PERIOD = frozenset(_LOWER + "0123456789")
_NUMBER = re.compile(r"[0-9]+(?:[.,:/][0-9]+)*")
_COMPOUND = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
_UPPER = "".join(chr(code) for code in range(0x41, 0x250) if chr(code).isupper())
_LETTER = r"[^\W\d_ªº]"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_MARKS = r"…|,|:|;|!|\?|¿|؟|¡|\(|\)|\[|\]|\{|\}|<|>|_|#|\*|&|。|？|！|，|、|；|：|～|·|।|،|۔|؛|٪"
_ELLIPSES = r"\.\.+|…"
_CURRENCY = r"US\$|C\$|A\$|[$£€¥฿₠-₿﷼]"
_UNITS = (
    "km|km²|km³|m|m²|m³|dm|dm²|dm³|cm|cm²|cm³|mm|mm²|mm³|ha|µm|nm|yd|in|ft|kg|g|mg|µg|t|lb|oz|m/s|km/h|kmh|"
    "mph|hPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
)
_BEFORE_UNIT = re.compile("[0-9]|['’]\\Z")
_LONGEST_SUFFIX = 4
"""Characters of the longest unit. Only a run of periods is longer."""
_URL = re.compile(
    r"(?:[\w+.-]{2,}://)?(?:\S+(?::\S*)?@)?"
    r"(?:(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}"
    r"\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
    r"|(?:[A-Za-z0-9\xa1-\uffff][\w\xa1-\uffff-]{0,62}?\.)+[" + _LOWER + r"]{2,63})"
    r"(?::\d{2,5})?(?:[/?#]\S*)?\Z"
)
_URL_PART = re.compile(rf"\.[{_LOWER}]{{2}}|\d\.\d+\.\d")
"""In all that `_URL` matches, and much faster to look for."""
_ONE_MARK = frozenset(re.sub(r"[|\\]", "", _MARKS) + _QUOTES)
"""At the end of a piece each of these is a suffix of its own."""
_PERIOD_OR_DIGIT_SUFFIX = (
    r"(?<=[0-9])\+|(?<=°[FfCcKk])\."
    rf"|(?<=[0-9])(?:{_CURRENCY})|(?<=[0-9])(?:{_UNITS})"
    rf"|(?<=[0-9{_LOWER}%²+{re.escape(_QUOTES)}…,:;!?()\[\]{{}}<>_#*&·|-])\."
    rf"|(?<=[{_UPPER}][{_UPPER}])\."
)


@cache
def _expressions() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Prefix, suffix, infix, and infix of a piece without hyphen; built once, as the symbols take 10 ms."""
    symbols = "".join(
        chr(code)
        for code in chain(range(0xA1, 0x10000), range(0x1F000, 0x1FB00))
        if unicodedata.category(chr(code)) == "So"
    )
    icons = f"[{re.escape(symbols)}]"
    quotes = f"[{re.escape(_QUOTES)}]"
    prefix = rf"\w{{1,3}}\$|[§%=—–]|\+(?![0-9])|{_MARKS}|{_ELLIPSES}|{quotes}|{_CURRENCY}|{icons}"
    suffix = rf"(?:{_MARKS}|{_ELLIPSES}|{quotes}|{icons}|['’][sS]|—|–|{_PERIOD_OR_DIGIT_SUFFIX})\Z"
    compound = r"\w+-\w+(?:-\w+)*"
    infix = (
        rf"{_ELLIPSES}|{icons}"
        r"|(?<=[0-9])[+*^-](?=[0-9-])"
        rf"|(?<=[{_LOWER}{re.escape(_QUOTES)}])\.(?=[{_UPPER}{re.escape(_QUOTES)}])"
        rf"|(?<={_LETTER}),(?={_LETTER})"
        rf"|(?<={_LETTER})(?:-|–|—|--|---|——|~)(?={_LETTER})"
        rf"|(?<=[^\W_ªº])[:<>=/](?={_LETTER})"
    )
    return re.compile(prefix), re.compile(suffix), re.compile(f"{compound}|{infix}"), re.compile(infix)


_BRACKETS = ',;:!?()[]"“”‘’«»'
"""Marks that are tokens of their own at either end of a piece."""


def split_piece(piece: str) -> tuple[str, ...]:
    """The tokens of a piece without spaces."""
    if piece.isalpha() or len(piece) > MAX_PIECE:
        return (piece,)
    core = piece.strip(_BRACKETS)
    whole = core.removesuffix(".")
    simple = whole.isalpha() or whole.isdigit() or _NUMBER.fullmatch(whole) or _COMPOUND.fullmatch(whole)
    if not simple or piece in _EXCEPTIONS:
        return _with_exceptions_merged(_split_affixes(piece))
    start = piece.index(core)
    end = [*piece[start + len(core) :]]
    if whole is not core and core not in _EXCEPTIONS:
        if whole[-1] not in _BEFORE_PERIOD or (start and core in _EXCEPTIONS):
            return _with_exceptions_merged(_split_affixes(piece))
        core, end = whole, [".", *end]
    return _with_exceptions_merged([*piece[:start], core, *end])


def _split_affixes(piece: str) -> list[str]:
    prefix, suffix, infix, infix_without_hyphen = _expressions()
    before: list[str] = []
    after: list[str] = []
    while piece and piece not in _EXCEPTIONS:
        start = prefix.match(piece) if not piece[0].isalnum() or "$" in piece[1:4] else None
        left = start.end() if start else 0
        if left and piece[left:] in _EXCEPTIONS:
            before.append(piece[:left])
            piece = piece[left:]
            break
        right = 0
        if len(piece) > left and piece[-1] in _ONE_MARK:
            right = 1
        elif len(piece) > left and _may_have_suffix(piece):
            tail = max(left, len(piece.rstrip(".")) - _LONGEST_SUFFIX)
            end = suffix.search(piece, tail)
            right = len(piece) - end.start() if end else 0
        if right and piece[:-right] in _EXCEPTIONS:
            after.append(piece[-right:])
            piece = piece[:-right]
            break
        if not left and not right:
            break
        if left:
            before.append(piece[:left])
        if right:
            after.append(piece[-right:])
        piece = piece[left : len(piece) - right]
    if not piece:
        inside: list[str] = []
    elif piece in _EXCEPTIONS or piece.isalnum() or (_URL_PART.search(piece) and _URL.match(piece)):
        inside = [piece]
    else:
        inside = _split_inside(piece, infix if "-" in piece else infix_without_hyphen)
    return [*before, *inside, *reversed(after)]


def _may_have_suffix(piece: str) -> bool:
    """False for most of those that have none: a letter ends a unit after a digit, or `'s`."""
    last = piece[-1]
    return not last.isdecimal() and (not last.isalpha() or _BEFORE_UNIT.search(piece[-5:-1]) is not None)


def _with_exceptions_merged(tokens: list[str]) -> tuple[str, ...]:
    """Two neighbours that make an exception are one token, as spaCy's last pass does: `)` and `:`."""
    merged = tokens[:1]
    for token in tokens[1:]:
        if merged[-1] + token in _EXCEPTIONS:
            merged[-1] += token
        else:
            merged.append(token)
    return tuple(merged)


def _split_inside(piece: str, infix: re.Pattern[str]) -> list[str]:
    parts: list[str] = []
    done = 0
    for match in infix.finditer(piece):
        if match.start() == 0:
            continue
        parts += [part for part in (piece[done : match.start()], match.group()) if part]
        done = match.end()
    if done < len(piece):
        parts.append(piece[done:])
    return parts


class _Cache(dict[str, tuple[str, ...]]):
    """Piece between spaces -> its tokens; filled on demand."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        tokens = split_piece(piece)
        if len(piece) <= MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[piece] = tokens
        return tokens


_cached = _Cache()


def split_words(text: str) -> list[str]:
    """The words and punctuation marks of `text`, in order, without spaces."""
    return list(chain.from_iterable(map(_cached.__getitem__, text.split())))
