"""Pronouns and prepositions on which the prescribed norm and Brazilian usage differ: a group apart.

A low score here says that a model writes as Brazilians speak, and not that it does not know the language.
"""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate

_GIVEN = (
    # what was given, for _ ... | what to do with it
    ("ela trouxe um livro para _", "ler guardar"),
    ("o professor deixou a carta para _", "ler assinar guardar"),
    ("meu tio mandou o jornal para _", "ler"),
    ("o menino trouxe uma história para _", "ler"),
    ("há um bilhete para _", "ler"),
    ("ele comprou um romance para _", "ler"),
    ("minha irmã escolheu um poema para _", "ler"),
    ("o diretor entregou o contrato para _", "assinar ler"),
    ("a moça fez um café para _", "beber tomar"),
    ("minha avó fez um bolo para _", "provar comer levar"),
    ("o médico deu um remédio para _", "tomar"),
    ("meu pai trouxe vinho para _", "beber provar servir"),
    ("ele deu dinheiro para _", "guardar gastar"),
    ("o velho deixou um relógio para _", "usar vender guardar"),
    ("o rei mandou um cavalo para _", "vender"),
    ("minha tia fez um casaco para _", "usar vestir"),
    ("ela separou uma camisa para _", "usar lavar vestir"),
    ("o pintor deixou um quadro para _", "vender ver"),
    ("meu primo trouxe uma mala para _", "abrir guardar levar"),
)
_LATER = ("", "amanhã", "antes do jantar", "com calma")
_RECEIVED = ("", "ontem", "no domingo", "antes do jantar", "depois da aula")


def for_me(draw: Draw) -> Iterator[Contrast]:
    """para eu ler, with a verb; para mim, without."""
    while True:
        sentence, verbs = draw.one(_GIVEN)
        verb = draw.random.choice(verbs.split())
        other, _ = draw.one(_GIVEN)
        if sentence == other:
            continue
        received = "" if other.startswith("há") else draw.one(_RECEIVED)
        frames = (f"{sentence} {verb} {draw.one(_LATER)}".strip(), f"{other} {received}".strip())
        yield Contrast(frames, ("eu", "mim"), (f"{verb} {sentence}", other))


_CITIES = (
    "Lisboa",
    "Paris",
    "Londres",
    "Roma",
    "Petrópolis",
    "Minas",
    "Pernambuco",
    "Santos",
    "Niterói",
    "Madri",
)
_TRAVELLERS = (
    "minha tia",
    "o médico",
    "a moça",
    "meu irmão",
    "a professora",
    "o ministro",
    "ela",
    "eu",
    "nós",
)
_MOVES = (
    ("chegar", "ontem"),
    ("ir", "no domingo"),
    ("chegar", "de madrugada"),
    ("voltar", "no ano passado"),
    ("chegar", "depois da guerra"),
    ("ir", "com os amigos"),
    ("voltar", "sem dinheiro"),
)
_STAYS = (
    ("morar", "dois anos"),
    ("ficar", "três dias"),
    ("viver", "muito tempo"),
    ("trabalhar", "até o ano passado"),
    ("estudar", "com os irmãos"),
    ("dormir", "ontem"),
    ("parar", "por duas horas"),
)


def motion(draw: Draw) -> Iterator[Contrast]:
    """a after verbs of motion, em after verbs of place."""
    while True:
        (go, when), (stay, long), city = draw.one(_MOVES), draw.one(_STAYS), draw.one(_CITIES)
        who = draw.one(_TRAVELLERS)
        person = {"eu": "1s", "nós": "1p"}.get(who, "3s")
        frames = (
            f"{who} {conjugate(go, 'pret', person)} _ {city} {when}",
            f"{who} {conjugate(stay, 'pret', person)} _ {city} {long}",
        )
        yield Contrast(frames, ("a", "em"), (f"{go} {when}", f"{stay} {long}", who, city))


_TOLD = (
    ("dizer", "a verdade"),
    ("contar", "o segredo"),
    ("dar", "um livro"),
    ("mostrar", "a carta"),
    ("pedir", "dinheiro"),
    ("escrever", "uma longa carta"),
    ("perguntar", "o nome do médico"),
    ("oferecer", "um café"),
    ("trazer", "boas notícias"),
    ("entregar", "a chave"),
    ("chamar", "para jantar"),
    ("convidar", "para a festa"),
    ("esperar", "na estação"),
    ("encontrar", "em casa"),
    ("levar", "ao teatro"),
    ("ver", "na igreja"),
    ("ajudar", "com as malas"),
    ("ouvir", "com atenção"),
)
_AFTER_WHEN = (
    "quando ela _ {}, já era tarde",
    "foi o médico que _ {}",
    "a moça que _ {} não é daqui",
    "sei que ele _ {}",
    "dizem que o rei _ {}",
    "é verdade que ela _ {}",
    "não sei por que ele _ {}",
)


def initial_clitic(draw: Draw) -> Iterator[Contrast]:
    """Enclisis at the beginning of a sentence, proclisis in a subordinate clause."""
    while True:
        verb, rest = draw.one(_TOLD)
        clitic, after = draw.one(("me", "nos")), draw.one(_AFTER_WHEN)
        ending = draw.one(("ontem à noite", "sem demora", "depois do jantar", "naquele dia"))
        form = conjugate(verb, "pret", "3s")
        frames = (f"_ {rest} {ending}", after.format(rest))
        yield Contrast(
            frames, (f"{form}-{clitic}", f"{clitic} {form}"), (f"{verb} {clitic}", f"{rest} {after}", after)
        )


PHENOMENA = (
    Phenomenon(
        "para_eu_para_mim",
        "Para eu e para mim",
        Register.STANDARD,
        "Sujeito de infinitivo: para eu ler. Complemento: para mim.",
        "Cunha e Cintra, Nova gramática, cap. 11; Bechara, Moderna gramática.",
        for_me,
        "Para mim ler é comum na fala brasileira; um livro para eu é errado para todos.",
        repeats=5,
    ),
    Phenomenon(
        "verbo_movimento",
        "Preposição com verbos de movimento",
        Register.STANDARD,
        "Ir, chegar e voltar pedem a; morar, ficar e nascer, em.",
        "Luft, Dicionário prático de regência verbal; Bechara, Moderna gramática.",
        motion,
        "Chegar em e ir em são gerais no uso brasileiro.",
        repeats=8,
    ),
    Phenomenon(
        "enclise_inicial",
        "Pronome átono no início da frase",
        Register.STANDARD,
        "A frase não começa por pronome átono (disse-me); a oração subordinada pede a próclise (que me "
        "disse).",
        "Cunha e Cintra, Nova gramática, cap. 11 (colocação dos pronomes átonos).",
        initial_clitic,
        "Me disse é a forma corrente no Brasil.",
        repeats=9,
    ),
)
