"""Precision and recall of personal-data masking, by kind, on generated sentences and on real text.

    python benchmarks/personal_data.py [--count 1000] [--details] [--show] [TEXT...]

generated, found: valid numbers of validate-docbr, telephones of every area code, postal codes, e-mails, cards
and so on, in sentences with their word and, where the shape or the check digits suffice, without. wrong: of
the sentences with numbers that look the same and are none (wrong check digits, lawsuits, laws, amounts,
dates, ISBN, versions, codes), those masked as this kind. --details: each kind of sentence by itself.
TEXT: files whose documents an empty line parts; what is masked in them is counted, and the time taken.
--show: each mask in its line, to be read by eye.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from validate_docbr import CNH, CNPJ, CPF, PIS, DocumentBase, TituloEleitoral

from ptbr_slm.data.stages.personal_data import AREA_CODES, TOKENS, mask_personal_data

Make = Callable[[random.Random], str]
LEADS = [
    "",
    "Segundo o relatório, ",
    "Em 12/03/2024, às 14h30, ",
    "Conforme a Lei nº 9.784/1999, ",
    "Na página 112, ",
]
TAILS = [
    ".",
    ", conforme combinado.",
    " (confirmado em 2023).",
    "; o valor é de R$ 1.250,00.",
    " e nada mais.",
]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="sentences of each row")
    parser.add_argument("--details", action="store_true", help="a row for each kind of sentence")
    parser.add_argument("--show", action="store_true", help="each mask of the texts, with its context")
    arguments = parser.parse_args()
    rng = random.Random(0)
    random.seed(0)  # validate_docbr draws from the global generator
    found = {name: recalled(row, arguments.count, rng) for name, row in PERSONAL.items()}
    wrong = {name: mistaken(row, arguments.count, rng) for name, row in OTHER.items()}
    real: Counter[str] = Counter()
    for path in arguments.texts:
        real += masked_in(path, show=arguments.show)
    if arguments.details:
        print("| masked | sentences | recall |\n|---|---|---|")
        for name, count in found.items():
            print(f"| {name} | {arguments.count} | {count / arguments.count:.1%} |")
        print("\n| stays | sentences | masked by mistake |\n|---|---|---|")
        for name, masks in wrong.items():
            print(
                f"| {name} | {arguments.count} | {masks.total() / arguments.count:.1%} {dict(masks) or ''} |"
            )
        print()
    print("| kind | generated | found | recall | wrong | masked in the texts |\n|---|---|---|---|---|---|")
    for kind, token in TOKENS.items():
        rows = [count for name, count in found.items() if PERSONAL[name][0] == kind]
        generated = arguments.count * len(rows)
        errors = sum(masks[kind] for masks in wrong.values())
        recall = f"{sum(rows) / generated:.1%}"
        print(f"| `{token}` | {generated} | {sum(rows)} | {recall} | {errors} | {real[kind]} |")
    print(f"\nwrong: of {arguments.count * len(OTHER)} sentences with numbers that are no personal data")


def recalled(row: tuple[str, str, Make], count: int, rng: random.Random) -> int:
    """Sentences of a row of PERSONAL, of `count`, in which exactly the number is masked."""
    kind, sentence, make = row
    found = 0
    for number in (make(rng) for _ in range(count)):
        text = rng.choice(LEADS) + sentence.format(number) + rng.choice(TAILS)
        found += mask_personal_data(text).text == text.replace(number, TOKENS[kind])
    return found


def mistaken(row: tuple[str, Make], count: int, rng: random.Random) -> Counter[str]:
    """Kind -> sentences of a row of OTHER, of `count`, in which something is masked as it."""
    sentence, make = row
    masks: Counter[str] = Counter()
    for _ in range(count):
        text = rng.choice(LEADS) + sentence.format(make(rng)) + rng.choice(TAILS)
        masks.update(mask_personal_data(text).counts.keys())
    return masks


def masked_in(path: Path, *, show: bool) -> Counter[str]:
    """Kind -> masks in the documents of a file; prints the speed."""
    documents = path.read_text(encoding="utf-8").split("\n\n")
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    masked = [mask_personal_data(document) for document in documents]
    seconds = time.perf_counter() - start
    for document, answer in zip(documents, masked, strict=True):
        counts.update(answer.counts)
        if show and answer.counts:
            print(*contexts(document, answer.text), sep="\n")
    size = sum(map(len, documents)) / 1e6
    rates = f"{len(documents) / seconds:.0f} documents/s, {size / seconds:.1f} M characters/s"
    print(f"{path.name}: {len(documents)} documents, {size:.1f} M characters, {rates}, {dict(counts)}")
    return counts


def contexts(text: str, masked: str) -> Iterator[str]:
    """Each number that was masked, between 60 characters before and 25 after it."""
    pieces = ANY_TOKEN.split(masked)
    end = 0
    for token, before, after in zip(ANY_TOKEN.findall(masked), pieces, pieces[1:], strict=False):
        start = text.index(before, end) + len(before)
        end = text.index(after[:40], start) if after else len(text)
        line = f"{text[max(0, start - 60) : start]} >>{text[start:end]}<< {text[end : end + 25]}"
        yield f"{token} {' '.join(line.split())}"


ANY_TOKEN = re.compile("|".join(map(re.escape, TOKENS.values())))


def digits(rng: random.Random, count: int) -> str:
    """That many random digits."""
    return "".join(str(rng.randrange(10)) for _ in range(count))


def document(kind: DocumentBase, *, mask: bool) -> Make:
    """Valid numbers of a kind."""
    return lambda rng: kind.generate(mask=mask)


def letters_cnpj(rng: random.Random) -> str:
    """A CNPJ with letters, formatted."""
    return CNPJ().generate(mask=True, digits_only=False)


def wrong(kind: DocumentBase, *, mask: bool) -> Make:
    """A number whose last check digit is wrong."""

    def make(rng: random.Random) -> str:
        number = kind.generate(mask=mask)
        return number[:-1] + str((int(number[-1]) + rng.randrange(1, 10)) % 10)

    return make


def mobile(form: str) -> Make:
    """A mobile number in a form with the fields area, first and last."""
    return lambda rng: phone(rng, form, "9" + digits(rng, 4))


def fixed(form: str) -> Make:
    """A fixed number in a form with the fields area, first and last."""
    return lambda rng: phone(rng, form, str(rng.randrange(2, 6)) + digits(rng, 3))


def phone(rng: random.Random, form: str, first: str) -> str:
    """The form, filled in."""
    return form.format(area=rng.choice(sorted(AREA_CODES)), first=first, last=digits(rng, 4))


def card(separator: str) -> Make:
    """Sixteen digits that pass Luhn's check."""

    def make(rng: random.Random) -> str:
        body = rng.choice(["4", "51", "55", "6362", "5067"])
        body += digits(rng, 15 - len(body))
        total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(body))
        number = body + str(-total % 10)
        return separator.join(number[i : i + 4] for i in range(0, 16, 4))

    return make


def wrong_card(rng: random.Random) -> str:
    """A card whose last digit is wrong."""
    number = card(" ")(rng)
    return number[:-1] + str((int(number[-1]) + 1) % 10)


def lawsuit(rng: random.Random) -> str:
    """A number of CNJ's form."""
    year, segment = rng.randrange(1998, 2026), rng.randrange(1, 10)
    return f"{digits(rng, 7)}-{digits(rng, 2)}.{year}.{segment}.{digits(rng, 2)}.{digits(rng, 4)}"


def public_ipv4(rng: random.Random) -> str:
    """An address of a Brazilian block."""
    return f"177.{rng.randrange(32, 256)}.{rng.randrange(256)}.{rng.randrange(256)}"


def pattern(form: str) -> Make:
    """Random digits for each # of a form."""
    return lambda rng: "".join(digits(rng, 1) if char == "#" else char for char in form)


PERSONAL: Mapping[str, tuple[str, str, Make]] = {
    "CPF, formatted, no word": ("cpf", "a inscrição {} está ativa", document(CPF(), mask=True)),
    "CPF, bare, with its word": ("cpf", "o CPF é {}", document(CPF(), mask=False)),
    "CPF, bare, no word": ("cpf", "a inscrição {} está ativa", document(CPF(), mask=False)),
    "CNPJ, formatted": ("cnpj", "a empresa {} venceu", document(CNPJ(), mask=True)),
    "CNPJ, bare": ("cnpj", "a empresa de CNPJ {} venceu", document(CNPJ(), mask=False)),
    "CNPJ with letters": ("cnpj", "a empresa {} venceu", letters_cnpj),
    "PIS, formatted, no word": ("pis", "inscrito sob {}", document(PIS(), mask=True)),
    "PIS, bare, with its word": ("pis", "PIS/PASEP nº {}", document(PIS(), mask=False)),
    "CNH, with its word": ("cnh", "CNH nº {}", document(CNH(), mask=False)),
    "título de eleitor, with its word": (
        "voter",
        "título de eleitor {}",
        document(TituloEleitoral(), mask=True),
    ),
    "RG, with its word": ("rg", "RG nº {} SSP", pattern("##.###.###-#")),
    "RG, bare, with its word": ("rg", "carteira de identidade nº {}", pattern("########")),
    "mobile (dd) 9dddd-dddd, no word": ("phone", "me chame no {}", mobile("({area}) {first}-{last}")),
    "mobile dd 9dddd-dddd, no word": ("phone", "me chame no {}", mobile("{area} {first}-{last}")),
    "mobile +55, no word": ("phone", "me chame no {}", mobile("+55 {area} {first}-{last}")),
    "mobile, bare, with its word": ("phone", "WhatsApp {}", mobile("{area}{first}{last}")),
    "fixed (dd) dddd-dddd, no word": ("phone", "me chame no {}", fixed("({area}) {first}-{last}")),
    "fixed dddd-dddd, with its word": ("phone", "telefone {}", fixed("{first}-{last}")),
    "CEP with its word": ("cep", "CEP {}", pattern("#####-###")),
    "CEP after an address": ("cep", "fica na Rua das Acácias, 15, Centro, {}", pattern("#####-###")),
    "e-mail": ("email", "escreva para {}", pattern("maria.silva##@exemplo###.com.br")),
    "card, in fours, no word": ("card", "paguei com {}", card(" ")),
    "card, bare, no word": ("card", "paguei com {}", card("")),
    "Pix, random key": ("pix", "a chave Pix é {}", pattern("a####b##-c###-4d##-9e##-f#####a###0#")),
    "public IPv4": ("ip", "o acesso veio de {}", public_ipv4),
}
OTHER: Mapping[str, tuple[str, Make]] = {
    "CPF, formatted, wrong digit": ("o CPF é {}", wrong(CPF(), mask=True)),
    "CPF, bare, wrong digit": ("o CPF é {}", wrong(CPF(), mask=False)),
    "CNPJ, wrong digit": ("a empresa de CNPJ {} venceu", wrong(CNPJ(), mask=True)),
    "PIS, wrong digit": ("PIS nº {}", wrong(PIS(), mask=True)),
    "card, wrong digit": ("o cartão {}", wrong_card),
    "lawsuit": ("processo nº {}", lawsuit),
    "lawsuit, no word": ("nos termos de {}", lawsuit),
    "law": ("a Lei nº {}", pattern("##.###/19##")),
    "amount": ("o valor de R$ {}", pattern("#.###.###,##")),
    "amount of billions": ("o valor de R$ {}", pattern("#.###.###.###,##")),
    "date": ("no dia {}", pattern("1#/0#/19##")),
    "years": ("no período {}", pattern("19##-20##")),
    "ISBN-13": ("ISBN {}", pattern("978##########")),
    "ISBN-13, hyphens": ("ISBN {}", pattern("978-85-###-####-#")),
    "bank slip": ("pague {}", pattern("#####.##### #####.###### #####.###### # ##############")),
    "service number": ("ligue para {}", pattern("0800 ### ####")),
    "version": ("na versão {}", pattern("1#.0.####.#")),
    "product code": ("o modelo {}", pattern("#####-###")),
    "population": ("tem {} habitantes", pattern("##.###.###")),
    "bare 11 digits, no word": ("o registro interno {}", pattern("###########")),
    "bare 14 digits, no word": ("o registro interno {}", pattern("##############")),
    "bare 10 digits, no word": ("o registro interno {}", pattern("##########")),
    "IPv4, private": ("o endereço {}", pattern("192.168.1.##")),
}

if __name__ == "__main__":
    main()
