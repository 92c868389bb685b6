"""Brazilian or European Portuguese: a small model of spelling, words and grammar that abstains.

A text is judged by signs, each of which one variety writes and the other seldom does: `econômico` and
`económico`, `ônibus` and `autocarro`, `estou fazendo` and `estou a fazer`. A logistic regression over how
often each class of signs occurs gives the probability of Brazilian. The classes are few and none is a name
or a topic, so what is learnt in one domain holds in another. Without signs the answer is unknown.

Signs: Acordo Ortográfico of 1990, bases IV, IX and XI; for older texts Formulário Ortográfico of 1943
(Brazil) and Convenção of 1945 (Portugal); Cunha and Cintra, "Nova Gramática do Português Contemporâneo", for
clitics, articles and the progressive. scripts/fit_variety.py fits the weights and names its sources.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped

BRAZILIAN, EUROPEAN, UNKNOWN = "br", "pt", "unknown"
MIN_CONFIDENCE = 0.9
"""Probability of a variety from which it is named."""
MAX_CHARS = 20_000
"""Of a longer text, the beginning and the end of these many characters together are judged."""


class Variety(NamedTuple):
    """The variety of a text."""

    code: str
    """`br`, `pt` or `unknown`."""
    brazilian: float
    """Calibrated probability of Brazilian Portuguese, 0 to 1."""


def identify_variety(text: str, *, min_confidence: float = MIN_CONFIDENCE) -> Variety:
    """The variety whose probability is at least `min_confidence`, or unknown."""
    weights = _weights()
    evidence = sum(weights[sign] * math.log2(1 + count) for sign, count in count_signs(text).items())
    brazilian = 1 / (1 + math.exp(-evidence))
    if brazilian >= min_confidence:
        return Variety(BRAZILIAN, brazilian)
    return Variety(EUROPEAN if 1 - brazilian >= min_confidence else UNKNOWN, brazilian)


@dataclass(frozen=True, slots=True)
class TagVariety:
    """Stage: sets `variety` (br, pt, unknown) and `variety_br`, the probability of Brazilian."""

    min_confidence: float = MIN_CONFIDENCE
    name: str = "tag_variety"

    def __call__(self, document: Document) -> Document:
        """The document with its two attributes."""
        found = identify_variety(document.text, min_confidence=self.min_confidence)
        return document.with_attributes(variety=found.code, variety_br=round(found.brazilian, 4))


@dataclass(frozen=True, slots=True)
class KeepVariety:
    """Stage: drops what is surely the other variety, as `other_variety`; unknown documents stay."""

    variety: Literal["br", "pt"]
    min_confidence: float = MIN_CONFIDENCE
    name: str = "keep_variety"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document, or `other_variety` by the attribute that `TagVariety` sets."""
        brazilian = float(document.attributes.get("variety_br", 0.5))
        other = 1 - brazilian if self.variety == "br" else brazilian
        if other < self.min_confidence:
            return document
        return Dropped("other_variety", {"other_variety": other, "least": self.min_confidence})


# Signs

SIGNS: Mapping[str, float] = {
    "br_circumflex": +3.0,  # econômico, gênero
    "pt_acute": -3.0,  # económico, género
    "pt_consonant": -3.0,  # acção, objecto, óptimo: not in Brazil since 1943, in Portugal until 2009
    "br_consonant": +0.5,  # recepção, perspectiva: not in Portugal since 2009
    "pt_past": -3.0,  # falámos
    "br_trema": +3.0,  # freqüente, idéia: in Brazil until 2009
    "br_word": +2.0,
    "pt_word": -2.0,
    "br_you": +1.0,  # você
    "br_spoken": +1.0,  # pra, né
    "br_gerund": +0.7,  # estou fazendo
    "pt_infinitive": -0.7,  # estou a fazer
    "br_in_a": +0.4,  # em um
    "pt_in_a": -0.4,  # num
    "br_possessive": +0.3,  # de seu
    "pt_possessive": -0.3,  # do seu
    "pt_enclisis": -0.1,  # chama-se
    "pt_month": -1.0,  # de Março de
}
"""Class of signs -> its weight before any data, positive for Brazilian.

Norms of spelling hold in every domain; grammar is a matter of frequency, and weighs little.
"""

_BR_WORDS = (
    "ônibus esporte esportes esportivo esportiva esportivos trens bonde úmido umidade quatorze "
    "cotidiano cotidiana registrar registro registros planejamento planejar planejado planejada "
    "controle contato contatos fato fatos dezesseis dezessete dezenove bilhão bilhões trilhão trilhões "
    "caminhão caminhões anistia indenização indenizar equipe percentual estresse polonês loiro "
    "maquiagem usuário usuários usuária arquivo arquivos celular celulares banheiro geladeira gramado "
    "goleiro torcida torcedor torcedores escanteio prefeito prefeita prefeitura deletar compartilhar "
    "compartilhado compartilhada monitorar monitoramento gerenciar gerenciamento gerenciador acessar "
    "acessado acesse senha senhas cadastro cadastrar cadastrado açougue sorvete abacaxi xícara moleque "
    "garota bagunça aposentadoria aluguel dublagem gibi favela delegacia estadual estaduais faturamento "
    "mídia terremoto pedágio câncer aids bebê bebês judô tricô nenê encanador plugue grampeador "
    "aeromoça contêiner planilha planilhas sutil seção seções conosco tênis"
)
_PT_WORDS = (
    "autocarro autocarros desporto desportivo desportivos comboio comboios húmido humidade catorze "
    "quotidiano quotidiana registar registo registos registado registada registados planeamento planear "
    "planeado planeada controlo controlos contacto contactos contactar contactado facto factos "
    "dezasseis dezassete dezanove camião camiões amnistia indemnização indemnizar equipa equipas "
    "percentagem polaco maquilhagem utilizador utilizadores ecrã ecrãs ficheiro ficheiros telemóvel "
    "telemóveis frigorífico relvado guarda-redes autarca autarcas concelho concelhos freguesia "
    "partilhar partilhado partilhada monitorizar monitorização aceder acedido aceda palavra-passe "
    "palavras-passe ananás boleia chávena rapariga raparigas aluguer dobragem portagem portagens cancro "
    "sida bebé bebés canalizador contentor contentores predefinição predefinições predefinido "
    "predefinida predefinidos predefinidas hiperligação hiperligações aspeto aspetos receção perceção "
    "perspetiva perspetivas conceção respetivo respetiva respetivos respetivas espetador espetadores "
    "expetativa expetativas infeção detetar detetado rutura connosco ténis subtil súbdito carácter "
    "secção secções pequeno-almoço gajo gajos arguido arguidos andebol golo golos baliza penálti montra "
    "montras morada rés-do-chão quilómetro quilómetros aquando nomeadamente designadamente propinas "
    "premir premindo reencaminhar sítio"
)
_BR_CONSONANT_WORDS = (
    "espectador espectadores recepção percepção perspectiva perspectivas concepção ruptura detectar "
    "detectado aspecto aspectos infecção respectivo respectiva respectivos respectivas expectativa "
    "expectativas"
)
_POSSESSIVES = "seu sua seus suas meu minha meus minhas nosso nossa nossos nossas"
_WORD_SIGNS: Mapping[str, str] = {
    **dict.fromkeys(_BR_WORDS.split(), "br_word"),
    **dict.fromkeys(_PT_WORDS.split(), "pt_word"),
    **dict.fromkeys(_BR_CONSONANT_WORDS.split(), "br_consonant"),
    **dict.fromkeys(("pra", "pras", "pro", "pros", "né", "tá", "tô", "cadê"), "br_spoken"),
    **dict.fromkeys(("você", "vocês", "Você", "Vocês"), "br_you"),
    **dict.fromkeys(("num", "numa", "nuns", "numas", "dum", "duma"), "pt_in_a"),
    **dict.fromkeys(("um", "uma"), "article"),
    **dict.fromkeys(_POSSESSIVES.split(), "possessive"),
}
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("br_circumflex", re.compile(r".*[êô][mn][aeiou]")),
    ("pt_acute", re.compile(r".*[éó][mn][aeio]")),
    ("br_trema", re.compile(r".*(?:[gq]ü[eêiéí]|[^aeiou](?:éi[ao]s?|ói[ao]s?|óic[oa]s?|éic[oa]s?)$)")),
    ("pt_past", re.compile(r".*\w\wámos$")),
    ("pt_enclisis", re.compile(r".*\w\w-(?:me|te|se|lhes?|nos|vos|[oa]s?|l[oa]s?|n[oa]s?)$")),
    (
        "pt_consonant",
        re.compile(
            r"(?:in|re|inter|contra|trans)?(?:acç|activ(?:[oa]s?|idades?|amente|ar|ad[oa]s?)$|act[oa]s?$|actu(?:a|á))"
            r"|(?:di|co)rrecç|direcç|[sp]\w*lecç|protecç|colecç|projecç|injecç|objecç|redacç|frac[çc]ion|fracç|tracç"
            r"|infracç|abstracç|(?:ob|pro)ject(?:[oa]s?|iv[oa]s?|ar|ad[oa]s?)$|(?:in)?(?:di|co)r?rect(?:[oa]s?|amente)$"
            r"|director(?:es|as?|ia)?$|eléctr|electr(?:icidade|ónic)|afect|exact(?:[oa]s?|amente|idão)$|factur|tectos?$"
            r"|arquitect|nocturn|lectiv|insectos?$|óptim|optimi(?:smo|sta|zar)|adopt(?:a|e|ou|ad[oa]s?|ar)|baptis|baptiz"
            r"|excepç|excepto|rectific|efectu|efectiv|seleccion|direccion|coleccion|accion|vectores$|conjectur"
        ),
    ),
)
_PROGRESSIVE = re.compile(
    r"(?:est(?:ou|á|ão|ava|avam|amos|ávamos|ive|eve|iver|eja|ejam|ar)|fic(?:a|ou|am|aram|ar|ava)"
    r"|continu(?:a|ou|am|aram|ar|ava|avam|e)|and(?:a|am|ava|avam|ou))$"
)
_GERUND = re.compile(r"\w+[aei]ndo$")
_INFINITIVE = re.compile(r"\w+[aei]r(?:-\w+)?$")
_ARTICLE_WORDS = "o a os as do da dos das no na nos nas ao à aos às pelo pela pelos pelas"
_ARTICLE = frozenset(_ARTICLE_WORDS.split())
_PREPOSITION_WORDS = "de em com para por e que entre sobre"
_PREPOSITION = frozenset(_PREPOSITION_WORDS.split())
_PORTUGUESE = frozenset(["não", "uma", "um", "em", "com", "do", "dos", "da", "das", "ao", "é", "são"])
"""Frequent words that English and Spanish do not have: a sixth of a Portuguese text."""
_LEAST_SHARE = 0.04
_JUDGED_WORDS = 40
"""A shorter text is taken for Portuguese."""
_TOKEN = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_MONTHS = "Janeiro|Fevereiro|Março|Abril|Maio|Junho|Julho|Agosto|Setembro|Outubro|Novembro|Dezembro"
_MONTH = re.compile(rf"(?<!Rio )\bde (?:{_MONTHS})\b")
"""European Portuguese wrote months with a capital before 2009."""


def count_signs(text: str) -> Counter[str]:
    """Class of signs (a key of `SIGNS`) -> how often it occurs. Words with a capital are taken for names.

    Another language has no signs: "actually" is no European spelling.
    """
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS // 2] + "\n" + text[-MAX_CHARS // 2 :]
    found = _TOKEN.findall(text)
    counts: Counter[str] = Counter()
    if len(found) >= _JUDGED_WORDS and sum(map(_PORTUGUESE.__contains__, found)) < _LEAST_SHARE * len(found):
        return counts
    tokens = ["", *found, "", ""]
    for index, sign in enumerate(map(_word_sign, tokens)):
        if sign in _OF_NEIGHBOURS:
            sign = _sign_of_neighbours(sign, tokens[index - 1], tokens[index + 1], tokens[index + 2])
        if sign:
            counts[sign] += 1
    if months := len(_MONTH.findall(text)):
        counts["pt_month"] = months
    return counts


@lru_cache(maxsize=100_000)
def _word_sign(word: str) -> str:
    """The class that a word alone belongs to, a key of `_OF_NEIGHBOURS`, or ""."""
    sign = _WORD_SIGNS.get(word, "")
    if sign or not word.islower():
        return sign
    for name, shape in _SHAPES:
        if shape.match(word):
            return name
    return "progressive" if _PROGRESSIVE.match(word) else ""


_OF_NEIGHBOURS = frozenset({"possessive", "article", "progressive"})
"""Of words whose class depends on the words beside them."""


def _sign_of_neighbours(kind: str, before: str, after: str, second: str) -> str:
    if kind == "article":
        return "br_in_a" if before == "em" else ""
    if kind == "possessive":
        return "pt_possessive" if before in _ARTICLE else "br_possessive" if before in _PREPOSITION else ""
    if after == "a" and _INFINITIVE.match(second):
        return "pt_infinitive"
    return "br_gerund" if _GERUND.match(after) else ""


@cache
def _weights() -> Mapping[str, float]:
    """Class of signs -> its weight, of the binary logarithm of one plus its count."""
    stored = json.loads((files(__package__) / "variety.json").read_text(encoding="utf-8"))
    return {sign: float(stored["weights"][sign]) for sign in SIGNS}
