"""Comparison, negative concord, the order of determiners."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw, Noun, adjectives, agree
from ptbr_slm.eval.grammar.lexicon import noun as named
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register

_IRREGULAR = (
    # positive | comparative | things compared: subject and the standard
    (
        "bom",
        "melhor",
        "este vinho;o outro",
        "o livro novo;o antigo",
        "o hotel da praia;o da praça",
        "meu cavalo;o seu",
    ),
    (
        "bom",
        "melhor",
        "o café de hoje;o de ontem",
        "o jantar;o almoço",
        "este médico;o primeiro",
        "o teatro;o livro",
    ),
    (
        "ruim",
        "pior",
        "este caminho;o outro",
        "a doença;o remédio",
        "a viagem de volta;a de ida",
        "o barulho;o frio",
    ),
    ("grande", "maior", "esta casa;a do vizinho", "a sala;o quarto", "o medo;o amor", "o navio;o barco"),
    ("grande", "maior", "a cidade;a vila", "o jardim;a casa", "este anel;o outro", "a igreja;a escola"),
    ("pequeno", "menor", "este quarto;o outro", "este vestido;o meu", "o gato;o cão"),
)


_HAVING = (
    # what is counted | the same number | a greater number
    (
        "amigos inimigos cavalos filhos problemas casas",
        "o médico tem {} quanto o irmão",
        "o médico tem {} do que o irmão",
    ),
    (
        "cartas presentes vestidos visitas",
        "a moça recebeu {} quanto a prima",
        "a moça recebeu {} do que a prima",
    ),
    (
        "livros documentos amigos cartas",
        "meu tio perdeu {} quanto o vizinho",
        "meu tio perdeu {} do que o vizinho",
    ),
    (
        "vestidos amigas luvas chapéus",
        "a cantora tinha {} quanto a rainha",
        "a cantora tinha {} do que a rainha",
    ),
)


_NOT_COMPARED = ("verdadeiro", "falso", "pequeno", "branco", "preto", "vermelho", "amarelo")


def comparison(draw: Draw) -> Iterator[Contrast]:
    """tão ... quanto against mais ... do que; tantos against mais; bom, grande against melhor, maior."""
    while True:
        kind = draw.one((0, 1, 1, 2))
        if kind == 0:
            positive, comparative, *compared = draw.one(_IRREGULAR)
            what, standard = draw.random.choice(compared).split(";")
            verb = draw.one(("é", "era", "parece"))
            feminine = what.split()[0] in ("a", "esta", "minha")
            form = {"bom": "boa", "pequeno": "pequena"}.get(positive, positive) if feminine else positive
            frames = (f"{what} {verb} tão _ quanto {standard}", f"{what} {verb} muito _ do que {standard}")
            yield Contrast(frames, (form, comparative), (what, f"{positive} {verb}"))
        elif kind == 1:
            adjective = draw.one(adjectives("ser"))
            if adjective.lemma in _NOT_COMPARED:
                continue
            noun = named(draw.random.choice(adjective.nouns))
            standard, verb = draw.one(("outro", "primeiro")), draw.one(("é", "era", "parece"))
            subject = (
                f"{agree('este', noun.gender)} {noun.singular} {verb} _ {agree(adjective.lemma, noun.gender)}"
            )
            other = f"{agree('o', noun.gender)} {agree(standard, noun.gender)}"
            frames = (f"{subject} quanto {other}", f"{subject} do que {other}")
            yield Contrast(frames, ("tão", "mais"), (adjective.lemma, noun.singular))
        else:
            counted, *halves = draw.one(_HAVING)
            things = draw.random.choice(counted.split())
            many = "tantas" if things in ("casas", "cartas", "visitas", "amigas", "luvas") else "tantos"
            equal, greater = (half.format(f"_ {things}") for half in halves)
            yield Contrast((equal, greater), (many, "mais"), (things, halves[0]))


_SUBJECTS = (
    "o aluno",
    "a moça",
    "meu irmão",
    "o médico",
    "minha tia",
    "o menino",
    "o juiz",
    "a professora",
    "o diretor",
    "o rapaz",
    "a senhora",
    "o poeta",
    "o advogado",
)
_NOTHING = (
    "disse nada hoje",
    "viu ninguém na rua",
    "falou com ninguém",
    "encontrou nada na gaveta",
    "comprou nada no mercado",
    "conhece ninguém na cidade",
    "fez nada de errado",
    "acreditou em ninguém",
    "ajudou ninguém",
    "tem medo de nada",
    "sabe nada de música",
    "pediu dinheiro a ninguém",
    "convidou ninguém",
    "recebeu carta nenhuma",
)
_NOBODY = (
    "ninguém",
    "nenhum aluno",
    "nenhuma mulher",
    "nenhum médico",
    "nenhum vizinho",
    "nenhuma das moças",
    "nenhum dos soldados",
    "nenhum advogado",
)
_DONE = (
    "respondeu à carta",
    "comprou o cavalo",
    "abriu a janela",
    "leu o livro",
    "explicou o problema",
    "viu o mar",
    "pagou a conta",
    "entrou no quarto",
    "conhece a verdade",
    "saiu da cidade",
    "recebeu a notícia",
    "falou com o diretor",
    "escreveu a carta",
    "dormiu nesta casa",
)


def negation(draw: Draw) -> Iterator[Contrast]:
    """A negative word after the verb needs não before it; one before the verb excludes não."""
    while True:
        after = f"{draw.one(_SUBJECTS)} _ {draw.one(_NOTHING)}"
        before = f"{draw.one(_NOBODY)} _ {draw.one(_DONE)}"
        yield Contrast((after, before), ("não", "ainda"), (after, before))


_ORDERS = (
    # right | wrong | {s}, {p}: the noun in the singular, in the plural
    ("todos os {p}", "os todos {p}"),
    ("esses dois {p}", "dois esses {p}"),
    ("os outros {p}", "outros os {p}"),
    ("aqueles três {p}", "três aqueles {p}"),
    ("este meu {s}", "meu este {s}"),
    ("o meu {s}", "meu o {s}"),
    ("os seus {p}", "seus os {p}"),
    ("ambos os {p}", "os ambos {p}"),
    ("aquele outro {s}", "outro aquele {s}"),
    ("um certo {s}", "certo um {s}"),
    ("o {s}", "{s} o"),
    ("cada {s}", "{s} cada"),
    ("os mesmos {p}", "mesmos os {p}"),
    ("alguns outros {p}", "outros alguns {p}"),
    ("os meus {p}", "meus os {p}"),
)
_THINGS = (
    "livro carta chave chapéu vestido relógio anel quadro retrato bilhete documento mala fotografia poema "
    "presente camisa copo prato garrafa cadeira"
)
_PEOPLE = "menino menina médico professor soldado poeta moça rapaz mulher homem criança cantor escritor"
_PLACES = (
    "casa rua igreja escola cidade jardim quarto sala teatro hotel loja praia fazenda museu ponte vila ilha"
)
_AROUND = {
    _PEOPLE: (
        "ela conhece {} do bairro",
        "falei com {} na rua",
        "o diretor chamou {} ontem",
        "o velho esperava {} na porta",
        "o juiz ouviu {} com atenção",
    ),
    _THINGS: (
        "ela perdeu {} na viagem",
        "meu irmão encontrou {} na sala",
        "quero ver {} de perto",
        "o menino trouxe {} para casa",
        "a moça olhou para {} com atenção",
    ),
    _PLACES: (
        "ele visitou {} no domingo",
        "conheci {} durante a viagem",
        "vimos {} de longe",
        "o médico falou sobre {} no jantar",
    ),
}


def order(draw: Draw) -> Iterator[Contrast]:
    """The order of determiners before the noun. One pair a contrast: both members have the same words."""
    while True:
        right, wrong = draw.one(_ORDERS)
        nouns = draw.one(tuple(_AROUND))
        frame, what = draw.one(_AROUND[nouns]), named(draw.random.choice(nouns.split()))
        if ("{p}" in right and not what.has_plural) or not _goes(right, what, frame):
            continue
        good, bad = (
            _inflect(text, what.gender).format(s=what.singular, p=what.plural) for text in (right, wrong)
        )
        yield Contrast((frame.replace("{}", "_"),), (good, bad), (right, what.singular, frame))


_IRREGULAR_FEMININE = {
    "dois": "duas",
    "alguns": "algumas",
    "meu": "minha",
    "meus": "minhas",
    "seus": "suas",
    "um": "uma",
}


_PUBLIC = ("igreja", "praia", "ilha", "vila", "ponte", "museu", "teatro", "hotel")


def _goes(order: str, what: Noun, frame: str) -> bool:
    """Whether this is a thing to say: nobody has a beach of his own, or loses each of two books."""
    if any(word in order for word in ("meu", "seu")):
        return what.singular not in _PUBLIC
    return "cada" not in order or any(
        verb in frame for verb in ("ouviu", "ver", "chamou", "visitou", "conheci ", "olhou")
    )


def _inflect(text: str, gender: str) -> str:
    if gender == "M":
        return text
    words = []
    for word in text.split():
        plural = word.endswith("s") and word not in ("três",)
        if word.startswith("{") or word in ("cada", "três"):
            words.append(word)
        elif word in _IRREGULAR_FEMININE:
            words.append(_IRREGULAR_FEMININE[word])
        else:
            words.append(word.removesuffix("s")[:-1] + ("as" if plural else "a"))
    return " ".join(words)


PHENOMENA = (
    Phenomenon(
        "comparacao",
        "Comparativo",
        Register.NEUTRAL,
        "Tão pede quanto, e mais pede do que; os comparativos melhor, pior, maior e menor não se usam com "
        "tão, nem "
        "bom, ruim, grande e pequeno com muito ... do que.",
        "Cunha e Cintra, Nova gramática, cap. 10 (graus do adjetivo); Bechara, Moderna gramática.",
        comparison,
        "Fica fora mais bom, que a norma admite ao comparar duas qualidades (mais bom do que mau).",
        repeats=5,
    ),
    Phenomenon(
        "negacao",
        "Concordância negativa",
        Register.NEUTRAL,
        "Ninguém, nada e nenhum depois do verbo pedem não antes dele; antes do verbo, excluem-no.",
        "Perini, Gramática do português brasileiro (negação); Cunha e Cintra, Nova gramática, cap. 11.",
        negation,
        "Ninguém não veio existe na língua antiga e em falares regionais; a norma culta não o tem.",
        repeats=3,
    ),
    Phenomenon(
        "ordem_determinante",
        "Ordem dos determinantes",
        Register.NEUTRAL,
        "Quantificador, artigo ou demonstrativo, possessivo e numeral vêm nesta ordem antes do substantivo.",
        "Perini, Gramática descritiva do português, sintagma nominal; Azeredo, Gramática Houaiss.",
        order,
        "Os dois membros têm as mesmas palavras: um unigrama empata. Fica fora o que em outra ordem é certo "
        "(primeiro o livro).",
        repeats=12,
    ),
)
