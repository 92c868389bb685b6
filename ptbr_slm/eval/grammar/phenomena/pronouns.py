"""Form and place of personal pronouns: reflexive person, case, enclitic forms, proclisis."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate

_REFLEXIVE = (
    # verb that has no other object | tense | rest
    ("arrepender", "pret", "da viagem;daquelas palavras;de tudo;da venda da casa"),
    ("queixar", "pret", "do frio;do barulho;da comida;do hotel"),
    ("queixar", "pres", "do frio;do barulho;da comida;do preço"),
    ("atrever", "pret", "a falar;a sair à noite;a dizer a verdade;a pedir dinheiro"),
    ("esforçar", "pret", "muito;para chegar cedo;na escola"),
    ("esforçar", "pres", "muito;para dormir"),
    ("ajoelhar", "pret", "na igreja;diante do rei;no jardim"),
    ("comportar", "pret", "bem na festa;mal na escola"),
    ("comportar", "pres", "bem em casa;muito bem"),
    ("refugiar", "pret", "na igreja;na fazenda;no quarto"),
    ("recusar", "pret", "a sair;a falar;a vender a casa;a pagar"),
    ("esquecer", "pret", "da carta;do dinheiro;da festa"),
    ("esquecer", "pres", "de tudo;das coisas"),
    ("referir", "pret", "à guerra;à festa;ao problema"),
    ("ausentar", "pret", "da cidade;da sala"),
    ("aproveitar", "pret", "da ocasião"),
    ("apoderar", "pret", "da casa;do dinheiro"),
)
_THIRD = (
    ("ela", "3s"),
    ("ele", "3s"),
    ("o menino", "3s"),
    ("minha irmã", "3s"),
    ("elas", "3p"),
    ("os soldados", "3p"),
)


def reflexive_person(draw: Draw) -> Iterator[Contrast]:
    """me, nos, se with verbs that are always reflexive: "ela me vestiu" would be right."""
    while True:
        verb, tense, ends = draw.one(_REFLEXIVE)
        rest = draw.random.choice(ends.split(";"))
        kind = draw.one((0, 1, 2))
        third, person = draw.one(_THIRD)
        one = f"{{}} _ {{}} {rest}"
        if kind == 2:
            frames = tuple(
                one.format(pronoun, conjugate(verb, tense, who))
                for pronoun, who in (("eu", "1s"), ("nós", "1p"))
            )
            forms = ("me", "nos")
        else:
            pronoun, who, form = (("eu", "1s", "me"), ("nós", "1p", "nos"))[kind]
            frames = (
                one.format(pronoun, conjugate(verb, tense, who)),
                one.format(third, conjugate(verb, tense, person)),
            )
            forms = (form, "se")
        yield Contrast(frames, forms, (f"{verb} {rest}", verb))


_SOMEBODY = (
    "o menino",
    "a moça",
    "o médico",
    "minha tia",
    "o soldado",
    "meu avô",
    "a professora",
    "o juiz",
    "todo mundo",
    "o rapaz",
)
_TOWARDS = (
    "olhou para _",
    "gosta de _",
    "confia em _",
    "depende de _",
    "só pensa em _",
    "cuidou de _",
    "falou de _",
    "sorriu para _",
    "acredita em _",
    "correu para _",
    "riu de _",
    "trouxe um presente para _",
    "não vive sem _",
    "apontou para _",
    "tem medo de _",
)
_AS_SUBJECT = (
    "quando _ {chegar}, a festa já tinha acabado",
    "ontem _ {perder} a chave de casa",
    "hoje _ não {sair} de casa",
    "ela sabe que _ {dizer} a verdade",
    "na semana passada _ {comprar} um cavalo",
    "ninguém acredita que _ {escrever} esta carta",
    "enquanto _ {dormir}, choveu muito",
    "foi assim que _ {conhecer} a cidade",
    "no domingo _ {visitar} o museu",
    "aqui _ {aprender} a ler",
    "naquela noite _ {ouvir} um barulho",
    "o livro que _ {ler} é muito bom",
    "a casa que _ {vender} ficava na praia",
    "depois do jantar _ {voltar} para casa",
    "todos sabem onde _ {morar}",
    "a moça que _ {ver} era a irmã dele",
    "por isso _ {ficar} em silêncio",
    "ele perguntou se _ {querer} café",
    "antigamente _ {viver} no campo",
    "nem sempre _ {dizer} o que penso",
    "na festa _ {encontrar} um velho amigo",
    "este é o quarto em que _ {nascer}",
    "já faz dois anos que _ {deixar} o campo",
    "a carta que _ {receber} não é dele",
    "antes da viagem _ {preparar} as malas",
    "na escola _ {ser} um bom aluno",
    "depois da guerra _ {voltar} ao Brasil",
    "ela não sabe quando _ {chegar}",
)
_TO_US = (
    "_ convidou para a festa",
    "_ ajudou muito",
    "_ esperava na porta",
    "_ chamou para jantar",
    "_ viu na rua",
    "_ ensinou a ler",
    "_ contou a verdade",
    "_ deu um livro",
    "_ encontrou no teatro",
    "_ acordou muito cedo",
    "ainda não _ respondeu",
    "nunca _ recebeu em casa",
)
_TENSES_OF = {"morar": "pres", "dormir": "impf", "querer": "impf", "viver": "impf"}


def case(draw: Draw) -> Iterator[Contrast]:
    """eu, nós as subjects, me, nos as objects, mim, nós after prepositions."""
    while True:
        kind = draw.one((0, 0, 1, 2))
        subject, predicate = draw.one(_SOMEBODY), draw.one(_TOWARDS)
        after = f"{subject} {predicate}"
        if kind == 0:
            other, forms = _with_verb(draw.one(_AS_SUBJECT)), ("mim", "eu")
        else:
            other = f"{draw.one(_SOMEBODY)} {draw.one(_TO_US)}"
            forms = ("mim", "me") if kind == 1 else ("nós", "nos")
        yield Contrast((after, other), forms, (after, other, predicate))


def _with_verb(frame: str) -> str:
    start, _, rest = frame.partition("{")
    verb, _, end = rest.partition("}")
    tense = "pres" if frame.startswith("nem sempre") else _TENSES_OF.get(verb, "pret")
    return start + conjugate(verb, tense, "1s") + end


_ENCLITIC = (
    # verb | what the pronoun stands for | rest of the sentence
    ("vender", "o carro", "na semana passada"),
    ("comprar", "a casa", "no mês passado"),
    ("encontrar", "o livro", "na gaveta"),
    ("guardar", "a carta", "no armário"),
    ("levar", "o menino", "ao médico"),
    ("convidar", "a moça", "para a festa"),
    ("esperar", "os amigos", "na estação"),
    ("deixar", "as malas", "no hotel"),
    ("abrir", "a porta", "devagar"),
    ("fechar", "as janelas", "antes da chuva"),
    ("ler", "o jornal", "na varanda"),
    ("receber", "os convidados", "na sala"),
    ("perder", "a chave", "na rua"),
    ("trazer", "os livros", "para casa"),
    ("visitar", "o avô", "no domingo"),
    ("ajudar", "a vizinha", "com as malas"),
    ("chamar", "o médico", "às pressas"),
    ("procurar", "as chaves", "na cozinha"),
    ("mostrar", "os quadros", "aos amigos"),
    ("seguir", "o ladrão", "até o porto"),
    ("servir", "o jantar", "na varanda"),
    ("lavar", "as camisas", "no rio"),
    ("entregar", "o relatório", "ao diretor"),
    ("conhecer", "a princesa", "na viagem"),
    ("acompanhar", "as meninas", "até a escola"),
)
_DECIDED = (
    "decidi",
    "ela quis",
    "resolvemos",
    "o rapaz foi",
    "eu quis",
    "ninguém conseguiu",
    "ela precisava",
)
"""Before an infinitive."""


def enclitic_form(draw: Draw) -> Iterator[Contrast]:
    """-lo after an infinitive, -no after a nasal, -o after another vowel."""
    while True:
        verb, what, rest = draw.one(_ENCLITIC)
        pronoun = what.split()[0]
        kind = draw.one((0, 1, 2))
        who, plural = (
            draw.one(("a moça", "o médico", "minha irmã", "o rapaz")),
            draw.one(("as moças", "os médicos", "minhas irmãs", "os rapazes")),
        )
        stem = {"a": "á", "e": "ê", "i": "i"}[verb[-2]]
        after_infinitive = f"{draw.one(_DECIDED)} {verb[:-2]}{stem}-_ {rest}"
        after_nasal = f"{plural} {conjugate(verb, 'pret', '3p')}-_ {rest}"
        after_vowel = f"{who} {conjugate(verb, 'pret', '3s')}-_ {rest}"
        frames, forms = (
            ((after_infinitive, after_nasal), ("l" + pronoun, "n" + pronoun)),
            ((after_infinitive, after_vowel), ("l" + pronoun, pronoun)),
            ((after_nasal, after_vowel), ("n" + pronoun, pronoun)),
        )[kind]
        if (kind < 2 and verb in ("perder", "encontrar", "conhecer")) or (kind == 2 and pronoun == "os"):
            continue  # "mostrou-nos" is right, of us
        yield Contrast(frames, forms, (f"{verb} {what}",))


_ATTRACT = (
    "ninguém",
    "o menino não",
    "a moça nunca",
    "meu irmão não",
    "nada",
    "nenhum vizinho",
    "a professora jamais",
    "o médico não",
    "minha tia nunca",
    "os soldados não",
    "eles nunca",
    "ela não",
)
_PEOPLE_DO = (
    ("ver", "na rua"),
    ("ajudar", "com as malas"),
    ("convidar", "para a festa"),
    ("dizer", "a verdade"),
    ("contar", "o segredo"),
    ("dar", "um presente"),
    ("mostrar", "a carta"),
    ("esperar", "na estação"),
    ("chamar", "para jantar"),
    ("encontrar", "em casa"),
    ("pedir", "dinheiro"),
    ("reconhecer", "na festa"),
    ("ouvir", "com atenção"),
    ("escrever", "uma carta"),
    ("perguntar", "o nome"),
    ("oferecer", "um café"),
    ("levar", "ao teatro"),
    ("trazer", "boas notícias"),
    ("procurar", "na cidade"),
    ("entregar", "a chave"),
)
_THINGS_DO = (("assustar", "naquela noite"), ("acordar", "durante a noite"), ("interessar", "naquele livro"))


def proclisis_negation(draw: Draw) -> Iterator[Contrast]:
    """The clitic stands before the verb after a negative word."""
    while True:
        start = draw.one(_ATTRACT)
        verb, rest = draw.one(_THINGS_DO if start == "nada" else _PEOPLE_DO)
        form = conjugate(verb, "pret", "3p" if start.startswith(("os ", "eles")) else "3s")
        clitic = draw.one(("me", "nos", "me", "lhe"))
        if clitic == "lhe" and verb not in (
            "dizer",
            "contar",
            "dar",
            "mostrar",
            "pedir",
            "escrever",
            "entregar",
        ):
            continue
        if clitic == "nos" and form.endswith("m"):
            continue
        frame = f"{start} _ {rest}"
        yield Contrast((frame,), (f"{clitic} {form}", f"{form}-{clitic}"), (start, f"{verb} {rest}", verb))


PHENOMENA = (
    Phenomenon(
        "reflexivo_pessoa",
        "Pessoa do pronome reflexivo",
        Register.NEUTRAL,
        "O pronome reflexivo concorda em pessoa com o sujeito: eu me, nós nos, ele se.",
        "Cunha e Cintra, Nova gramática, cap. 11 (pronomes reflexivos); Bechara, Moderna gramática.",
        reflexive_person,
        "O uso de se com todas as pessoas existe em falares regionais; a norma culta, falada e escrita, "
        "não o tem.",
        repeats=5,
    ),
    Phenomenon(
        "pronome_caso",
        "Forma do pronome pessoal",
        Register.NEUTRAL,
        "Eu e nós são sujeitos; me e nos, complementos sem preposição; mim e nós vêm depois de preposição.",
        "Cunha e Cintra, Nova gramática, cap. 11; Perini, Gramática do português brasileiro.",
        case,
        "Ficam fora para mim fazer e entre eu e você (norma e uso divergem), e ele como objeto (vi ele).",
        repeats=5,
    ),
    Phenomenon(
        "enclise_forma",
        "Forma do pronome enclítico",
        Register.FORMAL,
        "Depois de infinitivo o, a, os, as tomam a forma lo (vendê-lo); depois de nasal, no (venderam-no); "
        "depois "
        "de outra vogal, não mudam (vendeu-o).",
        "Cunha e Cintra, Nova gramática, cap. 11 (formas do pronome oblíquo átono).",
        enclitic_form,
        "A fala brasileira evita estes pronomes; quem os escreve, escreve-os assim.",
        repeats=2,
    ),
    Phenomenon(
        "proclise_negacao",
        "Pronome átono depois de negação",
        Register.NEUTRAL,
        "Depois de palavra negativa o pronome átono vem antes do verbo: não me viu.",
        "Cunha e Cintra, Nova gramática, cap. 11 (próclise); Bechara, Moderna gramática, colocação dos "
        "pronomes. "
        "O uso brasileiro, que prefere a próclise em toda parte, concorda.",
        proclisis_negation,
        "Os membros diferem na ordem, e o hífen é mais um sinal: o membro errado é mais longo em tokens.",
        repeats=12,
    ),
)
