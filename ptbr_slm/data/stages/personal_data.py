"""Personal data of Brazil are replaced by their kind: `CPF 111.444.777-35` becomes `CPF [CPF]`.

A number that has check digits is masked where they are right, and never where they are wrong. A number whose
shape alone says too little (bare digits, a postal code, an identity card) also needs a word beside it: the
nearest one before it decides ("CPF", "telefone", "processo"). So numbers of lawsuits, laws, amounts, dates,
ISBN, bank slips and public service numbers (0800, 190) stay. Names of people are not masked.

Sources: check digits by validate-docbr (Receita Federal's CPF and CNPJ, the latter with letters since July
2026: Instrução Normativa RFB 2.229/2024; TSE's Resolução 23.659/2021); Luhn, ISO/IEC 7812-1; area codes,
Anatel's Plano Geral de Códigos Nacionais (Resolução 749/2022); CNJ's Resolução 65/2008 for lawsuits.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.errors import missing_extra

if TYPE_CHECKING:
    from validate_docbr import DocumentBase

TOKENS: Mapping[str, str] = {
    "cpf": "[CPF]",
    "cnpj": "[CNPJ]",
    "phone": "[TELEFONE]",
    "cep": "[CEP]",
    "email": "[EMAIL]",
    "card": "[CARTÃO]",
    "pis": "[PIS]",
    "voter": "[TÍTULO DE ELEITOR]",
    "cnh": "[CNH]",
    "rg": "[RG]",
    "pix": "[CHAVE PIX]",
    "ip": "[IP]",
}
"""Kind of personal data -> what replaces it."""

CONTEXT_CHARS = 60
"""How far before a number its word may be."""
_UNUSED = frozenset({20, 23, 25, 26, 29, 30, 36, 39, 40, 50, 52, 56, 57, 58, 59, 60, 70, 72, 76, 78, 80, 90})
AREA_CODES = frozenset(str(code) for code in range(11, 100) if code not in _UNUSED)
_LUSOPHONE = ("351", "238", "239", "244", "245", "258", "670")
"""Country codes of Portugal, Cabo Verde, São Tomé, Angola, Guiné-Bissau, Moçambique and Timor-Leste."""
_CARD_PREFIX = re.compile(r"4|5[0-9]|6(?:011|[2345]|06282)|2(?:2[2-9]|[3-6]|7[01]|720)|3[0-9]")
"""Visa, Mastercard, Elo, Discover, Hipercard, UnionPay, Amex, Diners, JCB."""


class Masked(NamedTuple):
    """A text without its personal data."""

    text: str
    counts: Mapping[str, int]
    """Kind (a key of `TOKENS`) -> how many were replaced; kinds without any are absent."""


def mask_personal_data(text: str, *, keep: Collection[str] = ()) -> Masked:
    """`text` with personal data replaced by `TOKENS`, in time linear in its length.

    keep: kinds to leave as they are (`cnpj`: the number of a company is public).
    Raises E_DEPENDENCY where a number is to be checked and validate-docbr is not installed.
    """
    counts: Counter[str] = Counter()

    def substitute(match: re.Match[str], kind: str | None) -> str:
        if kind is None or kind in keep:
            return match[0]
        counts[kind] += 1
        return TOKENS[kind]

    if "@" in text:
        text = _EMAIL.sub(lambda match: substitute(match, _email_kind(match)), text)
    if "-" in text and _PIX.search(text):
        text = _RANDOM_KEY.sub(lambda match: substitute(match, _random_key_kind(match)), text)
    for hint, shape in ((_CNPJ_BRANCH, _CNPJ), (_CNPJ_WORD, _BARE_CNPJ)):
        if hint.search(text):
            text = shape.sub(lambda match: substitute(match, _valid_kind("cnpj", match[0])), text)
    if ":" in text:
        text = _IPV6.sub(lambda match: substitute(match, _ip_kind(match)), text)
    text = _NUMBER.sub(lambda match: substitute(match, _number_kind(match)), text)
    return Masked(text, dict(counts))


@dataclass(frozen=True, slots=True)
class MaskPersonalData:
    """Stage: masks personal data, and tells how many of each kind (`masked_cpf`, ...)."""

    keep: tuple[str, ...] = ()
    """Kinds to leave as they are."""
    name: ClassVar[str] = "personal_data"

    def __call__(self, document: Document) -> Document:
        """`document` itself where nothing is masked. Raises E_DEPENDENCY."""
        masked = mask_personal_data(document.text, keep=self.keep)
        if not masked.counts:
            return document
        counts = {f"masked_{kind}": count for kind, count in masked.counts.items()}
        return document.repaired(masked.text, "masked").with_attributes(**counts)


# Shapes. Each begins with a class of characters, so that the search is a scan, and has bounded repeats only.

_EMAIL = re.compile(
    r"[\w%+](?<![\w.%+-][\w%+])[\w.%+-]{0,63}@(?:[^\W_](?:(?:[^\W_]|-){0,61}[^\W_])?\.){1,6}[a-zA-Z]{2,24}(?![\w-])"
)
_EXAMPLE_DOMAIN = re.compile(r"[@.](?:example(?:\.(?:com|net|org))?|test|invalid)$", re.IGNORECASE)
_PIX = re.compile(r"\b[Pp][Ii][Xx]\b")
_RANDOM_KEY = re.compile(
    r"[0-9a-fA-F](?<![\w-].)[0-9a-fA-F]{7}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}(?![\w-])"
)
"""A random Pix key is a version 4 UUID (RFC 9562; Banco Central, DICT API, "EVP")."""
_CNPJ = re.compile(
    r"[0-9A-Za-z](?<![\w/.-].)[0-9A-Za-z]\.[0-9A-Za-z]{3}\.[0-9A-Za-z]{3}/[0-9A-Za-z]{4}-\d\d(?!\w|-\d)"
)
_CNPJ_BRANCH = re.compile(r"/[0-9A-Za-z]{4}-\d\d")
_BARE_CNPJ = re.compile(r"[0-9A-Z](?<![\w/.-].)[0-9A-Z]{11}\d\d(?!\w)")
_CNPJ_WORD = re.compile(r"CNPJ")
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9a-fA-F]{3}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:/])")
"""Only 2000::/3 is public (RFC 4291, section 2.4; IANA's registry)."""

_NUMBER = re.compile(
    r"[0-9(+](?:"
    r"(?<=\()(?P<area>0?\d\d\) ?(?:9[ .-]?)?\d{4}[ .-]?\d{4}(?:/\d{4})?)(?!\w|[.,-]\d)"
    r"|(?<=\+)(?P<abroad>\d(?:[ .()-]{0,2}\d){7,15})(?!\w|[.,-]\d)"
    r"|(?<=\d)(?<![\w/].)(?<![0-9][.,-].)(?:"
    # not personal: lawsuits (with or without the court), bank slips, service numbers
    r"(?P<public>\d{6}-\d\d\.\d{4}\.\d(?:\.\d\d\.\d{4})?|\d{4}\.\d{5} \d{5}\.\d{6} \d{5}\.\d{6} \d \d{14}"
    r"|(?<=0)[3589]00[ -]\d{3}[ -]?\d{3,4}|(?<=[34])00[34][ -]\d{4})(?!\w)"
    r"|(?P<ip>\d{0,2}(?:\.\d{1,3}){3})(?!\w|[.,/-]\d)"
    r"|(?P<cpf>\d\d\.\d{3}\.\d{3}[-/. ]\d\d|\d{8}[-/]\d\d)(?!\w|[.,-]\d)"
    r"|(?P<pis>\d\d\.\d{5}\.\d\d-\d)(?!\w|[.,-]\d)"
    r"|(?P<card>\d{3}(?:[ .-]\d{4}){3}(?:[ .-]\d{1,3})?|\d{3}[ -]\d{6}[ -]\d{5})(?!\w|[.,/-]\d| \d)"
    r"|(?P<voter>\d{3} \d{4} \d{4})(?!\w|[.,/-]\d| \d)"
    r"|(?P<spaced>\d\d \d{3} \d{3} ?-?\d\d)(?!\w|[.,/-]\d| \d)"
    r"|(?P<rg>\d?\.\d{3}\.\d{3}(?:-[\dXx])?)(?!\w|[.,/-]\d)"
    r"|(?P<cep>\d\.?\d{3}-\d{3})(?!\w|[.,/-]\d)"
    r"|(?P<phone>(?:\d|\d\d|5[ -]?\d\d) ?-?(?:9 ?)?\d{4}-\d{4}(?:/\d{4})?)(?!\w|[.,-]\d)"
    r"|(?P<local>\d{3,4}[-. ]\d{4}(?:/\d{4})?)(?!\w|[.,-]\d)"
    r"|(?P<bare>\d{4,18})(?:(?P<rg_digit>-[\dXx])|(?![.,/-]\d))(?!\w)"
    r"))"
)

_CONTEXT = re.compile(
    r"\b(?:"
    r"(?P<cpf>CPFs?|C\.P\.F|cadastro de pessoas? físicas?)"
    r"|(?P<cnpj>CNPJs?|C\.N\.P\.J)"
    r"|(?P<pis>PIS|PASEP|NIS|NIT)"
    r"|(?P<cnh>CNH|habilitação)"
    r"|(?P<voter>título (?:de eleitor|eleitoral)|inscrição eleitoral)"
    r"|(?P<rg>RG|R\.G|registro geral|identidade)"
    r"|(?P<card>cart(?:ão|ões)|Visa|Mastercard|Elo)"
    r"|(?P<phone>tel|telefones?|fones?|celular(?:es)?|whats(?:app)?|zap|fax|lig(?:ue|ar|uem|ou)|contatos?|ramal)"
    r"|(?P<cep>CEP|C\.E\.P)"
    r"|(?P<address>rua|avenida|av|travessa|praça|alameda|rodovia|bairro|endereço)"
    r"|(?P<ip>IPs?|IPv4|servidor(?:es)?|host|DNS|ssh|ping)"
    r"|(?P<pix>pix)"
    r"|(?P<other>ISBN|ISSN|DOI|EAN|SKU|OAB|CRM|processos?|protocolo|autos|acórdãos?|lei|decreto|portaria"
    r"|vers(?:ão|ion)|boleto|código de barras|pedido|modelo|nota fiscal|R ?\$)"
    r")(?:(?<=\$)|(?!\w))",
    re.IGNORECASE,
)


_PHONES = ("area", "phone", "local")
"""Shapes that a second extension may follow: `3302-0444/0445`."""


def _context(match: re.Match[str]) -> str:
    """The kind that the nearest word before the number names; "" where there is none."""
    start = match.start()
    line = match.string.rfind("\n", max(0, start - CONTEXT_CHARS), start) + 1
    nearest, end = "", start
    for word in _CONTEXT.finditer(match.string, line or max(0, start - CONTEXT_CHARS), start):
        nearest, end = word.lastgroup or "", word.end()
    if nearest == "other" and _DIGIT.search(match.string, end, start):
        return ""  # it named the number between: "Lei nº 9.784, ligue 98765-4321"
    return nearest


_DIGIT = re.compile(r"\d")


# Which kind a number is


def _email_kind(match: re.Match[str]) -> str | None:
    """Not the domains of examples (RFC 2606), with which other corpora have masked addresses already."""
    return None if _EXAMPLE_DOMAIN.search(match[0]) else "email"


def _number_kind(match: re.Match[str]) -> str | None:
    """The kind of personal data of a match of `_NUMBER`, or None for any other number."""
    shape = match.lastgroup
    if shape == "public":
        return None
    if shape == "rg_digit":
        return "rg" if _context(match) == "rg" and len(match[0]) <= 12 else None
    digits = re.sub(r"\D", "", match[0].partition("/")[0] if shape in _PHONES else match[0])
    if shape in ("cpf", "pis"):
        return _valid_kind(shape, digits)
    if shape == "card":
        return "card" if _is_card(digits) else None
    if shape == "ip":
        return _ip_kind(match)
    if shape == "abroad":
        return _international_kind(match, digits)
    if shape == "area":
        return "phone" if _is_phone(digits.removeprefix("0")) else None
    if shape == "local":
        return (
            "phone"
            if _is_local_phone(match[0].partition("/")[0], digits) and _context(match) == "phone"
            else None
        )
    context = _context(match)
    if shape == "cep":
        return "cep" if context in ("cep", "address") else None
    if shape == "phone":
        national = digits.removeprefix("55") if len(digits) > 11 else digits.removeprefix("0")
        named = context in ("phone", "pix") or (len(national) == 11 and context != "other")
        return "phone" if named and _is_phone(national) else None
    if shape == "rg":
        return "rg" if context == "rg" else None
    return _bare_kind(digits, context)  # bare, voter, spaced


def _bare_kind(digits: str, context: str) -> str | None:
    """Digits without punctuation: check digits that a word names, or those of a CPF, CNPJ or card alone."""
    length = len(digits)
    if context == "other":
        return None
    if context in ("pis", "cnh", "voter") and _valid(context, digits):
        return context
    if context in ("phone", "pix") and _is_phone(digits.removeprefix("55") if length > 11 else digits):
        return "phone"
    if context == "phone" and length in (8, 9) and _is_local_phone(digits, digits):
        return "phone"
    if context == "rg" and 5 <= length <= 10:
        return "rg"
    if context == "cep" and length == 8:
        return "cep"
    if length == 11 and context != "phone" and _valid("cpf", digits):
        return "cpf"
    if length == 14 and _valid("cnpj", digits):
        return "cnpj"
    if (length in (15, 16) or context == "card") and _is_card(digits):
        return "card"
    return None


def _international_kind(match: re.Match[str], digits: str) -> str | None:
    if digits.startswith("55"):
        return "phone" if _is_phone(digits[2:].removeprefix("0")) else None
    plausible = digits.startswith(_LUSOPHONE) or _context(match) in ("phone", "pix")
    return "phone" if plausible and 10 <= len(digits) <= 15 else None


def _is_phone(digits: str) -> bool:
    """Whether `digits` are an area code with a mobile (nine digits from 9) or a fixed number (eight)."""
    if digits[:2] not in AREA_CODES:
        return False
    return (len(digits) == 11 and digits[2] == "9") or (len(digits) == 10 and digits[2] in "2345")


def _is_local_phone(shape: str, digits: str) -> bool:
    """A number without its area code that is not two years: nine digits from 9, or eight from 2 to 5."""
    if re.fullmatch(r"20\d\d\D20\d\d", shape):
        return False
    return digits[0] == "9" if len(digits) == 9 else digits[0] in "2345"


def _is_card(digits: str) -> bool:
    """Luhn's check and an issuer's prefix; not the same digit throughout."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1 or _CARD_PREFIX.match(digits) is None:
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _ip_kind(match: re.Match[str]) -> str | None:
    """Public addresses of one machine.

    An IPv4 that may be numbering (`item 9.1.2.3`) needs a word that says address. The ends of a range
    (`191.255.255.255`) are nobody's, and one group (`2004::`) is a year before a colon or a network.
    """
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return None
    if not address.is_global or address.is_multicast or match[0].endswith("::"):
        return None
    context = _context(match)
    if address.version == 4:
        if address.packed[2:] in (b"\x00\x00", b"\xff\xff"):
            return None
        numbering = sum(byte >= 32 for byte in address.packed) < 2
        if numbering and context != "ip":
            return None
    return None if context == "other" else "ip"


def _random_key_kind(match: re.Match[str]) -> str | None:
    start = match.start()
    return "pix" if _PIX.search(match.string, max(0, start - CONTEXT_CHARS), start) else None


def _valid_kind(kind: str, number: str) -> str | None:
    return kind if _valid(kind, number) else None


def _valid(kind: str, number: str) -> bool:
    """Whether the check digits of `number` are right; `kind` is cpf, cnpj, pis, cnh or voter."""
    return _validators()[kind].validate(number)


@cache
def _validators() -> Mapping[str, DocumentBase]:
    try:
        from validate_docbr import CNH, CNPJ, CPF, PIS, TituloEleitoral
    except ImportError as error:
        raise missing_extra("validate_docbr") from error
    return {"cpf": CPF(), "cnpj": CNPJ(), "pis": PIS(), "cnh": CNH(), "voter": TituloEleitoral()}
