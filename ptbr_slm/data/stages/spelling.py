"""Which spelling a text follows, as the attribute `spelling`: nothing is dropped or changed.

Portuguese was spelt by etymology until 1943 in Brazil and 1911 in Portugal (`pharmacia, elle, theatro`), with
more accents until 1971 (`êle, sôbre, sòmente`), and with trema and `idéia, vôo` until the agreement of 1990
came into force in 2009. Old books are good text; who wants the present spelling alone filters by this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptbr_slm.data.document import Document

CURRENT = "current"
"""No sign of an older spelling: most short texts have none in any case."""
_ETYMOLOGICAL = """
elle ella elles ellas nelle aquelle aquella aquelles aquellas aquillo áquelle áquella alli anno annos
belleza bocca boccas cabello cabellos castello capella cavallo cavallos cavalleiro cavalleiros cavallaria
janella janellas fallar fallou fallava fallando collegio estrella penna panno innocente innocencia immenso
immensa immediatamente commum commigo communicação commercio commoção commovido commandante occasião
occasiões occulto occultar accrescentou peccado succedeu soccorro acceitar attenção attenções attitude
affecto affectos affeição effeito effeitos difficil difficuldade differente differença indifferente
indifferença offerecer offereceu officio officiaes soffrer soffria soffrimento apparecer appareceu apparecia
apparencia desappareceu approximou supposto applicação illustre intelligencia intelligente tranquillo
tranquilla pallido pallida excellente excellencia metter metteu pharmacia philosophia philosopho physionomia
phantasia triumpho sympathia theatro theoria thesouro throno enthusiasmo mathematica athmosphera atmosphera
orthographia mysterio mysterios mysterioso mysteriosa martyrio abysmo lyrio estylo systema lagryma chimica
christão christã christo monarcha sciencia sciencias scena scenas consciencioso assumpto prompto prompta
promptamente escriptorio escripto escripta escriptor auctor auctoridade victima victimas lucta luctar
instincto espectaculo respeitavel hontem egreja edade egual eguaes quasi paiz paizes portuguez portugueza
francez ingleza inglez mez mezes atraz vae vaes pae sahir sahiu sahia cahir cahiu cahia poude ahi cahido
emquanto emfim comsigo hombros creança creanças idéa idéas telegramma photographia chronica chapéo céo véo
taes quaes
"""
_ACCENTED = """
êle êles êste êstes êsse êsses aquêle aquêles dêle dêles dêste dêsse nêle nêles nêste daquêle naquêle sôbre
tôda tôdas outrôra côr côres flôr flôres dôr dôres môça môças môço môços fôrça fôrças fôlha almôço esfôrço
govêrno govêrnos têrmo têrmos emprêgo enderêço comêço pêso gôsto gôzo rôsto pôrto pôsto jôgo fôgo sòmente
ràpidamente fàcilmente cafèzinho sòzinho ùnicamente
"""
_TREMA = re.compile("[gq]ü[eéêií]")
_BEFORE_2009 = """
idéia idéias assembléia assembléias platéia platéias estréia estréias européia européias epopéia jóia jóias
jibóia heróico heróica heróicos heróicas paranóico estóico apóia apóiam vôo vôos enjôo enjôos perdôo abençôo
magôo zôo vêem lêem crêem dêem prevêem relêem descrêem clarabóia geléia colméia odisséia panacéia
onomatopéia feiúra baiúca
"""
_SPELLINGS = (
    ("before_1943", frozenset(_ETYMOLOGICAL.split())),
    ("before_1971", frozenset(_ACCENTED.split())),
    ("before_2009", frozenset(_BEFORE_2009.split())),
)
_OLD = frozenset().union(*(known for _, known in _SPELLINGS))
_WORD = re.compile(r"[^\W\d_]+")
MIN_HITS = 2
"""Words of an old spelling that it takes to tell."""
MIN_SHARE = 1 / 1500
"""Share of all words that they must be: a modern text quotes an old title."""


def spelling_of(text: str) -> str:
    """`before_1943`, `before_1971`, `before_2009` or `current`: the oldest that enough words follow."""
    words = _WORD.findall(text.lower())
    if "ü" not in text and _OLD.isdisjoint(words):
        return CURRENT
    least = max(MIN_HITS, MIN_SHARE * len(words))
    trema = len(_TREMA.findall(text.lower())) if "ü" in text else 0
    for name, known in _SPELLINGS:
        hits = sum(word in known for word in words) + (trema if name == "before_2009" else 0)
        if hits >= least:
            return name
    return CURRENT


@dataclass(frozen=True, slots=True)
class Spelling:
    """Stores `spelling_of` the text as the attribute `spelling`."""

    name: str = "spelling"

    def __call__(self, document: Document) -> Document:
        """The document with the attribute."""
        return document.with_attributes(spelling=spelling_of(document.text))
