"""Agreement inside the noun phrase: determiner, quantifier and adjective with their noun."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import (
    MASS,
    PLURAL,
    SINGULAR,
    Draw,
    Noun,
    activities,
    adjectives,
    agree,
    past,
    words,
)
from ptbr_slm.eval.grammar.lexicon import noun as named
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register

_DETERMINERS = ("o", "um", "este", "aquele", "esse", "seu")
_NOT_ONES_OWN = ("visitar", "roubar", "assinar", "construir", "comprar", "resolver", "trazer", "receber")
_MINE = ("meu", "nosso")
_THINGS_OF_OURS = ("encontrar", "perder", "guardar", "lavar", "vender", "ler", "pintar", "esquecer")
_PLACES = (
    (
        ("do", "da"),
        "saiu {} muito cedo",
        "hospital teatro hotel museu palácio",
        "casa igreja escola loja praia",
    ),
    (
        ("no", "na"),
        "entrou {} sem fazer barulho",
        "quarto teatro hotel museu",
        "sala cozinha igreja biblioteca",
    ),
    (("neste", "nesta"), "mora {} há dois anos", "bairro prédio país hotel", "rua casa cidade ilha"),
    (
        ("naquele", "naquela"),
        "trabalhou {} até o ano passado",
        "hospital banco colégio",
        "fazenda loja escola",
    ),
    (("pelo", "pela"), "passou {} ontem à tarde", "mercado jardim museu porto", "igreja praia ponte escola"),
    (("daquele", "daquela"), "gosta muito {}", "bairro museu jardim teatro", "cidade praia rua casa"),
    (
        ("deste", "desta"),
        "falou {} durante o jantar",
        "país hotel bairro hospital",
        "cidade fazenda escola ilha",
    ),
)


def determiner_gender(draw: Draw) -> Iterator[Contrast]:
    """The same sentence with a masculine and with a feminine noun."""
    while True:
        if draw.chance(0.3):
            forms, predicate, masculine, feminine = draw.one(_PLACES)
            who = draw.person()
            pair = named(draw.random.choice(masculine.split())), named(draw.random.choice(feminine.split()))
            frames = tuple(f"{who.the()} {predicate.format('_ ' + what.singular)}" for what in pair)
            yield Contrast(frames, forms, (who.singular, *(what.singular for what in pair), predicate))
            continue
        activity = draw.activity()
        found = draw.pick(activity.nouns, "M"), draw.pick(activity.nouns, "F")
        if found[0] is None or found[1] is None:
            continue
        mass = any(what is not None and what.singular in MASS for what in found)
        owned = activity.verb in _THINGS_OF_OURS and draw.chance(0.4)
        determiner = draw.one(_MINE if owned else _DETERMINERS)
        if (mass and determiner == "um") or (determiner == "seu" and activity.verb in _NOT_ONES_OWN):
            continue
        (subject, who_lemma), when = draw.doer(activity), draw.one(activity.adjuncts)
        pair = found[0], found[1]
        frames = tuple(f"{subject} {past(activity.verb)} _ {what.singular} {when}" for what in pair)
        yield Contrast(
            frames,
            (determiner, agree(determiner, "F")),
            (who_lemma, pair[0].singular, pair[1].singular, activity.verb),
        )


def determiner_number(draw: Draw) -> Iterator[Contrast]:
    """The same sentence with the noun in the singular and in the plural."""
    while True:
        activity = draw.activity()
        what = draw.pick(activity.nouns, plural=True)
        if what is None or what.kind in ("tempo", "comida") or activity.verb in ("construir", "fazer"):
            continue
        owned = activity.verb in _THINGS_OF_OURS and draw.chance(0.4)
        determiner = draw.one(_MINE if owned else _DETERMINERS)
        if determiner == "seu" and activity.verb in _NOT_ONES_OWN:
            continue
        (subject, who), when = draw.doer(activity), draw.one(activity.adjuncts)
        forms = agree(determiner, what.gender), agree(determiner, what.gender, PLURAL)
        frames = tuple(
            f"{subject} {past(activity.verb)} _ {what.form(number)} {when}" for number in (SINGULAR, PLURAL)
        )
        yield Contrast(frames, forms, (who, what.singular, activity.verb))


_QUANTIFIERS = ("todos", "muitos", "poucos", "vários", "ambos", "alguns", "dois", "quantos", "nenhum")


def quantifier_gender(draw: Draw) -> Iterator[Contrast]:
    """todos/todas, muitos/muitas, dois/duas, nenhum/nenhuma before the noun."""
    while True:
        activity = draw.activity()
        masculine = draw.pick(activity.nouns, "M", plural=True)
        feminine = draw.pick(activity.nouns, "F", plural=True)
        if masculine is None or feminine is None or activity.verb in ("construir", "preparar"):
            continue
        pair, word = (masculine, feminine), draw.one(_QUANTIFIERS)
        if any(what.singular in (*MASS, "casa", "fazenda", "loja") for what in pair):
            continue
        if word == "poucos" and activity.verb in ("perder", "quebrar", "esquecer", "roubar"):
            continue
        (subject, who), when, verb = draw.doer(activity), draw.one(activity.adjuncts), past(activity.verb)
        lemmas = (who, activity.verb, masculine.singular, feminine.singular, word)
        frames = tuple(_quantified(word, what, subject, verb, when) for what in pair)
        yield Contrast(frames, (word, _feminine_quantifier(word)), lemmas)


def _quantified(word: str, what: Noun, subject: str, verb: str, when: str) -> str:
    if word == "quantos":
        return f"_ {what.plural} {subject} {verb} {when}?"
    if word == "nenhum":
        return f"{subject} não {verb} _ {what.singular} {when}"
    article = agree("o", what.gender, PLURAL) + " " if word in ("todos", "ambos") else ""
    return f"{subject} {verb} _ {article}{what.plural} {when}"


def _feminine_quantifier(word: str) -> str:
    return {"dois": "duas", "alguns": "algumas", "nenhum": "nenhuma"}.get(word) or word[:-2] + "as"


_LOOKS = frozenset(words("antigo novo bonito pequeno branco preto vermelho amarelo caro barato comprido"))
_FITS: dict[str, frozenset[str]] = {
    verb: frozenset(words.split())
    for verb, words in {
        "escrever": "longo curto estranho bonito complicado sincero",
        "ler": "longo curto antigo estranho complicado falso verdadeiro sincero",
        "contar": "longo curto estranho bonito verdadeiro complicado",
        "receber": "longo curto estranho sincero falso caro bonito",
        "assinar": "longo complicado falso novo justo",
        "explicar": "longo complicado estranho curto justo",
        "resolver": "complicado estranho",
        "fazer": "longo curto perigoso estranho complicado sincero",
        "preparar": "longo curto frio",
        "beber": "frio",
        "comer": "frio maduro pequeno",
        "servir": "frio",
        "cortar": "seco maduro pequeno branco vermelho alto",
        "construir": "novo pequeno bonito alto estreito",
        "visitar": "antigo pequeno bonito vazio famoso novo",
        "lavar": "sujo branco preto novo antigo vermelho",
        "comprar": "antigo bonito pequeno branco preto vermelho amarelo comprido",
        "vender": "antigo bonito pequeno branco preto quebrado",
        "abrir": "fechado estreito antigo pequeno sujo",
        "fechar": "aberto estreito antigo pequeno sujo",
        "quebrar": "vazio cheio novo antigo caro",
        "pintar": "sujo antigo pequeno bonito comprido alto",
        "encontrar": "aberto fechado molhado falso quebrado antigo bonito pequeno preto branco caro",
        "guardar": "limpo seco branco antigo bonito pequeno vermelho",
        "deixar": "aberto vazio molhado sujo pequeno preto",
    }.items()
}
"""What a thing may well be that this is done to; other verbs go with how it looks.

Not here, because the masculine singular could be an adverb: comprar caro, vender barato, fazer rápido.
"""

_PORTABLE = frozenset(
    words("copo prato faca camisa vestido lenço sapato chapéu luva garrafa xícara papel livro mala bolsa")
)
_PEOPLE = (
    "{it} chegou cedo à festa|{it} chegaram cedo à festa",
    "{it} esperava na sala|{it} esperavam na sala",
    "{it} bateu na porta|{it} bateram na porta",
    "{it} entrou no teatro|{it} entraram no teatro",
    "{it} saiu da reunião|{it} saíram da reunião",
    "{it} leu a carta em voz alta|{it} leram a carta em voz alta",
    "{it} respondeu à pergunta|{it} responderam à pergunta",
    "{it} falou com o diretor|{it} falaram com o diretor",
    "{it} passou por aqui ontem|{it} passaram por aqui ontem",
    "{it} perdeu a paciência|{it} perderam a paciência",
)
"""The person is the subject: an adjective after an object could describe the subject instead."""
_WHERE = (
    "conheceu {it} durante a viagem",
    "viu {it} no mapa",
    "visitou {it} no domingo",
    "desenhou {it} em poucos minutos",
)
_OF_PEOPLE_TOO = frozenset(words("limpo sujo molhado seco calado sincero cheio curioso frio"))
"""Not after an object for the same reason; they stand in "havia ... na sala"."""
_THERE = ("havia {it} em cima da mesa", "havia {it} no armário", "há {it} naquela mala", "havia {it} na sala")
_WHERE_ADJECTIVES = frozenset(words("antigo novo bonito pequeno vazio famoso"))


def _mentions(draw: Draw, adjective: str, pair: tuple[Noun, Noun]) -> tuple[str, str] | None:
    """A frame (singular|plural where they differ) with {it} for nouns so described; and its content word."""
    kinds = {what.kind for what in pair}
    if kinds <= {"pessoa", "figura", "parente"}:
        frame = draw.one(_PEOPLE)
        return frame, frame
    if adjective in _OF_PEOPLE_TOO:
        frame = draw.one(_THERE)
        portable = all(what.singular in _PORTABLE for what in pair)
        return (frame, frame) if portable else None
    if kinds == {"lugar"} and adjective in _WHERE_ADJECTIVES and draw.chance():
        who = draw.person()
        return f"{who.the()} {draw.one(_WHERE)}", who.singular
    fitting = [
        activity
        for activity in activities()
        if adjective in _FITS.get(activity.verb, _LOOKS)
        and all(what.singular in activity.nouns for what in pair)
    ]
    if not fitting:
        return None
    activity = draw.random.choice(fitting)
    subject, who_lemma = draw.doer(activity)
    return f"{subject} {past(activity.verb)} {{it}} {draw.one(activity.adjuncts)}", who_lemma


def adjective_gender(draw: Draw) -> Iterator[Contrast]:
    """A masculine and a feminine noun with the adjective after them."""
    while True:
        adjective = draw.one(adjectives())
        number = SINGULAR if draw.chance(0.65) or adjective.lemma == "zangado" else PLURAL
        nouns = [named(name) for name in adjective.nouns]
        usable = [what for what in nouns if number == SINGULAR or what.has_plural]
        masculine = [what for what in usable if what.gender == "M"]
        feminine = [what for what in usable if what.gender == "F"]
        if not masculine or not feminine:
            continue
        pair = draw.random.choice(masculine), draw.random.choice(feminine)
        if (found := _mentions(draw, adjective.lemma, pair)) is None:
            continue
        frame, who = found
        determiner = "o" if any(what.singular in MASS for what in pair) or number == PLURAL else "um"
        frames = tuple(
            _placed(frame, agree(determiner, what.gender, number), what.form(number), number) for what in pair
        )
        forms = agree(adjective.lemma, "M", number), agree(adjective.lemma, "F", number)
        yield Contrast(frames, forms, (adjective.lemma, pair[0].singular, pair[1].singular, who))


def adjective_number(draw: Draw) -> Iterator[Contrast]:
    """The same noun in the singular and in the plural, with the adjective after it."""
    while True:
        adjective = draw.one(adjectives())
        what = named(draw.random.choice(adjective.nouns))
        if not what.has_plural or what.singular in MASS or adjective.lemma == "zangado":
            continue
        if (found := _mentions(draw, adjective.lemma, (what, what))) is None:
            continue
        frame, who = found
        determiner = draw.one(("o", "aquele", "um", "o"))
        frames = tuple(
            _placed(frame, agree(determiner, what.gender, number), what.form(number), number)
            for number in (SINGULAR, PLURAL)
        )
        forms = agree(adjective.lemma, what.gender), agree(adjective.lemma, what.gender, PLURAL)
        yield Contrast(frames, forms, (adjective.lemma, what.singular, who))


def _placed(frame: str, determiner: str, noun: str, number: str) -> str:
    """The noun phrase in the frame, with a slot for the adjective."""
    singular, _, plural = frame.partition("|")
    chosen = plural if plural and number == PLURAL else singular
    if "hav" in chosen or "há " in chosen:
        determiner = {"o": "um", "a": "uma", "os": "uns", "as": "umas"}.get(determiner, determiner)
        determiner = determiner.replace("aqueles", "uns").replace("aquelas", "umas")
        determiner = determiner.replace("aquele", "um").replace("aquela", "uma")
    return chosen.replace("{it}", f"{determiner} {noun} _")


PHENOMENA = (
    Phenomenon(
        "determinante_genero",
        "Gênero do determinante",
        Register.NEUTRAL,
        "Artigo, demonstrativo e possessivo concordam em gênero com o substantivo que os segue.",
        "Cunha e Cintra, Nova gramática, cap. 8 e 9; Bechara, Moderna gramática, concordância nominal.",
        determiner_gender,
        "Só substantivos de um gênero; ficam fora os que mudam de sentido com o gênero (o caixa, a caixa).",
    ),
    Phenomenon(
        "determinante_numero",
        "Número do determinante",
        Register.NEUTRAL,
        "Artigo, demonstrativo e possessivo concordam em número com o substantivo que os segue.",
        "Cunha e Cintra, Nova gramática, cap. 8; Perini, Gramática descritiva, sintagma nominal.",
        determiner_number,
        "O plural marcado só no determinante (os livro) é comum na fala popular; a norma culta, falada e "
        "escrita, marca o substantivo também.",
    ),
    Phenomenon(
        "quantificador_genero",
        "Gênero do quantificador",
        Register.NEUTRAL,
        "Todos, muitos, poucos, vários, ambos, alguns, dois, quantos e nenhum concordam em gênero com o "
        "substantivo.",
        "Cunha e Cintra, Nova gramática, cap. 11 (pronomes indefinidos) e 12 (numerais).",
        quantifier_gender,
        repeats=7,
    ),
    Phenomenon(
        "adjetivo_genero",
        "Gênero do adjetivo posposto",
        Register.NEUTRAL,
        "O adjetivo concorda em gênero com o substantivo que o precede.",
        "Bechara, Moderna gramática, concordância nominal; Azeredo, Gramática Houaiss, concordância nominal.",
        adjective_gender,
        repeats=5,
    ),
    Phenomenon(
        "adjetivo_numero",
        "Número do adjetivo posposto",
        Register.NEUTRAL,
        "O adjetivo concorda em número com o substantivo que o precede.",
        "Bechara, Moderna gramática, concordância nominal.",
        adjective_number,
        repeats=5,
    ),
)
