"""The form of the verb that a conjunction, an adverb of time or an auxiliary asks for."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate, gerund, participle

_THEY = (
    ("ele", "3s"),
    ("ela", "3s"),
    ("o médico", "3s"),
    ("a professora", "3s"),
    ("meu irmão", "3s"),
    ("minha irmã", "3s"),
    ("o menino", "3s"),
    ("a moça", "3s"),
    ("eles", "3p"),
    ("elas", "3p"),
    ("os meninos", "3p"),
    ("as moças", "3p"),
    ("meus amigos", "3p"),
    ("nós", "1p"),
)
"""Subjects of the subordinate clause."""

_WISHED = (
    # verb | what follows it: true today and still to be wished
    ("vir", "amanhã"),
    ("vir", "à festa"),
    ("sair", "cedo"),
    ("saber", "a verdade"),
    ("dizer", "a verdade"),
    ("fazer", "o jantar"),
    ("fazer", "viagens longas"),
    ("ter", "razão"),
    ("ter", "muito dinheiro"),
    ("ter", "paciência"),
    ("trazer", "boas notícias"),
    ("querer", "ajuda"),
    ("poder", "esperar"),
    ("estar", "em casa"),
    ("estar", "aqui"),
    ("ir", "ao teatro no domingo"),
    ("ver", "o mar da janela"),
    ("ler", "o jornal"),
    ("dormir", "pouco"),
    ("perder", "muito tempo"),
    ("ouvir", "música"),
    ("pedir", "desculpas"),
    ("voltar", "no domingo"),
    ("comprar", "tudo no mercado"),
    ("vender", "cavalos"),
    ("chegar", "a tempo"),
    ("ficar", "em silêncio"),
    ("abrir", "a loja cedo"),
    ("escrever", "cartas longas"),
    ("aceitar", "a proposta"),
    ("conhecer", "a cidade"),
    ("falar", "com o diretor"),
    ("viver", "no campo"),
    ("morar", "perto daqui"),
    ("seguir", "o mesmo caminho"),
    ("esperar", "na sala"),
    ("conseguir", "dormir"),
    ("deixar", "a porta aberta"),
)
_ASKS_SUBJUNCTIVE = (
    "talvez",
    "é preciso que",
    "é possível que",
    "espero que",
    "duvido que",
    "quero que",
    "convém que",
    "é bom que",
    "prefiro que",
    "peço que",
)
_ASKS_INDICATIVE = (
    "sei que",
    "é verdade que",
    "dizem que",
    "é claro que",
    "todos sabem que",
    "percebi que",
    "contaram que",
)
_STATES = ("ter", "querer", "poder", "estar", "ser", "viver", "morar", "saber", "conseguir")
_WISHES = ("quero que", "peço que", "prefiro que")
_NOT_WISHED = ("querer", "poder", "conseguir")


_NOT_TO_BE_WISHED = ("razão", "muito dinheiro", "muito tempo")


def mood(draw: Draw) -> Iterator[Contrast]:
    """Subjunctive after talvez, é preciso que, espero que; indicative after sei que, é verdade que."""
    while True:
        verb, rest = draw.one(_WISHED)
        subject, person = draw.one(_THEY)
        first, second = draw.one(_ASKS_SUBJUNCTIVE), draw.one(_ASKS_INDICATIVE)
        if (first in (*_WISHES, "é preciso que") and verb in _NOT_WISHED) or (
            person == "1p" and first in _WISHES
        ):
            continue
        if rest in _NOT_TO_BE_WISHED and first not in ("talvez", "é possível que", "duvido que"):
            continue
        forms = conjugate(verb, "subj", person), conjugate(verb, "pres", person)
        if forms[0] == forms[1]:
            continue
        frames = (f"{first} {subject} _ {rest}", f"{second} {subject} _ {rest}")
        yield Contrast(frames, forms, (f"{verb} {rest}", f"{verb} {person}", first, second))


_IRREGULAR_FUTURES = (
    # verb | what follows it | what then happens
    ("fazer", "o bolo", "todos vão comer"),
    ("fazer", "a viagem", "eu vou também"),
    ("fazer", "o jantar", "eu lavo os pratos"),
    ("dizer", "a verdade", "tudo vai mudar"),
    ("dizer", "o preço", "eu compro a casa"),
    ("trazer", "o livro", "eu leio a história"),
    ("trazer", "o dinheiro", "o negócio está feito"),
    ("trazer", "boas notícias", "faremos uma festa"),
    ("ter", "tempo", "vamos ao teatro"),
    ("ter", "dinheiro", "eu vendo o carro"),
    ("ter", "coragem", "tudo vai dar certo"),
    ("saber", "a resposta", "eu quero ouvir"),
    ("saber", "o caminho", "chegaremos cedo"),
    ("poder", "sair", "vamos à praia"),
    ("poder", "ajudar", "o trabalho vai acabar hoje"),
    ("querer", "sair", "a porta está aberta"),
    ("querer", "vender a casa", "eu compro"),
    ("estar", "em casa", "eu faço uma visita"),
    ("estar", "na cidade", "vamos jantar juntos"),
    ("ser", "preciso", "eu volto"),
    ("vir", "à cidade", "vamos jantar juntos"),
    ("vir", "amanhã", "eu preparo o quarto"),
    ("ir", "ao mercado", "eu vou também"),
    ("ir", "à praia", "eu fico em casa"),
    ("pôr", "o chapéu", "todos vão rir"),
    ("pôr", "a mesa", "eu sirvo o jantar"),
    ("dar", "uma resposta", "eu conto a vocês"),
    ("dar", "o sinal", "nós saímos"),
)
_CONDITIONS = ("quando", "se", "assim que", "logo que")
_AUXILIARIES = ("vai", "deve", "pode", "precisa", "quer", "não quer", "vai ter de")
_WHO = ("ele", "ela", "o médico", "a moça", "meu irmão", "minha tia", "o menino", "a professora", "você")
_NO_AIM = ("ter", "poder", "querer", "ser", "estar", "saber")
"""Not with quer, precisa: nobody wants to want."""


def future_subjunctive(draw: Draw) -> Iterator[Contrast]:
    """Future subjunctive after quando and se, infinitive after an auxiliary, of irregular verbs."""
    while True:
        verb, rest, then = draw.one(_IRREGULAR_FUTURES)
        condition, auxiliary, who = draw.one(_CONDITIONS), draw.one(_AUXILIARIES), draw.one(_WHO)
        if (verb in _NO_AIM and auxiliary not in ("vai", "deve", "pode")) or (verb, auxiliary) == (
            "poder",
            "pode",
        ):
            continue
        subject = "" if rest == "preciso" else f"{who} "
        frames = (f"{condition} {subject}_ {rest}, {then}", f"{subject}{auxiliary} _ {rest}")
        forms = conjugate(verb, "subjf", "3s"), verb
        yield Contrast(frames, forms, (f"{verb} {rest}", verb))


_PAST = ("ontem", "no ano passado", "na semana passada", "ontem à noite", "no mês passado", "há dois dias")
_COMING = (
    "amanhã",
    "no ano que vem",
    "na semana que vem",
    "amanhã de manhã",
    "no mês que vem",
    "daqui a dois dias",
)
_EVENTS = (
    ("chegar", "à cidade"),
    ("voltar", "da viagem"),
    ("comprar", "a fazenda"),
    ("vender", "o carro"),
    ("ler", "o contrato"),
    ("escrever", "a carta"),
    ("abrir", "a loja"),
    ("fechar", "o negócio"),
    ("fazer", "o discurso"),
    ("dizer", "a verdade"),
    ("trazer", "os livros"),
    ("visitar", "o museu"),
    ("receber", "o dinheiro"),
    ("pagar", "a dívida"),
    ("pintar", "a sala"),
    ("deixar", "o hospital"),
    ("começar", "o trabalho"),
    ("sair", "do colégio"),
    ("falar", "com o ministro"),
    ("assinar", "a proposta"),
    ("construir", "o muro"),
    ("entregar", "o relatório"),
    ("casar", "na igreja"),
    ("partir", "para a guerra"),
    ("ganhar", "um cavalo"),
)
_ACTORS = (
    ("a moça", "3s"),
    ("o médico", "3s"),
    ("meu tio", "3s"),
    ("a professora", "3s"),
    ("o advogado", "3s"),
    ("minha prima", "3s"),
    ("os soldados", "3p"),
    ("as meninas", "3p"),
    ("meus vizinhos", "3p"),
    ("eu", "1s"),
    ("nós", "1p"),
    ("o diretor", "3s"),
)


def tense_adverb(draw: Draw) -> Iterator[Contrast]:
    """Preterite with ontem, future with amanhã."""
    while True:
        verb, rest = draw.one(_EVENTS)
        (who, person), index = draw.one(_ACTORS), draw.random.randrange(len(_PAST))
        before = draw.chance()
        frames = tuple(
            f"{when} {who} _ {rest}" if before else f"{who} _ {rest} {when}"
            for when in (_PAST[index], _COMING[index])
        )
        if draw.chance(0.5) and person != "1s":
            forms = conjugate(verb, "pret", person), conjugate(verb, "fut", person)
        else:
            frames = tuple(frame.replace("_", f"_ {verb}") for frame in frames)
            forms = conjugate("precisar", "pret", person), conjugate("precisar", "fut", person)
            if verb in ("ganhar", "receber", "casar", "chegar"):
                continue
        yield Contrast(frames, forms, (f"{verb} {rest}", f"{who} {_PAST[index]}"))


_ACTIONS = (
    ("comer", "o bolo"),
    ("beber", "o vinho"),
    ("ler", "a carta"),
    ("ler", "o jornal"),
    ("escrever", "um livro"),
    ("abrir", "a porta"),
    ("fazer", "o jantar"),
    ("ver", "o mar"),
    ("dizer", "a verdade"),
    ("pôr", "a mesa"),
    ("vender", "a casa"),
    ("comprar", "um cavalo"),
    ("pintar", "o muro"),
    ("lavar", "os pratos"),
    ("perder", "a paciência"),
    ("procurar", "a chave"),
    ("esperar", "o navio"),
    ("ouvir", "a música"),
    ("preparar", "a festa"),
    ("contar", "uma história"),
    ("falar", "com o médico"),
    ("trabalhar", "no campo"),
    ("dormir", "na sala"),
    ("viajar", "pelo país"),
    ("correr", "pela praia"),
    ("cantar", "na igreja"),
    ("chorar", "no quarto"),
    ("estudar", "a lei"),
    ("visitar", "o museu"),
    ("seguir", "o caminho"),
)
_BE = (("está", "pres"), ("estava", "impf"), ("continua", "pres"), ("ficou", "pret"), ("anda", "pres"))
_HAVE = (("tinha", "impf"), ("já tinha", "impf"), ("nunca tinha", "impf"), ("havia", "impf"))
_WILL = (
    ("vai", "pres"),
    ("quer", "pres"),
    ("pode", "pres"),
    ("deve", "pres"),
    ("sabe", "pres"),
    ("precisa", "pres"),
)


def non_finite(draw: Draw) -> Iterator[Contrast]:
    """Gerund after estar, participle after ter, infinitive after ir, querer, poder."""
    while True:
        verb, rest = draw.one(_ACTIONS)
        who = draw.person().the()
        be, have, will = draw.one(_BE)[0], draw.one(_HAVE)[0], draw.one(_WILL)[0]
        kind = draw.one((0, 1, 2))
        progressive = (f"{who} {be} _ {rest}", gerund(verb))
        perfect = (f"{who} {have} _ {rest}", participle(verb))
        infinitive = (f"{who} {will} _ {rest}", verb)
        if will == "sabe" and verb not in ("ler", "escrever", "cantar", "pintar", "contar", "esperar"):
            continue
        if be in ("ficou", "anda") and verb not in (
            "ler",
            "ver",
            "procurar",
            "esperar",
            "ouvir",
            "estudar",
            "trabalhar",
        ):
            continue
        (first, form), (second, other) = (
            (progressive, perfect),
            (progressive, infinitive),
            (perfect, infinitive),
        )[kind]
        yield Contrast((first, second), (form, other), (f"{verb} {rest}", who))


PHENOMENA = (
    Phenomenon(
        "modo_subjuntivo",
        "Subjuntivo e indicativo",
        Register.NEUTRAL,
        "Talvez, é preciso que, espero que e duvido que pedem o subjuntivo; sei que, é verdade que e dizem "
        "que, o "
        "indicativo.",
        "Cunha e Cintra, Nova gramática, cap. 13 (sintaxe dos modos); Perini, Gramática do português "
        "brasileiro.",
        mood,
        "Ficam fora os verbos que admitem os dois modos (acho que, parece que, embora na fala).",
        repeats=8,
    ),
    Phenomenon(
        "futuro_subjuntivo",
        "Futuro do subjuntivo e infinitivo",
        Register.NEUTRAL,
        "Quando, se e assim que, a respeito do futuro, pedem o futuro do subjuntivo; os auxiliares, o "
        "infinitivo.",
        "Cunha e Cintra, Nova gramática, cap. 13 (futuro do subjuntivo); Azeredo, Gramática Houaiss.",
        future_subjunctive,
        "Só verbos em que as duas formas são diferentes. Fica fora ver (quando eu ver por quando eu vir), "
        "comum "
        "também na fala culta.",
        repeats=9,
    ),
    Phenomenon(
        "tempo_adverbio",
        "Tempo do verbo e advérbio de tempo",
        Register.NEUTRAL,
        "Um advérbio de passado pede o pretérito; um de futuro, o futuro.",
        "Bechara, Moderna gramática, emprego dos tempos; Perini, Gramática do português brasileiro.",
        tense_adverb,
        "Ficam fora o presente e o futuro do pretérito, que convivem com os dois advérbios.",
        repeats=4,
    ),
    Phenomenon(
        "forma_nominal",
        "Gerúndio, particípio e infinitivo depois de auxiliar",
        Register.NEUTRAL,
        "Estar e continuar pedem o gerúndio; ter e haver, o particípio; ir, querer e poder, o infinitivo.",
        "Cunha e Cintra, Nova gramática, cap. 13 (locuções verbais).",
        non_finite,
        "O português europeu diz estar a comer; o brasileiro, estar comendo.",
        repeats=3,
    ),
)
