"""What is masked as personal data, what stays, and that odd text takes no longer than ordinary text."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("validate_docbr")
from validate_docbr import CNH, CNPJ, CPF, PIS, TituloEleitoral

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.personal_data import TOKENS, MaskPersonalData, mask_personal_data


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("O CPF dela é 111.444.777-35.", "O CPF dela é [CPF]."),
        ("cpf 11144477735 e mais nada", "cpf [CPF] e mais nada"),
        ("o CPF 08003705622, que começa como um 0800", "o CPF [CPF], que começa como um 0800"),
        ("CPF:111444777-35", "CPF:[CPF]"),
        ("A empresa (CNPJ 11.222.333/0001-81) venceu.", "A empresa (CNPJ [CNPJ]) venceu."),
        ("CNPJ 12.ABC.345/01DE-35, com letras", "CNPJ [CNPJ], com letras"),
        ("CNPJ 12ABC34501DE35, sem pontos", "CNPJ [CNPJ], sem pontos"),
        ("Ligue (11) 98765-4321 ou (68)3302-0444.", "Ligue [TELEFONE] ou [TELEFONE]."),
        ("Tel. 68 3302-0444/ fax", "Tel. [TELEFONE]/ fax"),
        ("Tel. 68 3302-0444/0445, Centro", "Tel. [TELEFONE], Centro"),
        ("WhatsApp 11987654321", "WhatsApp [TELEFONE]"),
        ("Meu número é +55 11 98765-4321", "Meu número é [TELEFONE]"),
        ("Em Lisboa: +351 912 345 678", "Em Lisboa: [TELEFONE]"),
        ("Pela Lei nº 9.784/1999, anote 21 99876-5432", "Pela Lei nº 9.784/1999, anote [TELEFONE]"),
        ("Anote 21 99876-5432 aí", "Anote [TELEFONE] aí"),
        ("Telefones 3302-0444 e 98302-0445", "Telefones [TELEFONE] e [TELEFONE]"),
        ("Rua das Flores, 10, Centro, 01310-100", "Rua das Flores, 10, Centro, [CEP]"),
        ("CEP 69.915-631", "CEP [CEP]"),
        ("CEP: 01310100", "CEP: [CEP]"),
        ("Escreva a maria.silva+loja@exemplo.com.br.", "Escreva a [EMAIL]."),
        ("Cartão 4111 1111 1111 1111, validade 12/28", "Cartão [CARTÃO], validade 12/28"),
        ("pago com 4111111111111111", "pago com [CARTÃO]"),
        ("inscrita no PIS 120.56412.54-5", "inscrita no PIS [PIS]"),
        ("RG nº 34.264.374-5 SSP/SP", "RG nº [RG] SSP/SP"),
        ("identidade nº 12345678-X", "identidade nº [RG]"),
        ("chave Pix: 123e4567-e89b-42d3-a456-426614174000", "chave Pix: [CHAVE PIX]"),
        ("a chave pix é 11987654321", "a chave pix é [TELEFONE]"),
        ("O acesso veio de 177.54.144.10 ontem", "O acesso veio de [IP] ontem"),
        ("O acesso veio de 2804:14c:5b::1 ontem", "O acesso veio de [IP] ontem"),
    ],
)
def test_masks(text: str, masked: str) -> None:
    assert mask_personal_data(text).text == masked


@pytest.mark.parametrize(
    "text",
    [
        "CPF 111.444.777-36, com o dígito errado",
        "CPF 111.111.111-11",
        "De 128.0.0.0 até 191.255.255.255, e 239.1.2.3 para muitos",
        "termina no domingo, 4 de janeiro de 2004::",
        "o nome tony@tira_isto.net não é um endereço",
        "escreva para ana@example.com ou bia@mail.example.org",
        "CNPJ 11.222.333/0001-82",
        "Processo nº 0012843-03.2015.8.07.0001",
        "Embargos nº 0000109-80.2017.7.01.0201 e 2007/0173845-8",
        "Acórdão 1014463, Processo 20150020201038",
        "Lei nº 10.406, de 10/01/2002, e Lei 13.105/2015",
        "R$ 1.234.567,89 e R$ 12.345.678 em 2019-2020",
        "De 2010-2014 a 1995-1998, o telefone mudou",
        "ISBN 978-85-359-0277-8, ISBN 9788535902778, ISBN 85-359-0277-5",
        "Ligue 190 ou 0800 722 0101; a central é 4004-1234",
        "23793.38128 60007.827136 95000.063305 9 84410000026000",
        "a versão 10.0.19041.1 e a versão 2.0.40.50",
        "o item 9.1.2.3 do edital",
        "a rede 192.168.0.1, a máquina 127.0.0.1, a faixa 191.255.0.0/16",
        "o modelo 12345-678 da tabela",
        "Protocolo 11144477735",
        "o hash 123e4567-e89b-42d3-a456-426614174000",
        "População: 11.895.893 habitantes em 2014",
        "pi = 3,14159265358979 e 2.71828182845",
        "veja https://exemplo.com/itens/11144477735",
        "10:20:30, 2001:10",
        "@maria e @joão no código @property",
    ],
)
def test_stays(text: str) -> None:
    assert mask_personal_data(text) == (text, {})


def test_counts_by_kind_and_what_is_kept_on_purpose() -> None:
    text = "CNPJ 11.222.333/0001-81, CPF 111.444.777-35 e CPF 529.982.247-25"
    assert mask_personal_data(text).counts == {"cnpj": 1, "cpf": 2}
    assert mask_personal_data(text, keep=["cnpj"]).text == "CNPJ 11.222.333/0001-81, CPF [CPF] e CPF [CPF]"


def test_the_nearest_word_before_a_number_decides() -> None:
    """11144477735 is a CPF by its digits, and 11987654321 is a mobile number."""
    text = "telefone 11987654321, CPF 11144477735; CPF 11144477735, telefone 11987654321"
    masked = "telefone [TELEFONE], CPF [CPF]; CPF [CPF], telefone [TELEFONE]"
    assert mask_personal_data(text).text == masked
    on_another_line = "RG:\n34.264.374-5"
    assert mask_personal_data(on_another_line).text == on_another_line
    assert mask_personal_data("RG:\n34.264.374-5").text == "RG:\n34.264.374-5", (
        "a word on another line is not beside it"
    )


def test_the_stage_keeps_a_clean_document_and_counts_in_attributes() -> None:
    clean = Document("Nada aqui.", "a.txt")
    assert MaskPersonalData()(clean) is clean
    changed = MaskPersonalData()(Document("CPF 111.444.777-35", "a.txt"))
    assert changed.text == "CPF [CPF]"
    assert changed.attributes == {"repairs": "masked", "masked_cpf": 1}


GENERATORS = {
    "cpf": (CPF(), "Meu CPF é {}."),
    "cnpj": (CNPJ(), "A firma tem o CNPJ {}."),
    "pis": (PIS(), "PIS/PASEP nº {}."),
    "cnh": (CNH(), "CNH nº {}."),
    "voter": (TituloEleitoral(), "Título de eleitor: {}."),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("formatted", [True, False])
def test_every_valid_number_is_found_beside_its_word(kind: str, formatted: bool) -> None:
    document, sentence = GENERATORS[kind]
    random.seed(7)
    for _ in range(200):
        number = document.generate(mask=formatted)
        assert mask_personal_data(sentence.format(number)).text == sentence.format(TOKENS[kind]), number


def test_cnpj_with_letters_is_found_with_and_without_points() -> None:
    random.seed(7)
    for _ in range(200):
        number = CNPJ().generate(mask=True, digits_only=False)
        bare = number.translate(str.maketrans("", "", "./-"))
        assert mask_personal_data(f"CNPJ {number} e CNPJ {bare}").text == "CNPJ [CNPJ] e CNPJ [CNPJ]", number


# Properties

ODD = st.text(alphabet="0123456789.-/() +:@aZé\nxX,", max_size=200)


@given(ODD)
def test_what_is_not_masked_is_not_changed(text: str) -> None:
    masked = mask_personal_data(text)
    assert (masked.text == text) == (not masked.counts)
    assert sum(masked.text.count(token) for token in TOKENS.values()) == sum(masked.counts.values())


PATTERNS = [
    "1", "1.", "1-", "1 ", "11 ", "1(", "(11) ", "+1", "+55 11 ", "a@", "@", "a.", "a@a.", "1.1.1.1.",
    "2001:", ":", "111.111.", "0123456789", "pix ", "CPF ", "RG 1", "tel 1", "0800 ", "1111 1111 ",
    "/1111-11", "A1", "12.ABC.345/", "aA0+/", "1111-1111 ", "(", "11)", "CNPJ AAAAAAAAAAAA1", "f-",
    "ffffffff-ffff-4fff-",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_time_grows_with_the_length_and_not_with_its_square(pattern: str) -> None:
    """A quadratic search of 200,000 characters takes minutes."""
    text = "Pix CPF CNPJ @ / " + pattern * (200_000 // len(pattern))
    start = time.process_time()
    mask_personal_data(text)
    assert time.process_time() - start < 5
