"""Agreement that the prescribed norm asks for and Brazilian usage often does without: a group apart.

A low score here says that a model writes as Brazilians speak, and not that it does not know the language.
"""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw, agree
from ptbr_slm.eval.grammar.lexicon import noun as named
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register
from ptbr_slm.eval.grammar.verbs import conjugate, participle

_THERE = (
    "_ muitas pessoas na praça",
    "_ dois cavalos no campo",
    "_ flores em todas as janelas",
    "_ muitos navios no porto",
    "naquela rua _ três igrejas",
    "na sala _ poucas cadeiras",
    "_ cartas em cima da mesa",
    "antigamente _ lobos na montanha",
    "na escola _ muitos alunos",
    "_ soldados por toda parte",
    "no teatro _ poucas mulheres",
    "_ dois quadros na parede",
    "na cidade _ muitos hotéis",
    "_ muitas crianças na praia",
    "no jardim _ árvores antigas",
    "_ vários médicos na festa",
    "na gaveta _ duas moedas",
    "naquele tempo _ poucos carros",
)
_EVENTS = (
    "_ haver mudanças no governo",
    "_ haver duas reuniões na semana que vem",
    "_ haver muitas festas no verão",
    "_ haver três concertos no teatro",
    "_ haver poucos convidados no jantar",
    "_ haver eleições neste ano",
    "_ haver problemas na viagem",
    "na praça _ haver dois bailes",
    "no domingo _ haver muitas visitas",
    "_ haver provas na escola",
    "amanhã _ haver aulas de música",
    "_ haver surpresas na reunião",
)
_AUXILIARY = (
    ("os meninos", "sair", "cedo"),
    ("as moças", "chegar", "de manhã"),
    ("meus tios", "vender", "a fazenda"),
    ("os soldados", "voltar", "da guerra"),
    ("as crianças", "dormir", "no navio"),
    ("eles", "falar", "com o diretor"),
    ("as médicas", "preparar", "a festa"),
    ("meus vizinhos", "comprar", "um carro"),
    ("os médicos", "receber", "a notícia"),
    ("elas", "ler", "o jornal"),
    ("os convidados", "esperar", "na sala"),
    ("meus amigos", "perder", "o navio"),
    ("os poetas", "escrever", "uma peça"),
    ("as meninas", "cantar", "na igreja"),
    ("os advogados", "assinar", "o contrato"),
    ("meus irmãos", "deixar", "a cidade"),
    ("os operários", "construir", "a ponte"),
    ("minhas primas", "visitar", "o museu"),
)
_YEARS = (
    "_ dez anos que ela partiu",
    "_ dois dias que não durmo",
    "_ três meses que o navio saiu",
    "_ muitos anos que não vejo o mar",
    "_ duas semanas que chove",
    "_ cinco anos que moro aqui",
    "já _ vinte anos que a guerra acabou",
    "amanhã _ seis meses que casei",
    "_ quatro anos que o teatro fechou",
    "_ duas horas que espero por você",
    "_ muitos dias que ele não escreve",
    "hoje _ três anos que nos conhecemos",
)
_MAKING = (
    "as meninas _ o jantar",
    "os médicos _ perguntas",
    "meus tios _ queijo na fazenda",
    "as crianças _ muito barulho",
    "eles _ vestidos para a festa",
    "os alunos _ a prova hoje",
    "meus amigos _ uma viagem por ano",
    "elas _ bolos muito bons",
    "os poetas _ versos para a rainha",
    "as irmãs _ tudo juntas",
    "os soldados _ o mesmo caminho",
    "minhas tias _ doces em casa",
)


def impersonal(draw: Draw) -> Iterator[Contrast]:
    """haver of existence and fazer of time stay in the singular; as other verbs they agree."""
    while True:
        if draw.chance(0.65):
            who, verb, rest = draw.one(_AUXILIARY)
            if draw.chance():
                frames = (draw.one(_THERE), f"{who} _ {participle(verb)} {rest}")
                forms = ("havia", "haviam")
            else:
                frames = (draw.one(_EVENTS), f"{who} _ {verb} {rest}")
                forms = draw.one((("vai", "vão"), ("deve", "devem")))
        else:
            frames, forms = (draw.one(_YEARS), draw.one(_MAKING)), ("faz", "fazem")
        yield Contrast(frames, forms, (*frames,))


_FOR_THEM = (
    # beginning | verb | end | its counterpart with an auxiliary
    ("o professor trouxe o livro para {}", "ler", "", "{} querem _ o livro"),
    ("ela fez o jantar para {}", "comer", "", "{} vão _ o jantar"),
    ("o diretor abriu a porta para {}", "entrar", "", "{} querem _ na sala"),
    ("pedi para {}", "sair", "da sala", "{} precisam _ da sala"),
    ("a moça fez sinal para {}", "esperar", "", "{} devem _ na porta"),
    ("é difícil {}", "chegar", "cedo", "{} costumam _ cedo"),
    ("é melhor {}", "ficar", "em casa", "{} vão _ em casa"),
    ("é bom {}", "dizer", "a verdade", "{} devem _ a verdade"),
    ("não há motivo para {}", "chorar", "", "{} vão _ na despedida"),
    ("meu avô deu dinheiro para {}", "comprar", "um carro", "{} querem _ um carro"),
    ("já é hora de {}", "dormir", "", "{} precisam _ agora"),
    ("não é possível {}", "fazer", "isso sozinhos", "{} podem _ isso sozinhos"),
    ("ela pediu para {}", "trazer", "o vinho", "{} devem _ o vinho"),
    ("o médico disse para {}", "beber", "água", "{} precisam _ água"),
    ("o juiz chamou a moça para {}", "ouvir", "a história", "{} querem _ a história"),
    ("é raro {}", "escrever", "cartas", "{} sabem _ cartas"),
)
_THEM = (
    ("eles", "3p"),
    ("elas", "3p"),
    ("os meninos", "3p"),
    ("vocês", "3p"),
    ("nós", "1p"),
    ("meus irmãos", "3p"),
)
_NOUS = {
    "querem": "queremos",
    "vão": "vamos",
    "precisam": "precisamos",
    "devem": "devemos",
    "sabem": "sabemos",
    "costumam": "costumamos",
    "podem": "podemos",
}


def inflected_infinitive(draw: Draw) -> Iterator[Contrast]:
    """Inflected with a subject of its own, not inflected after an auxiliary."""
    while True:
        start, verb, end, other = draw.one(_FOR_THEM)
        who, person = draw.one(_THEM)
        if who == "meus irmãos" and "avô" in start:
            continue
        if person == "1p":
            other = " ".join(_NOUS.get(word, word) for word in other.split())
            end = end.replace("sozinhos", "sozinhos")
        if who == "elas":
            end, other = end.replace("sozinhos", "sozinhas"), other.replace("sozinhos", "sozinhas")
        frames = (f"{start.format(who)} _ {end}".strip(), other.format(who))
        yield Contrast(frames, (conjugate(verb, "inf", person), verb), (start, f"{verb} {who}"))


_ARRIVALS = (
    # verb | what arrives | what comes before the verb
    ("chegar", "carta notícia livro convidado professor", "ontem;no domingo;de manhã;finalmente"),
    ("chegar", "navio barco soldado", "ao porto;de madrugada;ontem"),
    ("sair", "navio barco", "do porto;ontem;de manhã"),
    ("sair", "aluno professor menina", "da escola;da sala;pela porta"),
    ("aparecer", "homem moça menino soldado", "de repente;na praça;na porta;à noite"),
    ("desaparecer", "chave documento livro relógio", "ontem;da gaveta;na viagem"),
    ("desaparecer", "quadro moeda", "do museu;durante a guerra"),
    ("cair", "árvore pedra muro", "ontem;no jardim;durante a noite"),
    ("cair", "copo prato garrafa", "da mesa;no chão;de repente"),
    ("faltar", "cadeira prato copo", "na sala;ainda;na mesa;naquele dia"),
    ("faltar", "página palavra", "no livro;na carta"),
    ("sobrar", "prato cadeira garrafa", "na festa;ontem;no fim"),
    ("existir", "igreja escola museu hospital", "naquela rua;na cidade;antigamente"),
    ("morrer", "soldado cavalo", "na guerra;na batalha;naquele dia"),
    ("acontecer", "problema crime mudança", "ontem;naquele ano;na cidade"),
    ("nascer", "menina menino", "naquele ano;na fazenda;nesta casa"),
    ("nascer", "flor árvore", "no jardim;no muro;à beira do rio"),
    ("passar", "soldado carro cavalo", "na rua;ontem;por aqui"),
    ("passar", "navio barco", "ao longe;de manhã"),
    ("surgir", "problema pergunta", "ontem;na reunião;de repente"),
)
_MANY = {"M": ("dois", "muitos", "três"), "F": ("duas", "muitas", "três")}
_OF_NEW_THINGS = ("faltar", "sobrar", "existir", "acontecer", "surgir", "aparecer", "nascer")
"""With an indefinite subject."""


def postposed_subject(draw: Draw) -> Iterator[Contrast]:
    """Agreement with a subject after its verb."""
    while True:
        verb, nouns, places = draw.one(_ARRIVALS)
        name = draw.random.choice(nouns.split())
        what, place = named(name), draw.random.choice(places.split(";"))
        if not what.has_plural:
            continue
        tense = "impf" if verb == "existir" else "pret"
        if verb in _OF_NEW_THINGS:
            one, many = agree("um", what.gender), draw.one(_MANY[what.gender])
        else:
            determiner = draw.one(("o", "o", "aquele"))
            one, many = agree(determiner, what.gender), agree(determiner, what.gender, "PL")
        frames = (f"{place} _ {one} {what.singular}", f"{place} _ {many} {what.plural}")
        forms = conjugate(verb, tense, "3s"), conjugate(verb, tense, "3p")
        yield Contrast(frames, forms, (verb, name, f"{verb} {place}"))


_ADVERTISED = (
    # verb | singular | plural | ends
    ("vender", "uma casa", "casas", "na praia;no centro;perto do rio"),
    ("vender", "um cavalo", "cavalos", "de boa raça;por bom preço"),
    ("vender", "um piano antigo", "pianos antigos", "nesta loja;por bom preço"),
    ("alugar", "um quarto", "quartos", "no centro;para o verão;nesta rua"),
    ("alugar", "uma sala", "salas", "nesta rua;para festas"),
    ("alugar", "um carro", "carros", "por dia;nesta rua"),
    ("comprar", "um relógio", "relógios", "de ouro;de segunda mão"),
    ("comprar", "um livro", "livros", "de história;de segunda mão"),
    ("procurar", "uma empregada", "empregadas", "para o hotel;com experiência"),
    ("procurar", "um professor", "professores", "de música;para as crianças"),
    ("fazer", "um vestido", "vestidos", "em dois dias;de noiva"),
    ("fazer", "um retrato", "retratos", "em cinco minutos;na praça"),
    ("aceitar", "um hóspede", "hóspedes", "no verão;por mês"),
    ("aceitar", "um aluno novo", "alunos novos", "até amanhã;nesta escola"),
    ("escrever", "uma carta", "cartas", "por encomenda;em francês"),
    ("construir", "uma casa", "casas", "em três meses;de madeira"),
    ("contar", "uma história triste", "histórias tristes", "sobre ele;sobre a guerra"),
    ("ouvir", "um barulho", "barulhos", "no jardim;durante a noite"),
    ("ver", "um navio", "navios", "ao longe;no porto"),
    ("ler", "um poema", "poemas", "em voz alta;nesta escola"),
    ("servir", "um jantar", "jantares", "em casa;até tarde"),
    ("abrir", "uma garrafa", "garrafas", "com cuidado;para os amigos"),
    ("pintar", "um quadro", "quadros", "por encomenda;com óleo"),
    ("dar", "uma aula", "aulas", "de música;de francês"),
    ("trocar", "um livro", "livros", "na praça;na escola"),
)


def passive_se(draw: Draw) -> Iterator[Contrast]:
    """The verb of the passive with se agrees: vendem-se casas."""
    while True:
        verb, singular, plural, ends = draw.one(_ADVERTISED)
        end = draw.random.choice(ends.split(";"))
        frames = (f"_-se {singular} {end}", f"_-se {plural} {end}")
        forms = conjugate(verb, "pres", "3s"), conjugate(verb, "pres", "3p")
        yield Contrast(frames, forms, (f"{verb} {singular}", f"{verb} {end}"))


PHENOMENA = (
    Phenomenon(
        "haver_impessoal",
        "Haver e fazer impessoais",
        Register.STANDARD,
        "Haver de existência e fazer de tempo ficam no singular (havia pessoas, faz dez anos); como "
        "auxiliar ou "
        "verbo pleno, concordam.",
        "Cunha e Cintra, Nova gramática, cap. 13 (verbos impessoais); Bechara, Moderna gramática.",
        impersonal,
        "Haviam pessoas e fazem dez anos são comuns no uso brasileiro, também escrito.",
        repeats=3,
    ),
    Phenomenon(
        "infinitivo_flexionado",
        "Infinitivo flexionado",
        Register.STANDARD,
        "O infinitivo com sujeito próprio se flexiona (para eles lerem); depois de auxiliar, não.",
        "Cunha e Cintra, Nova gramática, cap. 13 (infinitivo pessoal); Bechara, Moderna gramática.",
        inflected_infinitive,
        "Para eles ler é comum na fala brasileira; eles vão lerem é errado para todos.",
        repeats=4,
    ),
    Phenomenon(
        "sujeito_posposto",
        "Verbo antes do sujeito",
        Register.STANDARD,
        "O verbo concorda também com o sujeito que o segue.",
        "Cunha e Cintra, Nova gramática, cap. 13 (concordância verbal); Perini sobre o uso brasileiro.",
        postposed_subject,
        "Chegou as cartas é frequente na fala culta brasileira com verbos deste tipo.",
        repeats=6,
    ),
    Phenomenon(
        "passiva_sintetica",
        "Concordância da passiva com se",
        Register.STANDARD,
        "O verbo concorda com o sujeito paciente: vendem-se casas.",
        "Cunha e Cintra, Nova gramática, cap. 13 (voz passiva); Bechara discute o uso.",
        passive_se,
        "Vende-se casas é geral no uso brasileiro; muitos linguistas o analisam como sujeito indeterminado.",
        repeats=3,
    ),
)
