"""Relative pronouns: cujo agrees with the noun after it, o qual with its antecedent."""

from __future__ import annotations

from collections.abc import Iterator

from ptbr_slm.eval.grammar.lexicon import Draw
from ptbr_slm.eval.grammar.pair import Contrast, Phenomenon, Register

_OWNED = (
    # sentence up to the pronoun | masculine owned | feminine owned | relative clause after the noun
    ("conheci um homem", "filho", "filha", "mora na capital"),
    ("esta é a moça", "irmão", "irmã", "trabalha no hospital"),
    ("ele falou do poeta", "livro", "história", "todos conhecem"),
    ("vi a senhora", "gato", "bolsa", "desapareceu ontem"),
    ("moro numa cidade", "jardim", "igreja", "é muito bonito;é muito bonita"),
    ("este é o professor", "aluno", "aluna", "ganhou a medalha"),
    ("procuro a mulher", "marido", "filha", "viajou ontem"),
    ("era uma casa", "telhado", "parede", "caiu com a chuva"),
    ("encontrei o soldado", "cavalo", "espada", "ficou na praça"),
    ("conhecemos a cantora", "vestido", "voz", "ficou famoso;ficou famosa"),
    ("ela visitou o pintor", "quadro", "casa", "foi vendido;foi vendida"),
    ("ele vendeu o livro", "autor", "autora", "morreu na guerra"),
    ("chegou o rapaz", "primo", "prima", "estuda conosco"),
    ("li o romance", "autor", "autora", "viveu nesta rua"),
    ("ajudei a menina", "cão", "mala", "ficou na estação"),
    ("falei com o vizinho", "carro", "janela", "está quebrado;está quebrada"),
    ("este é o hotel", "dono", "dona", "veio da capital"),
    ("lembro-me da escola", "diretor", "diretora", "gostava de música"),
    ("visitei a igreja", "relógio", "torre", "parou há dois anos;caiu há dois anos"),
    ("conheço o médico", "tio", "tia", "trabalha no porto"),
    ("ela se casou com um rapaz", "avô", "avó", "nasceu em Lisboa"),
    ("chegamos a uma vila", "porto", "praia", "ficava perto"),
    ("ele procura um amigo", "bilhete", "carta", "chegou ontem"),
    ("comprei um vestido", "preço", "cor", "mudou muito"),
    ("vivia ali um rei", "palácio", "espada", "era de ouro"),
    ("este é o pintor", "retrato", "fotografia", "está no museu"),
    ("conheci a atriz", "noivo", "amiga", "viajou para longe"),
)
_WHICH = (
    # masculine antecedent | feminine antecedent | preposition stem | clause
    ("o quarto", "a sala", "n", "dormimos ontem", "é muito frio;é muito fria"),
    ("o livro", "a carta", "d", "falei ontem", "desapareceu"),
    ("o país", "a cidade", "n", "nasci", "fica longe daqui"),
    ("o caminho", "a rua", "pel", "passamos", "estava molhado;estava molhada"),
    ("o problema", "a proposta", "d", "falamos", "ainda existe"),
    ("o hospital", "a escola", "n", "trabalho", "fica perto da praça"),
    ("o muro", "a janela", "d", "você reclamou", "foi pintado;foi pintada"),
    ("o jardim", "a praça", "n", "nos encontramos", "mudou muito"),
    ("o perigo", "a guerra", "d", "fugimos", "ainda não passou"),
    ("o teatro", "a igreja", "n", "entramos", "estava cheio;estava cheia"),
    ("o porto", "a praia", "d", "saímos", "fica ao norte"),
    ("o campo", "a ponte", "pel", "passaram os soldados", "ainda existe"),
    ("o banco", "a cadeira", "n", "ela sentou", "quebrou"),
    ("o armário", "a gaveta", "n", "guardei a chave", "está aberto;está aberta"),
    ("o bairro", "a rua", "n", "moro", "é muito antigo;é muito antiga"),
    ("o motivo", "a razão", "pel", "ela chorou", "era outro;era outra"),
    ("o século", "a época", "n", "ele viveu", "foi difícil"),
    ("o jornal", "a revista", "n", "ele escreve", "chega amanhã"),
    ("o hotel", "a casa", "n", "ficamos", "era muito frio;era muito fria"),
    ("o poema", "a peça", "d", "ela gosta", "fala da guerra"),
    ("o amigo", "a amiga", "d", "recebi a carta", "mora no Rio"),
    ("o palácio", "a igreja", "pel", "passamos ontem", "é muito antigo;é muito antiga"),
    ("o colégio", "a fazenda", "n", "ele cresceu", "já não existe"),
    ("o negócio", "a viagem", "d", "ele desistiu", "custava muito"),
    ("o barco", "a ilha", "n", "passamos o verão", "é pequeno;é pequena"),
)


def relative_gender(draw: Draw) -> Iterator[Contrast]:
    """cujo agrees with what is owned; o qual with its antecedent."""
    while True:
        if draw.chance():
            start, masculine, feminine, rest = draw.one(_OWNED)
            ends = rest.split(";")
            frames = (f"{start} _ {masculine} {ends[0]}", f"{start} _ {feminine} {ends[-1]}")
            yield Contrast(frames, ("cujo", "cuja"), (start, masculine, feminine))
            continue
        masculine, feminine, preposition, clause, rest = draw.one(_WHICH)
        ends = rest.split(";")
        introduced = {"n": ("no", "na"), "d": ("do", "da"), "pel": ("pelo", "pela")}[preposition]
        frames = (f"{masculine} _ qual {clause} {ends[0]}", f"{feminine} _ qual {clause} {ends[-1]}")
        yield Contrast(frames, introduced, (masculine, feminine, clause))


PHENOMENA = (
    Phenomenon(
        "relativo_genero",
        "Gênero do pronome relativo",
        Register.FORMAL,
        "Cujo concorda com o substantivo que o segue; o qual, com o antecedente.",
        "Cunha e Cintra, Nova gramática, cap. 11 (pronomes relativos); Bechara, Moderna gramática.",
        relative_gender,
        repeats=2,
    ),
)
