"""Prepositions: contraction with the article, crase, and the preposition that a verb governs."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register

_BEFORE_NOUN = (
    # preposition | start of the sentence | nouns with their article | end
    ("de", "a moça saiu", "o quarto;a igreja;o teatro;a sala", "sem pressa"),
    ("de", "meu tio voltou", "o campo;a cidade;o porto;a praia", "ontem"),
    ("de", "ninguém falou", "o problema;a viagem;os soldados;as cartas", "durante o jantar"),
    ("de", "ela tem saudade", "o irmão;a escola;os amigos;as irmãs", ""),
    ("de", "o preço", "o vinho;a casa;os livros;as flores", "subiu muito"),
    ("de", "a porta", "o armário;a cozinha;o hotel;a igreja", "está fechada"),
    ("de", "a menina cuida", "o gato;a irmã;os cavalos;as flores", "com carinho"),
    ("de", "o velho se lembra", "o navio;a guerra;os amigos;as festas", "com saudade"),
    ("em", "o livro está", "o armário;a gaveta", "há dois dias"),
    ("em", "ela mora", "o campo;a cidade", "com a família"),
    ("em", "os soldados dormiram", "o navio;a praia;os quartos;as casas", "naquela noite"),
    ("em", "ninguém acredita", "o ministro;a notícia;os jornais;as histórias", ""),
    ("em", "meu avô nasceu", "a fazenda;o navio;a aldeia;o campo", "há muitos anos"),
    ("de", "os meninos vieram", "o mercado;a praia;as aulas", "a pé"),
    ("em", "o gato dorme", "o jardim;a cozinha;os quartos;as cadeiras", "à tarde"),
)
_DEEDS = (
    "convidar para o jantar",
    "ajudar no trabalho",
    "receber em casa",
    "visitar no hospital",
    "levar ao teatro",
    "acompanhar até a porta",
    "esperar na porta",
    "deixar em paz",
)
_PLEASURES = (
    "conhecer na festa",
    "ver de novo",
    "ouvir cantar",
    "receber em casa",
    "visitar no domingo",
    "levar ao teatro",
    "acompanhar na viagem",
    "ajudar naquele dia",
)
_BEFORE_PRONOUN = {
    # preposition -> beginnings of the sentence, each with what may follow
    "de": (
        ("tive o prazer", _PLEASURES),
        ("o médico teve a honra", _PLEASURES),
        ("minha tia teve a alegria", _PLEASURES),
        ("eles têm o costume", _DEEDS),
        ("meu tio gostaria", _DEEDS),
        ("a moça teve a ideia", _DEEDS),
        ("temos a obrigação", _DEEDS),
        ("ela teve a coragem", _DEEDS),
    ),
    "em": (
        ("tive muito gosto", _PLEASURES),
        ("a senhora teve muito prazer", _PLEASURES),
        ("o rapaz insistiu", _DEEDS),
        ("ele não hesitou", _DEEDS),
        ("minha tia pensou", _DEEDS),
        ("o velho fez bem", _DEEDS),
    ),
}


def contraction(draw: Draw) -> Iterator[Contrast]:
    """The article contracts with de and em; the object pronoun of the same form does not."""
    while True:
        preposition, start, nouns, end = draw.one(_BEFORE_NOUN)
        article, noun = draw.random.choice(nouns.split(";")).split()
        other, infinitives = draw.one(_BEFORE_PRONOUN[preposition])
        infinitive = draw.one(infinitives)
        if (preposition, article) == ("em", "os"):
            continue  # "hesitou nos ver" could be of us
        joined = {"de": "d", "em": "n"}[preposition] + article
        frames = (f"{start} _ {noun} {end}".strip(), f"{other} _ {infinitive}")
        yield Contrast(frames, (joined, f"{preposition} {article}"), (start, other, infinitive, noun))


_CRASE = (
    "ela foi {} praia no domingo",
    "o menino chegou {} escola muito cedo",
    "eles voltaram {} cidade depois da guerra",
    "minha tia vai {} igreja aos domingos",
    "o médico chegou {} fazenda de madrugada",
    "o professor se referiu {} guerra",
    "a bolsa pertence {} professora",
    "ele se dirigiu {} porta em silêncio",
    "a moça se sentou junto {} janela",
    "tudo mudou graças {} ajuda dos amigos",
    "a festa acabou devido {} chuva",
    "em relação {} proposta, ninguém falou",
    "quanto {} viagem, não sei nada",
    "ela entregou a carta {} mãe do menino",
    "o rapaz deu um anel {} noiva",
    "ele fez um pedido {} rainha",
    "a casa fica em frente {} igreja",
    "o jardim fica próximo {} escola",
    "os soldados resistiram {} fome",
    "ela contou tudo {} irmã mais velha",
    "o barco voltou {} ilha",
    "a criança se acostumou {} nova casa",
    "o juiz chegou {} conclusão de que ele mentia",
    "todos foram {} festa de ontem",
    "ele pediu ajuda {} vizinha",
    "minha irmã prefere o café {} cerveja",
    "ela mostrou o quadro {} cantora",
    "somos contrários {} guerra",
    "este remédio faz mal {} saúde",
    "o navio chegou {} costa do Brasil",
    "o ministro compareceu {} reunião",
    "ele se candidatou {} presidência",
    "a notícia chegou {} capital",
    "ela tem amor {} liberdade",
    "o povo aderiu {} causa",
    "ele foi condenado {} morte",
    "a estrada leva {} montanha",
    "ela dedicou o poema {} avó",
    "o menino deu comida {} vaca",
    "ele ensinou música {} filha do juiz",
    "voltamos {} sala depois do jantar",
    "o homem se ligou {} família da noiva",
    "o advogado fez uma visita {} viúva",
    "o trem chegou {} estação com atraso",
    "meu tio se referiu {} carta do ministro",
    "ela se sentou {} mesa com os convidados",
    "o rapaz voltou {} fazenda do pai",
    "a moça entregou a chave {} senhora",
    "os meninos foram {} escola de manhã",
    "o professor fez uma pergunta {} aluna nova",
    "o livro pertence {} biblioteca",
    "eles chegaram {} ilha antes da noite",
    "o hotel fica junto {} praia",
    "ela deu um beijo {} avó",
    "o soldado sobreviveu {} guerra",
    "o médico fez um favor {} família",
    "quanto {} festa, nada está decidido",
    "ele levou a criança {} praia",
    "o carro chegou {} ponte em cinco minutos",
    "a menina voltou {} aldeia com os irmãos",
)
_NO_CRASE = (
    "ela começou {} chorar",
    "o menino aprendeu {} nadar",
    "ele voltou {} falar do problema",
    "minha tia me ensinou {} cozinhar",
    "o rapaz ajudou {} fechar a loja",
    "a moça se recusou {} sair",
    "ele foi obrigado {} vender a casa",
    "o juiz está disposto {} ouvir",
    "o cão continua {} correr",
    "ela veio {} saber da verdade",
    "fomos {} pé até o porto",
    "ele anda {} cavalo pelo campo",
    "compramos o carro {} prazo",
    "ela escreveu {} lápis",
    "o barco é movido {} vapor",
    "ele entregou a carta {} ela",
    "o professor deu o livro {} você",
    "a moça mostrou o anel {} uma amiga",
    "ele contou a história {} todos",
    "não disse nada {} ninguém",
    "ela falou {} cada aluno",
    "o médico deu o remédio {} um menino",
    "pedimos ajuda {} qualquer pessoa",
    "ela se refere {} essa viagem",
    "os dois ficaram cara {} cara",
    "eles conversaram frente {} frente",
    "a água caía gota {} gota",
    "ela leu o livro de ponta {} ponta",
    "a loja abre de segunda {} sexta",
    "o hotel fica {} cem metros da praia",
    "daqui {} pouco vai chover",
    "a moça chegou {} tempo",
    "ele contou tudo {} mim",
    "o rei falou {} quem estava na praça",
    "ele deu um presente {} alguma amiga",
    "ela pôs tudo {} perder",
    "o carro custou {} chegar",
    "o homem passou {} viver sozinho",
    "ninguém se atreveu {} perguntar",
    "ela tem muito {} fazer",
    "vou {} Paris no mês que vem",
    "ele foi {} Lisboa com a família",
    "a escola ensina {} ler",
    "meu avô dedicou o poema {} Deus",
    "ele saiu {} procurar o cão",
    "ela chegou {} pensar em fugir",
    "o ministro se negou {} responder",
    "o rapaz aprendeu {} cantar na igreja",
    "a criança começou {} correr",
    "a festa começou {} perder a graça",
    "o médico deu alta {} dois soldados",
)


def crase(draw: Draw) -> Iterator[Contrast]:
    """à before a feminine noun with the article, a before a verb, a masculine noun or a pronoun."""
    while True:
        with_accent, without = draw.one(_CRASE), draw.one(_NO_CRASE)
        frames = (with_accent.format("_"), without.format("_"))
        yield Contrast(frames, ("à", "a"), frames)


_GOVERNED = (
    # verb phrase | its preposition | prepositions that are wrong with it
    ("{} gosta", "de", "em com"),
    ("{} precisa", "de", "em com"),
    ("{} depende", "de", "em com"),
    ("{} desconfia", "de", "em com"),
    ("{} se lembra", "de", "em com a"),
    ("{} se esqueceu", "de", "em com a"),
    ("{} se queixa", "de", "em"),
    ("{} se aproximou", "de", "em com"),
    ("{} duvida", "de", "em com a"),
    ("{} confia", "em", "de com a"),
    ("{} acredita", "em", "de com a"),
    ("{} pensa", "em", "de a"),
    ("{} tropeçou", "em", "de a"),
    ("{} sonha", "com", "de em a"),
    ("{} concorda", "com", "de em a"),
    ("{} se casou", "com", "de em"),
    ("{} se parece", "com", "de em"),
    ("{} convive", "com", "de em a"),
    ("{} se referiu", "a", "de em com"),
    ("{} se dirigiu", "a", "de em"),
    ("{} se dedica", "a", "de em"),
    ("{} resiste", "a", "de em"),
)
_NAMES = ("Pedro", "Ana", "Maria", "José", "Luís", "Helena", "Paulo", "Lúcia", "Carlos", "Clara")
_SUBJECTS = (
    "minha irmã",
    "o professor",
    "a moça",
    "meu vizinho",
    "o médico",
    "a menina",
    "meu primo",
    "o rapaz",
    "a senhora",
    "meu tio",
    "o advogado",
    "a cantora",
)


def governed_preposition(draw: Draw) -> Iterator[Contrast]:
    """Two verbs, each with the preposition of the other."""
    while True:
        first, one, not_first = draw.one(_GOVERNED)
        second, other, not_second = draw.one(_GOVERNED)
        if one == other or other not in not_first.split() or one not in not_second.split():
            continue
        who, name = draw.one(_SUBJECTS), draw.one(_NAMES)
        if who == "a menina" and "casou" in first + second:
            continue
        frames = tuple(f"{phrase.format(who)} _ {name}" for phrase in (first, second))
        yield Contrast(frames, (one, other), (first, second, who, name))


PHENOMENA = (
    Phenomenon(
        "contracao",
        "Contração da preposição com o artigo",
        Register.FORMAL,
        "De e em contraem com o artigo definido que os segue (do, na). O pronome oblíquo o, objeto de "
        "infinitivo, não contrai: o prazer de o conhecer.",
        "Cunha e Cintra, Nova gramática, cap. 9 (artigo) e 11 (pronome); Bechara, Moderna gramática.",
        contraction,
        "Metade dos pares usa o pronome oblíquo antes do infinitivo, da escrita cuidada. Fica fora a "
        "contração "
        "antes de sujeito de infinitivo (antes do sol nascer), que a norma discute.",
        repeats=10,
    ),
    Phenomenon(
        "crase",
        "Crase",
        Register.FORMAL,
        "À antes de substantivo feminino determinado regido de a; a antes de verbo, de masculino e de "
        "pronome que "
        "não admite artigo.",
        "Cunha e Cintra, Nova gramática, cap. 9 (emprego do artigo; crase); Bechara, Moderna gramática.",
        crase,
        "É regra de grafia: a fala não distingue as formas. Ficam fora os casos facultativos (possessivos, "
        "nomes "
        "de mulher, até).",
        repeats=2,
    ),
    Phenomenon(
        "preposicao_regida",
        "Preposição regida pelo verbo",
        Register.NEUTRAL,
        "Gostar, precisar e depender pedem de; confiar, acreditar e pensar, em; sonhar, concordar e casar, "
        "com; "
        "referir-se e dirigir-se, a.",
        "Celso Pedro Luft, Dicionário prático de regência verbal; Cunha e Cintra, Nova gramática, cap. 13.",
        governed_preposition,
        "Só verbos em que norma e uso concordam; fica fora a omissão de de antes de oração (preciso que "
        "venha).",
        repeats=8,
    ),
)
