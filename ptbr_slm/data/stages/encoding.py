"""Letters that a wrong encoding spoiled: UTF-8 or Windows-1252 read as another, and letters lost to U+FFFD.

UTF-8 read as Latin-1 or Windows-1252 is `nÃ£o`, and twice `nÃƒÂ£o`. What makes a line suspect are pairs that
Portuguese does not write; capitals (`MANHÃ`, `IRMÃ` before a closing quote) do not. A suspect line is decoded
by ftfy (Speer 2019, https://ftfy.readthedocs.io), and its answer is taken only where nothing suspect is left.
"""

from __future__ import annotations

import re
import unicodedata

from ptbr_slm.errors import missing_extra

_SUSPECT = re.compile(
    "Ã[ƒ‚‡‰Šš†ˆ„Œœž€¡¢£©³´µ§¨ªº±¼\xad\x80-\x9f]"  # ã á é í ó ú ê ç õ â ô, É Ç Ã Â Ê À Í, and twice
    "|(?<![^\\W\\d_])Ã\xa0"  # à begins a word
    "|Ã[“•](?=[^\\W\\d_])|Ã”(?=[A-ZÀ-Ú])"  # Ó Õ À Ô inside a word, where no quote can stand
    "|(?<![A-ZÀ-Ú])Â[°ºª«»§·²³½¼¿¡\xa0\x80-\x9f]"
    "|â[€\x80][œ™˜¦“”¢¹º\x9c\x9d\x93\x94\x98\x99\xa6]|ðŸ|ð\x9f|ï»¿"
)
_BEGINNINGS = ("Ã", "Â", "â€", "â\x80", "ð", "ï»¿")
"""One of these is in all that `_SUSPECT` finds; looking for them is 20 times as fast."""
MAX_DECODINGS = 3
"""Times that a line may have been encoded too often."""


def repair_mojibake(text: str) -> str:
    """`text` with its suspect lines decoded; the same text where nothing is certainly broken.

    Raises E_DEPENDENCY where a text needs ftfy and it is not installed.
    """
    if not any(beginning in text for beginning in _BEGINNINGS) or _SUSPECT.search(text) is None:
        return text
    try:
        from ftfy import fix_encoding
    except ImportError as error:
        raise missing_extra("ftfy") from error
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _SUSPECT.search(line) is None:
            continue
        fixed: str = line
        for _ in range(MAX_DECODINGS):
            fixed = fix_encoding(fixed)
            if _SUSPECT.search(fixed) is None:
                break
        if _SUSPECT.search(fixed) is None and not any(map(_is_control, set(fixed).difference(line))):
            lines[number] = fixed
    return "\n".join(lines)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cn", "Co")


# Windows-1252 read as Latin-1: quotes and dashes become control characters

_C1 = re.compile("[\x80-\x84\x86-\x9f]")
MAX_C1_SHARE = 0.2
"""A text with more of them, and four, is no text."""
_WINDOWS_1252 = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def repair_controls(text: str) -> str:
    """`text` with U+0080 to U+009F as Windows-1252 has them: `\x93sim\x94` is `“sim”`.

    The same text where they are more than punctuation. U+0085 is an ellipsis only where there are others of
    them; alone it is Unicode's line end.
    """
    if _C1.search(text) is None or len(_C1.findall(text)) > 4 + MAX_C1_SHARE * len(text):
        return text
    return text.translate(_WINDOWS_1252)


# Letters lost to U+FFFD

LOST = "\ufffd"
_WORDS = """não são está até também você vocês já há então será estão porém além através após difícil
país países próprio própria último última número história água política público pública possível serviço
informações informação educação situação relação atenção nação ações ação região questão opinião condições"""
"""Frequent words that keep their meaning without their accented letters."""


def _patterns() -> dict[str, str]:
    """`n�o` -> `não`, for words whose pattern no other of them shares."""
    found: dict[str, list[str]] = {}
    for word in _WORDS.split():
        for form in (word, word.capitalize()):
            found.setdefault(re.sub(r"[^\x00-\x7f]", LOST, form), []).append(form)
    return {pattern: forms[0] for pattern, forms in found.items() if len(forms) == 1}


_LOST_WORDS = _patterns()
_LOST_WORD = re.compile(rf"(?<![A-Za-zÀ-ú{LOST}])[A-Za-zÀ-ú{LOST}]*{LOST}[A-Za-zÀ-ú{LOST}]*")
_LOST_ENDING = re.compile(rf"(?<=[a-z])(?:ç|{LOST}){LOST}(?=o\b|es\b)")


def repair_lost(text: str) -> str:
    """`text` with `n�o` as `não` and `condi��es` as `condições`; what could be another word stays."""
    if LOST not in text:
        return text

    def whole(match: re.Match[str]) -> str:
        word = match.group()
        known = _LOST_WORDS.get(word)
        if known is not None:
            return known
        return _LOST_ENDING.sub(lambda ending: "çõ" if word[ending.end() :] == "es" else "çã", word)

    return _LOST_WORD.sub(whole, text)
