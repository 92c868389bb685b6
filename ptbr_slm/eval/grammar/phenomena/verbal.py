"""Agreement of the verb with its subject: number, distance, attractors, person, coordination."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import PLURAL, SINGULAR, Draw, Noun, agree, intransitive
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate

_TENSES = ("pret", "pret", "pres", "impf", "fut")
_HABITS = ("dormir", "chorar", "rir", "cantar", "trabalhar", "correr", "viajar", "falar", "morar", "estudar")
_PLANS = ("chegar", "sair", "voltar", "viajar", "cantar", "falar", "trabalhar", "terminar", "começar")
_ONCE = ("ontem", "sem avisar", "de susto", "do susto")


def _tense(draw: Draw, verb: str, adjunct: str) -> str:
    """A tense in which verb and adjunct go together."""
    if adjunct in _ONCE:
        return "pret"
    if verb == "morar":
        return draw.one(("pres", "impf"))
    tense = draw.one(_TENSES)
    if tense in ("pres", "impf") and verb not in _HABITS:
        return "pret"
    if tense == "fut" and verb not in _PLANS:
        return "pret"
    return tense


def _forms(verb: str, tense: str) -> tuple[str, str]:
    """Singular and plural of the third person; "fut": of the auxiliary ir."""
    if tense == "fut":
        return "vai", "vão"
    return conjugate(verb, tense, "3s"), conjugate(verb, tense, "3p")


def _rest(verb: str, tense: str, adjunct: str) -> str:
    """What follows the form: the infinitive of the periphrastic future, and the adjunct."""
    return f"{verb} {adjunct}" if tense == "fut" else adjunct


def _agent(draw: Draw, nouns: tuple[str, ...]) -> Noun | None:
    found = draw.pick(nouns, plural=True)
    return None if found is None or (found.kind == "animal" and draw.chance(0.5)) else found


def subject_verb(draw: Draw) -> Iterator[Contrast]:
    """The verb right after its subject."""
    while True:
        activity = draw.one(intransitive())
        if (who := _agent(draw, activity.nouns)) is None:
            continue
        adjunct = draw.one(activity.adjuncts)
        tense = _tense(draw, activity.verb, adjunct)
        determiner = draw.one(("", "", "aquele", "este"))
        frames = tuple(
            f"{_subject(who, number, determiner)} _ {_rest(activity.verb, tense, adjunct)}"
            for number in (SINGULAR, PLURAL)
        )
        yield Contrast(frames, _forms(activity.verb, tense), (who.singular, activity.verb))


def _subject(who: Noun, number: str, determiner: str = "") -> str:
    if determiner and who.kind != "parente":
        return f"{agree(determiner, who.gender, number)} {who.form(number)}"
    return who.the(number)


_RELATIVE = (
    "que ajudou {other}",
    "que conhece {other}",
    "que encontrou {other}",
    "que viu {other} na rua",
    "que falou com {other}",
    "que convidou {other}",
    "que procurava {other}",
    "que mora perto de {other}",
)
_RELATIVE_VERBS = {
    "ajudou": "ajudar",
    "conhece": "conhecer",
    "encontrou": "encontrar",
    "viu": "ver",
    "falou": "falar",
    "convidou": "convidar",
    "procurava": "procurar",
    "mora": "morar",
}


def across_relative(draw: Draw) -> Iterator[Contrast]:
    """A relative clause with a noun of the other number stands between the subject and its verb."""
    people = tuple(
        one for one in intransitive() if len(one.nouns) > 20 and one.verb not in ("morar", "falar")
    )
    while True:
        activity = draw.one(people)
        who, other = draw.noun("pessoa", plural=True), draw.person(plural=True)
        if who.singular == other.singular:
            continue
        clause, adjunct = draw.one(_RELATIVE), draw.one(activity.adjuncts)
        frames = tuple(
            f"{who.the(number)} {_in_number(clause, number).format(other=other.the(opposite))} _ {adjunct}"
            for number, opposite in ((SINGULAR, PLURAL), (PLURAL, SINGULAR))
        )
        frames = tuple(_contract(frame) for frame in frames)
        yield Contrast(
            frames, _forms(activity.verb, "pret"), (who.singular, other.singular, activity.verb, clause)
        )


def _in_number(clause: str, number: str) -> str:
    _, verb, *rest = clause.split()
    if number == PLURAL:
        tense = {"a": "pres", "e": "pres"}.get(verb[-1], "pret")
        tense = "impf" if verb.endswith("ava") else tense
        verb = conjugate(_RELATIVE_VERBS[verb], tense, "3p")
    return " ".join(("que", verb, *rest))


def _contract(text: str) -> str:
    for article in ("os", "as", "o", "a"):
        text = text.replace(f" de {article} ", f" d{article} ").replace(f" em {article} ", f" n{article} ")
    return text


_OF = (
    # the subject in the singular with a plural after it | the plural with a singular | what they do
    ("a chave dos armários", "as chaves do armário", "desaparecer cair"),
    ("a chave das malas", "as chaves da mala", "cair desaparecer"),
    ("o livro dos professores", "os livros do professor", "desaparecer cair"),
    ("o livro sobre as guerras", "os livros sobre a guerra", "desaparecer cair"),
    ("a carta dos soldados", "as cartas do soldado", "chegar desaparecer"),
    ("a carta para os meus irmãos", "as cartas para o meu irmão", "chegar desaparecer"),
    ("o amigo das meninas", "os amigos da menina", "sair viajar"),
    ("o filho dos vizinhos", "os filhos do vizinho", "gritar chorar"),
    ("a filha dos médicos", "as filhas do médico", "cantar voltar"),
    ("o irmão das atrizes", "os irmãos da atriz", "trabalhar rir"),
    ("a irmã dos poetas", "as irmãs do poeta", "chegar sorrir"),
    ("o professor dos meninos", "os professores do menino", "falar viajar"),
    ("o cavalo dos soldados", "os cavalos do soldado", "fugir correr"),
    ("o cão dos marinheiros", "os cães do marinheiro", "dormir fugir"),
    ("o gato das vizinhas", "os gatos da vizinha", "fugir dormir"),
    ("o quadro dos pintores", "os quadros do pintor", "desaparecer cair"),
    ("o retrato dos noivos", "os retratos do noivo", "cair desaparecer"),
    ("a história dos marinheiros", "as histórias do marinheiro", "mudar começar"),
    ("a notícia dos jornais", "as notícias do jornal", "mudar chegar"),
    ("a flor das árvores", "as flores da árvore", "cair abrir"),
    ("o barco das moças", "os barcos da moça", "chegar voltar"),
    ("o preço dos vestidos", "os preços da loja", "subir cair"),
    ("o preço das casas", "os preços do hotel", "mudar subir"),
    ("a mala dos passageiros", "as malas do passageiro", "chegar desaparecer"),
    ("a cor das paredes", "as cores da parede", "mudar"),
    ("o convidado das noivas", "os convidados da noiva", "chegar sair"),
    ("o vizinho das cantoras", "os vizinhos da cantora", "voltar viajar"),
    ("o leitor dos jornais", "os leitores do jornal", "rir estudar"),
    ("o homem com os cavalos", "os homens com o cavalo", "chegar voltar"),
    ("a mulher com as flores", "as mulheres com a flor", "sorrir cantar"),
    ("o menino com os livros", "os meninos com o livro", "correr falar"),
    ("o dono das lojas", "os donos da loja", "chegar sair"),
    ("a carta das rainhas", "as cartas da rainha", "desaparecer chegar"),
    ("o autor dos poemas", "os autores do poema", "viajar chegar"),
    ("a festa dos alunos", "as festas do aluno", "terminar começar"),
    ("a viagem das meninas", "as viagens da menina", "terminar começar"),
)
_OF_ADJUNCTS = {
    "desaparecer": "ontem;durante a festa",
    "cair": "ontem;no chão",
    "bater": "com força;com o vento",
    "abrir": "de repente;com o vento",
    "fechar": "de repente;com o vento",
    "chegar": "cedo;ontem;tarde",
    "sair": "cedo;sem avisar",
    "viajar": "ontem;no domingo",
    "dormir": "até tarde;na sala",
    "gritar": "na rua;sem parar",
    "chorar": "muito;sem parar",
    "cantar": "na igreja;muito bem",
    "voltar": "ontem;para casa",
    "estudar": "muito;em casa",
    "sorrir": "sem motivo;em silêncio",
    "trabalhar": "muito;até tarde",
    "rir": "muito;sem parar",
    "falar": "muito;com calma",
    "fugir": "ontem;durante a noite",
    "correr": "pela rua;até a praia",
    "quebrar": "ontem;de repente",
    "terminar": "mal;ontem",
    "começar": "bem;ontem",
    "mudar": "muito;de repente",
    "morrer": "com o frio;no inverno",
    "crescer": "muito;pouco",
    "subir": "muito;de repente",
    "parar": "de repente;ontem",
}


def attractor_phrase(draw: Draw) -> Iterator[Contrast]:
    """A complement with a noun of the other number stands between the subject's noun and the verb."""
    while True:
        singular, plural, verbs = draw.one(_OF)
        verb = draw.random.choice(verbs.split())
        adjunct = draw.random.choice(_OF_ADJUNCTS[verb].split(";"))
        once = adjunct in ("ontem", "na semana passada", "de repente") or verb == "desaparecer"
        tense = "pret" if once else draw.one(("pret", "fut"))
        frames = tuple(f"{subject} _ {_rest(verb, tense, adjunct)}" for subject in (singular, plural))
        yield Contrast(frames, _forms(verb, tense), (singular, f"{verb} {adjunct}"))


_FIRST = (
    # verb, tense, rest
    ("viver", "pres", "perto da praia"),
    ("entrar", "pret", "pela janela"),
    ("trabalhar", "pres", "no hospital"),
    ("viver", "impf", "na mesma casa"),
    ("gostar", "pres", "de música"),
    ("gostar", "pres", "de viajar"),
    ("conhecer", "pres", "aquela cidade"),
    ("querer", "pres", "voltar para casa"),
    ("poder", "pres", "sair agora"),
    ("saber", "pres", "a verdade"),
    ("ter", "pres", "muitos amigos"),
    ("precisar", "pres", "de ajuda"),
    ("estar", "pres", "em casa"),
    ("ir", "pres", "ao teatro"),
    ("fazer", "pret", "uma viagem longa"),
    ("chegar", "pret", "ontem à noite"),
    ("comprar", "pret", "uma casa pequena"),
    ("perder", "pret", "a chave"),
    ("ler", "pret", "o jornal"),
    ("escrever", "pret", "uma carta"),
    ("tomar", "pret", "um copo de água"),
    ("sair", "pret", "antes do jantar"),
    ("ver", "pret", "um navio no porto"),
    ("dizer", "pret", "a verdade"),
    ("trazer", "pret", "um presente"),
    ("ir", "pres", "vender a fazenda"),
    ("ir", "pres", "estudar na cidade"),
    ("ir", "pres", "voltar no domingo"),
    ("ir", "pres", "viajar amanhã"),
    ("ir", "pres", "abrir a porta"),
    ("cair", "pret", "na rua"),
    ("ouvir", "pret", "um barulho"),
    ("pedir", "pret", "um café"),
    ("deixar", "pret", "o livro em casa"),
    ("encontrar", "pret", "o caminho"),
    ("ir", "pres", "falar com o diretor"),
    ("comer", "pret", "uma laranja"),
    ("esperar", "impf", "uma resposta"),
    ("viver", "impf", "no campo"),
    ("correr", "pret", "até a porta"),
    ("preferir", "pres", "o outro caminho"),
    ("começar", "pret", "o trabalho"),
)
_SO_FAR = (
    *(("conhecer", "pres"), ("poder", "pres"), ("saber", "pres"), ("ver", "pret"), ("fazer", "pret")),
    *(("comprar", "pret"), ("ler", "pret"), ("encontrar", "pret"), ("escrever", "pret")),
)
_SUBJECTS = (
    (("eu", "1s"), ("nós", "1p")),
    (("eu", "1s"), ("eles", "3p")),
    (("eu", "1s"), ("ela", "3s")),
    (("nós", "1p"), ("elas", "3p")),
    (("nós", "1p"), ("você", "3s")),
    (("eu", "1s"), ("vocês", "3p")),
)
_BEFORE = ("", "", "", "nunca", "ainda não", "também", "já")


def person(draw: Draw) -> Iterator[Contrast]:
    """Two personal pronouns and the forms of one verb that go with them."""
    while True:
        verb, tense, rest = draw.one(_FIRST)
        first, second = draw.one(_SUBJECTS)
        between = draw.one(_BEFORE)
        if between in ("nunca", "ainda não", "já") and (verb, tense) not in _SO_FAR:
            between = "também"
        if between in ("nunca", "já") and tense == "pres":
            between = "ainda não"
        forms = conjugate(verb, tense, first[1]), conjugate(verb, tense, second[1])
        if forms[0] == forms[1]:
            continue
        middle = f"{between} _" if between else "_"
        frames = tuple(f"{pronoun} {middle} {rest}" for pronoun, _ in (first, second))
        yield Contrast(frames, forms, (rest, f"{verb} {first[0]} {second[0]}"))


_YOUNG = ("menino", "menina", "criança", "aluno")
_OF_ADULTS = (
    *("marido", "esposa", "noivo", "noiva", "namorado", "namorada", "companheiro", "companheira"),
    *("filho", "filha", "neto", "neta", "sobrinho", "sobrinha"),
)


def coordinated(draw: Draw) -> Iterator[Contrast]:
    """Two coordinated singulars against one singular with a complement."""
    people = tuple(one for one in intransitive() if len(one.nouns) > 20)
    while True:
        activity = draw.one(people)
        first, second = draw.person(), draw.person()
        if first.singular == second.singular or "parente" not in (first.kind, second.kind):
            continue
        adjunct = draw.one(activity.adjuncts)
        tense = _tense(draw, activity.verb, adjunct)
        head = first if first.kind == "parente" else second
        other = second if head is first else first
        if other.kind == "parente" or (other.singular in _YOUNG and head.singular in _OF_ADULTS):
            continue
        rest, of = _rest(activity.verb, tense, adjunct), agree("do", other.gender)
        frames = (
            f"{agree('o', head.gender)} {head.singular} {of} {other.singular} _ {rest}",
            f"{first.the()} e {second.the()} _ {rest}",
        )
        yield Contrast(frames, _forms(activity.verb, tense), (first.singular, second.singular, activity.verb))


PHENOMENA = (
    Phenomenon(
        "sujeito_verbo_numero",
        "Número do verbo junto ao sujeito",
        Register.NEUTRAL,
        "O verbo concorda em número com o sujeito que o precede.",
        "Cunha e Cintra, Nova gramática, cap. 13; Perini, Gramática do português brasileiro, concordância.",
        subject_verb,
        "A falta de concordância é variável na fala popular; nenhum falante culto a escreve.",
        repeats=7,
    ),
    Phenomenon(
        "sujeito_verbo_relativa",
        "Número do verbo depois de oração relativa",
        Register.NEUTRAL,
        "O verbo concorda com o núcleo do sujeito, também quando uma oração relativa com substantivo de "
        "outro número os separa.",
        "Bechara, Moderna gramática, concordância verbal. Método: Linzen et al. 2016 (arXiv:1611.01368).",
        across_relative,
        repeats=7,
    ),
    Phenomenon(
        "sujeito_verbo_complemento",
        "Número do verbo depois de complemento",
        Register.NEUTRAL,
        "O verbo concorda com o núcleo do sujeito, e não com o substantivo do complemento mais próximo.",
        "Bechara, Moderna gramática, concordância verbal. Método: Linzen et al. 2016 (arXiv:1611.01368).",
        attractor_phrase,
        "Ficam fora os núcleos partitivos e coletivos (a maioria dos alunos), que admitem as duas formas.",
        repeats=2,
    ),
    Phenomenon(
        "pessoa_verbal",
        "Pessoa do verbo",
        Register.NEUTRAL,
        "O verbo concorda em pessoa e número com o pronome sujeito: eu, você, ela, nós, eles, vocês.",
        "Cunha e Cintra, Nova gramática, cap. 13; Perini, Gramática do português brasileiro.",
        person,
        "Ficam fora tu, vós e a gente, em que norma e usos regionais divergem.",
        repeats=2,
    ),
    Phenomenon(
        "sujeito_composto",
        "Verbo com sujeito composto",
        Register.NEUTRAL,
        "O sujeito composto anteposto leva o verbo ao plural; um singular com complemento, não.",
        "Cunha e Cintra, Nova gramática, cap. 13, concordância com mais de um núcleo.",
        coordinated,
        "Só sujeitos antepostos: com o sujeito posposto a concordância com o núcleo mais próximo é admitida.",
        repeats=8,
    ),
)
