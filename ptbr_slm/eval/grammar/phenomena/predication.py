"""Agreement in the predicate: adjectives after a copula, participles, adjectives said of the subject."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import PLURAL, SINGULAR, Adjective, Draw, Noun, adjectives, agree
from ptbr_slm.eval.grammar.lexicon import noun as named
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate, participle

_COPULAS = {
    "ser": (("ser", "pres"), ("ser", "impf"), ("parecer", "pres"), ("ser", "pret")),
    "estar": (("estar", "pres"), ("estar", "impf"), ("ficar", "pret"), ("continuar", "pres")),
}
_DEGREE = ("", "", "muito", "bastante")
_COLOURS = ("branco", "preto", "vermelho", "amarelo")
_STATES_ONCE = ("quebrado", "aberto", "fechado", "maduro")
_FIXED = ("honesto", "rico", "sério", "alto", "falso", "verdadeiro", "famoso")
"""Not with "foi": "foi alto"."""


def _predicate(draw: Draw, adjective: Adjective) -> tuple[str, str, str]:
    """Verb, tense and the word of degree before an adjective."""
    verb, tense = draw.one(_COPULAS[adjective.copula])
    if adjective.lemma in _COLOURS:
        verb, tense = "ser", draw.one(("pres", "impf"))
    if (verb, tense) == ("ser", "pret"):
        tense = "impf" if adjective.lemma in _FIXED else "pres"
    plain = adjective.lemma in (*_STATES_ONCE, *_COLOURS, "falso", "verdadeiro")
    return verb, tense, "" if plain else draw.one(_DEGREE)


def predicate_gender(draw: Draw) -> Iterator[Contrast]:
    """A masculine and a feminine subject, the adjective after the copula; in half with an attractor."""
    while True:
        adjective = draw.one(adjectives())
        number = SINGULAR if draw.chance(0.6) or adjective.lemma == "zangado" else PLURAL
        nouns = [named(name) for name in adjective.nouns]
        nouns = [what for what in nouns if number == SINGULAR or what.has_plural]
        masculine = [what for what in nouns if what.gender == "M"]
        feminine = [what for what in nouns if what.gender == "F"]
        if not masculine or not feminine:
            continue
        pair = draw.random.choice(masculine), draw.random.choice(feminine)
        verb, tense, degree = _predicate(draw, adjective)
        form = conjugate(verb, tense, "3p" if number == PLURAL else "3s")
        predicate = " ".join(word for word in (form, degree, "_") if word)
        frames = tuple(f"{what.the(number)} {predicate}" for what in pair)
        forms = agree(adjective.lemma, "M", number), agree(adjective.lemma, "F", number)
        yield Contrast(frames, forms, (adjective.lemma, pair[0].singular, pair[1].singular))


def predicate_number(draw: Draw) -> Iterator[Contrast]:
    """The same subject in the singular and in the plural."""
    while True:
        adjective = draw.one(adjectives())
        what = named(draw.random.choice(adjective.nouns))
        if not what.has_plural or adjective.lemma == "zangado":
            continue
        verb, tense, degree = _predicate(draw, adjective)
        determiner = draw.one(("o", "o", "este", "aquele"))
        frames = tuple(
            " ".join(
                word
                for word in (
                    agree(determiner, what.gender, number),
                    what.form(number),
                    conjugate(verb, tense, "3p" if number == PLURAL else "3s"),
                    degree,
                    "_",
                )
                if word
            )
            for number in (SINGULAR, PLURAL)
        )
        forms = agree(adjective.lemma, what.gender), agree(adjective.lemma, what.gender, PLURAL)
        yield Contrast(frames, forms, (adjective.lemma, what.singular))


_INSIDE = (
    # masculine head with a feminine after it | feminine head with a masculine after it | predicates
    ("o quarto da menina", "a sala do menino", "estar limpo;estar vazio;estar escuro;ficar sujo"),
    ("o relógio da igreja", "a janela do quarto", "estar quebrado;ser antigo"),
    ("o jardim da casa", "a porta do jardim", "ser bonito;ser pequeno;estar fechado"),
    ("o livro da professora", "a carta do professor", "estar aberto;ser comprido;ser antigo"),
    ("o vestido da noiva", "a camisa do noivo", "ser branco;ficar sujo;estar molhado"),
    ("o irmão da cantora", "a irmã do cantor", "estar cansado;ser honesto;ficar calado;ser alto"),
    ("o filho da vizinha", "a filha do vizinho", "ser magro;ficar nervoso;ser sério"),
    ("o nome da rua", "a rua do poeta", "ser bonito;ser estranho;ser antigo"),
    ("o muro da escola", "a escada do hotel", "ser alto;ser antigo;estar sujo"),
    ("o teatro da cidade", "a biblioteca do colégio", "estar vazio;ser pequeno;ser famoso;estar cheio"),
    ("o café da manhã", "a sopa do jantar", "estar frio;estar pronto"),
    ("o discurso da diretora", "a resposta do diretor", "ser curto;ser sincero;ser longo"),
    ("o retrato da moça", "a fotografia do rapaz", "ser antigo;ser bonito;ser pequeno"),
    ("o professor da menina", "a professora do menino", "ficar zangado;ser famoso;estar ocupado"),
    ("o amigo da enfermeira", "a amiga do médico", "ser rico;ficar preocupado;ser curioso"),
    ("o armário da cozinha", "a gaveta do armário", "estar vazio;estar cheio;estar fechado"),
    ("o chapéu da senhora", "a bengala do senhor", "ser preto;ser caro;ser novo"),
    ("o caminho da praia", "a rua do mercado", "ser longo;ser perigoso;ser estreito;ser escuro"),
    ("o porto da ilha", "a praia do hotel", "ser pequeno;estar vazio;estar limpo"),
    ("o cavalo da princesa", "a vaca do vizinho", "ser branco;estar magro;ser manso"),
    ("o projeto da ponte", "a planta do prédio", "estar pronto;ser antigo;ser complicado"),
)


def predicate_attractor(draw: Draw) -> Iterator[Contrast]:
    """As `predicate_gender`, with a noun of the other gender between the subject's noun and the copula."""
    while True:
        masculine, feminine, predicates = draw.one(_INSIDE)
        verb, lemma = draw.random.choice(predicates.split(";")).split()
        tense = "pret" if verb == "ficar" else draw.one(("pres", "impf"))
        if verb in ("ser", "estar"):
            masculine_form, feminine_form = conjugate(verb, tense, "3s"), conjugate(verb, tense, "3s")
        else:
            masculine_form = feminine_form = conjugate(verb, tense, "3s")
        degree = (
            ""
            if lemma in ("quebrado", "aberto", "fechado", "branco", "preto", "pronto", "novo")
            else draw.one(_DEGREE)
        )
        frames = tuple(
            " ".join(word for word in (subject, form, degree, "_") if word)
            for subject, form in ((masculine, masculine_form), (feminine, feminine_form))
        )
        yield Contrast(frames, (lemma, agree(lemma, "F")), (masculine, f"{lemma} {masculine}"))


_PASSIVE = (
    # verb | things (masculine and feminine) | agents and adjuncts
    (
        "escrever",
        "livro poema conto artigo bilhete carta peça história página",
        "pela minha tia;em poucos dias;por um poeta",
    ),
    ("ler", "livro poema jornal discurso carta proposta notícia lei", "em voz alta;por todos;pelo ministro"),
    (
        "vender",
        "cavalo piano relógio quadro barco carro casa fazenda loja vaca",
        "no mês passado;por um bom preço;pelo dono",
    ),
    (
        "comprar",
        "vestido anel quadro piano casa mesa fazenda bolsa",
        "pelo meu avô;na semana passada;por uma senhora",
    ),
    ("pintar", "quadro retrato muro porta parede janela casa", "por um aluno;no ano passado;pelo meu tio"),
    (
        "construir",
        "palácio hospital muro barco casa ponte igreja escola",
        "em dois anos;pelos soldados;com pouco dinheiro",
    ),
    ("abrir", "armário livro museu porta janela carta gaveta garrafa", "com cuidado;pelo diretor;de manhã"),
    (
        "fechar",
        "museu teatro banco porta janela loja biblioteca escola",
        "pelo governo;às pressas;no domingo",
    ),
    (
        "quebrar",
        "copo prato espelho relógio garrafa cadeira xícara janela",
        "pelas crianças;durante a festa;sem querer",
    ),
    (
        "encontrar",
        "anel relógio retrato mapa documento chave carta bolsa moeda",
        "no jardim;pela empregada;na gaveta",
    ),
    ("roubar", "relógio anel quadro carro moeda galinha bolsa", "durante a noite;por um soldado;na praça"),
    ("assinar", "contrato documento artigo carta proposta", "pelo diretor;ontem;pelos dois lados"),
    ("servir", "jantar almoço café chá sopa", "na varanda;por uma moça;depois da missa"),
    ("preparar", "jantar almoço bolo sopa festa viagem", "com cuidado;pela minha avó;às pressas"),
    ("resolver", "problema mistério", "em poucos dias;pelo juiz"),
    ("contar", "segredo sonho história mentira verdade", "por um amigo;em voz baixa;durante o jantar"),
    ("explicar", "problema plano texto decisão história", "com calma;pela professora;na reunião"),
    ("receber", "presente bilhete convidado carta notícia visita", "com alegria;pelo rei;ontem"),
    ("guardar", "livro vestido documento carta fotografia moeda", "no armário;com cuidado;pela minha mãe"),
    ("cortar", "bolo pão queijo árvore flor maçã", "com uma faca;pelo cozinheiro;em pedaços"),
    ("esquecer", "chapéu livro lenço chave bolsa mala", "no teatro;pelo passageiro;no hotel"),
    ("perder", "livro mapa documento batalha chave carta", "na viagem;por um aluno;no caminho"),
)


_PLANNED = (
    "construir",
    "vender",
    "fechar",
    "assinar",
    "pintar",
    "abrir",
    "resolver",
    "preparar",
    "servir",
    "ler",
)


def passive_gender(draw: Draw) -> Iterator[Contrast]:
    """The participle of the passive with a masculine and a feminine subject."""
    while True:
        verb, nouns, adjuncts = draw.one(_PASSIVE)
        number = SINGULAR if draw.chance(0.65) else PLURAL
        plural = number == PLURAL
        pair = draw.pick(nouns.split(), "M", plural=plural), draw.pick(nouns.split(), "F", plural=plural)
        if pair[0] is None or pair[1] is None:
            continue
        subjects: tuple[Noun, Noun] = (pair[0], pair[1])
        adjunct = draw.random.choice(adjuncts.split(";"))
        be = (
            draw.one(("foi", "foi", "tinha sido", "será"))
            if not plural
            else draw.one(("foram", "foram", "tinham sido"))
        )
        if be == "será" and (verb not in _PLANNED or "passad" in adjunct or adjunct == "ontem"):
            be = "foi"
        frames = tuple(f"{what.the(number)} {be} _ {adjunct}" for what in subjects)
        forms = participle(verb, "M", number), participle(verb, "F", number)
        yield Contrast(frames, forms, (verb, *(what.singular for what in subjects)))


_BOTH = (
    # verb for what happens to a thing and what it then is | things | after tinham | after estavam
    ("fechar", "porta janela loja escola", "muito cedo;antes da chuva", "por causa da chuva;havia dois dias"),
    ("abrir", "porta janela loja escola biblioteca", "muito cedo;sem atraso", "desde cedo;naquele dia"),
    (
        "quebrar",
        "xícara garrafa cadeira janela máquina",
        "durante a festa;durante a viagem",
        "havia muito tempo",
    ),
    ("mudar", "cidade rua moça escola", "muito em dois anos;muito", "por causa da guerra;depois da guerra"),
    ("crescer", "criança menina", "muito;muito em dois anos", "para a idade;naquele verão"),
    ("cair", "árvore pedra flor", "durante a noite;com o vento", "no meio da rua;no jardim"),
    ("parar", "máquina fazenda", "de repente;por falta de dinheiro", "havia dois dias;por causa da guerra"),
    (
        "desaparecer",
        "chave carta moeda fotografia",
        "da gaveta;do armário",
        "havia muito tempo;desde a festa",
    ),
    ("cansar", "menina moça criança cantora", "de esperar;de tanto andar", "de esperar;de tanto andar"),
    ("casar", "moça prima irmã vizinha amiga", "muito cedo;na igreja", "havia dois anos;com um médico"),
    ("acordar", "menina criança mulher atriz", "muito cedo;com o barulho", "desde cedo;havia muito tempo"),
    ("adormecer", "menina criança senhora", "na cadeira;durante a viagem", "na cadeira;havia muito tempo"),
    ("desmaiar", "moça mulher princesa", "de susto;de fome", "no jardim;na cama"),
)


def compound_participle(draw: Draw) -> Iterator[Contrast]:
    """The participle is invariable after ter and agrees after estar."""
    while True:
        verb, nouns, after_have, after_be = draw.one(_BOTH)
        number = draw.number()
        what = draw.pick(nouns.split(), "F", plural=number == PLURAL)
        if what is None:
            continue
        person = "3p" if number == PLURAL else "3s"
        have = conjugate("ter", "impf", person)
        be = conjugate("estar", "impf", person)
        already = draw.one(("", "já"))
        frames = (
            " ".join(
                word
                for word in (what.the(number), already, have, "_", draw.random.choice(after_have.split(";")))
                if word
            ),
            " ".join(
                word
                for word in (what.the(number), already, be, "_", draw.random.choice(after_be.split(";")))
                if word
            ),
        )
        yield Contrast(frames, (participle(verb), participle(verb, "F", number)), (what.singular, verb))


_DEPICTIVE = (
    "cansado",
    "calado",
    "sozinho",
    "satisfeito",
    "zangado",
    "preocupado",
    "nervoso",
    "molhado",
    "assustado",
)
_COMING = (
    "voltou _ do trabalho",
    "saiu _ da reunião",
    "chegou _ à festa",
    "entrou _ na sala",
    "viajou _ para a cidade",
    "ficou _ na varanda",
    "esperou _ no corredor",
    "dormiu _ no quarto",
    "trabalhou _ o dia inteiro",
    "jantou _ no hotel",
    "andou _ pela praia",
    "voltou _ para casa",
    "falou _ com o diretor",
    "desceu _ do carro",
)
_NOT_TOGETHER = {
    "molhado": ("trabalhou", "viajou", "jantou", "falou", "ficou", "esperou", "dormiu", "saiu", "andou"),
    "assustado": ("trabalhou", "jantou", "dormiu", "viajou", "andou"),
    "cansado": ("jantou", "ficou"),
    "nervoso": ("jantou", "dormiu"),
    "zangado": ("jantou", "dormiu", "andou", "viajou"),
    "satisfeito": ("esperou",),
    "preocupado": ("jantou",),
    "calado": ("viajou", "dormiu", "falou"),
    "sozinho": ("ficou", "falou"),
}


def depictive(draw: Draw) -> Iterator[Contrast]:
    """An adjective after the verb that says how the subject is: "voltou cansada"."""
    pairs = (
        ("menino", "menina"),
        ("professor", "professora"),
        ("médico", "médica"),
        ("cantor", "cantora"),
        ("rapaz", "moça"),
        ("homem", "mulher"),
        ("ator", "atriz"),
        ("irmão", "irmã"),
        ("primo", "prima"),
        ("tio", "tia"),
        ("vizinho", "vizinha"),
        ("filho", "filha"),
        ("amigo", "amiga"),
        ("diretor", "diretora"),
        ("noivo", "noiva"),
        ("sobrinho", "sobrinha"),
        ("cozinheiro", "cozinheira"),
        ("empregado", "empregada"),
        ("soldado", "enfermeira"),
        ("advogado", "senhora"),
    )
    while True:
        lemma, frame = draw.one(_DEPICTIVE), draw.one(_COMING)
        if frame.split()[0] in _NOT_TOGETHER.get(lemma, ()):
            continue
        names = draw.one(pairs)
        frames = tuple(f"{named(name).the()} {frame}" for name in names)
        yield Contrast(frames, (lemma, agree(lemma, "F")), (lemma, *names, frame))


_COPULA_SOURCE = "Cunha e Cintra, Nova gramática, cap. 10 (concordância do adjetivo predicativo)."
PHENOMENA = (
    Phenomenon(
        "predicativo_genero",
        "Gênero do predicativo",
        Register.NEUTRAL,
        "O adjetivo predicativo concorda em gênero com o sujeito (ser, estar, ficar, parecer, continuar).",
        _COPULA_SOURCE,
        predicate_gender,
        repeats=4,
    ),
    Phenomenon(
        "predicativo_numero",
        "Número do predicativo",
        Register.NEUTRAL,
        "O adjetivo predicativo concorda em número com o sujeito.",
        _COPULA_SOURCE,
        predicate_number,
        "Ficam fora os sujeitos genéricos sem artigo (cerveja é bom), em que o predicativo não concorda.",
        repeats=4,
    ),
    Phenomenon(
        "predicativo_complemento",
        "Gênero do predicativo depois de complemento",
        Register.NEUTRAL,
        "O predicativo concorda com o núcleo do sujeito, e não com o substantivo mais próximo.",
        _COPULA_SOURCE,
        predicate_attractor,
        repeats=4,
    ),
    Phenomenon(
        "passiva_genero",
        "Gênero do particípio na passiva",
        Register.NEUTRAL,
        "Na voz passiva o particípio concorda em gênero com o sujeito.",
        "Cunha e Cintra, Nova gramática, cap. 13 (vozes do verbo; particípio).",
        passive_gender,
        repeats=4,
    ),
    Phenomenon(
        "participio_ter_estar",
        "Particípio depois de ter e de estar",
        Register.NEUTRAL,
        "O particípio é invariável no tempo composto (tinham quebrado) e concorda depois de estar (estavam "
        "quebradas).",
        "Cunha e Cintra, Nova gramática, cap. 13 (tempos compostos).",
        compound_participle,
        "Só verbos sem objeto direto: tinha escritas as cartas existe na língua antiga.",
        repeats=7,
    ),
    Phenomenon(
        "predicativo_verbo",
        "Predicativo do sujeito com verbo de ação",
        Register.NEUTRAL,
        "O adjetivo que diz o estado do sujeito durante a ação concorda com ele: a menina voltou cansada.",
        "Bechara, Moderna gramática, predicativo do sujeito com verbos nocionais.",
        depictive,
        "Ficam fora os adjetivos que podem ser advérbios no masculino (alto, rápido, sério).",
        repeats=8,
    ),
)
