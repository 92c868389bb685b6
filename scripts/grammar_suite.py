"""Writes the data of the grammar suite anew, and checks it with sources that are not part of the package.

    python scripts/grammar_suite.py write --morphobr FOLDER
    python scripts/grammar_suite.py check --morphobr FOLDER --texts FOLDER [FOLDER ...]

FOLDER of MorphoBr: a checkout of https://github.com/LR-POR/MorphoBr. `write` draws the pairs and takes from
it the tags of their words. `check` runs the second rule on every pair, asks hunspell (pt_BR) about every
word, compares the conjugated verbs with MorphoBr, and counts the words in the texts for the frequency floor.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ptbr_slm.eval.grammar as package
from ptbr_slm.eval.grammar import verbs
from ptbr_slm.eval.grammar.check import faults
from ptbr_slm.eval.grammar.generate import write, write_tasks
from ptbr_slm.eval.grammar.lexicon import activities, intransitive
from ptbr_slm.eval.grammar.suite import Pair, load

DATA = Path(package.__file__).parent / "data"
DOCUMENT = Path(__file__).parent.parent / "docs" / "GRAMATICA.md"
FLOOR = 3
VERB_FLOOR = 20
"""A rare form of a verb will do where the verb's forms together occur this often."""
MORE_VERBS = (
    *(
        "arrepender",
        "queixar",
        "atrever",
        "esforçar",
        "ajoelhar",
        "comportar",
        "apaixonar",
        "refugiar",
        "recusar",
    ),
    *("ausentar", "zangar", "aproveitar", "apoderar", "debruçar", "empenhar", "candidatar", "conviver"),
    *("tropeçar", "resistir", "crescer", "desaparecer", "adormecer", "sobrar", "alugar", "precisar"),
)
WORD = re.compile(r"[^\W\d_]+")
HEADER = """\
# Nominal readings of the words of the pairs, from MorphoBr (LR-POR/MorphoBr @793ac72, Apache-2.0): L. F. de
# Alencar, B. Cuconato, A. Rademaker, "MorphoBr: an open source large-coverage full-form lexicon for
# morphological analysis of Portuguese", Texto Livre 11(3), 2018. Participles of verbs that the copy lacks are
# marked +RULE.
"""
DERIVED = {"DIM", "AUG", "SUPER"}
TAGS = {
    "pres": "PRS",
    "impf": "IMPF",
    "pret": "PRF",
    "fut": "FUT",
    "cond": "COND",
    "subj": "SBJR",
    "subjf": "SBJF",
}


def words_of_pairs() -> set[str]:
    """Lower-cased words of both members of all pairs."""
    return {
        word.lower() for pair in all_pairs() for text in (pair.good, pair.bad) for word in WORD.findall(text)
    }


def all_pairs() -> list[Pair]:
    """The pairs of all phenomena."""
    return [pair for phenomenon in load().phenomena for pair in phenomenon.pairs]


def entries(morphobr: Path, folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(form, lemma+TAGS) of the dictionaries of some folders."""
    for folder in folders:
        for path in sorted((morphobr / folder).glob("*.dict")):
            with path.open(encoding="utf-8") as file:
                for line in file:
                    form, _, tags = line.rstrip("\n").partition("\t")
                    yield form, tags


def write_table() -> None:
    """The phenomena with the first pair of each, into docs/GRAMATICA.md."""
    rows = ["| fenômeno | registro | certo | errado |", "| :-- | :-- | :-- | :-- |"]
    for one in load().phenomena:
        pair = one.pairs[0]
        rows.append(f"| {one.title} (`{one.name}`) | {one.register} | {pair.good} | {pair.bad} |")
    text = DOCUMENT.read_text(encoding="utf-8")
    start, rest = text.split("<!-- fenomenos:start -->")
    _, end = rest.split("<!-- fenomenos:end -->")
    table = "\n".join(rows)
    text = f"{start}<!-- fenomenos:start -->\n{table}\n<!-- fenomenos:end -->{end}"
    DOCUMENT.write_text(text, encoding="utf-8", newline="\n")


def write_data(morphobr: Path) -> None:
    """Write the pairs, the tasks, the table of the documentation, and MorphoBr's tags of the words."""
    write(DATA / "pairs")
    write_tasks(DATA.parent.parent / "tasks" / "definitions")
    load.cache_clear()
    write_table()
    wanted = words_of_pairs()
    found: set[tuple[str, str]] = set()
    for form, tags in entries(morphobr, ("nouns", "adjectives", "verbs")):
        parts = tags.split("+")
        nominal = parts[1:2] in (["N"], ["A"]) or "PTPST" in parts or "PTPASS" in parts
        if form in wanted and nominal and (not DERIVED & set(parts) or form.startswith("sozinh")):
            found.add((form, tags))
    known = {form for form, _ in found}
    for form in sorted(wanted - known):
        match = re.fullmatch(r"(\w+(?:ad|id|ert|it|eit|ist|st))([oa])(s?)", form)
        if match:
            gender, number = ("M" if match[2] == "o" else "F"), ("PL" if match[3] else "SG")
            found.add((form, f"{match[1]}o+V+PTPST+{gender}+{number}+RULE"))
    text = HEADER + "".join(f"{form}\t{tags}\n" for form, tags in sorted(found))
    (DATA / "morphobr.tsv").write_text(text, encoding="utf-8", newline="\n")


def check_rule() -> int:
    """The package's second rule."""
    found = [text for phenomenon in load().phenomena for text in faults(phenomenon)]
    print(f"second rule: {len(found)} faults", *found[:40], sep="\n  ")
    return len(found)


def check_spelling() -> int:
    """hunspell's pt_BR dictionary on every word of both members, names apart."""
    words = sorted(words_of_pairs())
    run = subprocess.run(
        ["hunspell", "-d", "pt_BR", "-l", "-i", "utf-8"],
        input="\n".join(words),
        capture_output=True,
        text=True,
        check=True,
    )
    names = {
        word.lower() for pair in all_pairs() for word in WORD.findall(pair.good)[1:] if word[0].isupper()
    }
    unknown = [word for word in run.stdout.split() if word not in names]
    print(f"hunspell: {len(words)} words, {len(unknown)} unknown: {' '.join(unknown)}")
    return len(unknown)


def check_verbs(morphobr: Path) -> int:
    """Conjugated forms against MorphoBr's, for the verbs that the copy has."""
    listed: dict[str, set[str]] = {}
    for form, tags in entries(morphobr, ("verbs",)):
        lemma, _, rest = tags.partition("+V+")
        listed.setdefault(f"{lemma}+{rest}", set()).add(form)
    lemmas = {key.split("+")[0] for key in listed}
    used = sorted(verbs_used())
    wrong, compared = [], 0
    for verb in used:
        if verb not in lemmas:
            continue
        for tense, tag in TAGS.items():
            for person in verbs.PERSONS:
                key = f"{verb}+{tag}+{person[0]}+{'SG' if person[1] == 's' else 'PL'}"
                forms = listed.get(key)
                if forms:
                    compared += 1
                    if verbs.conjugate(verb, tense, person) not in forms:
                        wrong.append(f"{key}: {verbs.conjugate(verb, tense, person)} {sorted(forms)}")
    print(f"verbs: {compared} forms compared, {len(wrong)} differ", *wrong[:20], sep="\n  ")
    return len(wrong)


def check_frequency(texts: list[Path]) -> int:
    """Words of the pairs that the texts have fewer than FLOOR times."""
    counts: Counter[str] = Counter()
    for folder in texts:
        for path in sorted(folder.rglob("*.txt")):
            counts.update(word.lower() for word in WORD.findall(path.read_text(encoding="utf-8")))
    forms = {form: verb for verb in verbs_used() for form in all_forms(verb)}
    lemmas = Counter({verb: sum(counts[form] for form in set(all_forms(verb))) for verb in verbs_used()})
    rare = {word for word in words_of_pairs() if counts[word] < FLOOR}
    listed = {word: lemmas.get(forms.get(word, ""), 0) for word in rare}
    found = sorted(word for word, times in listed.items() if times < VERB_FLOOR)
    print(
        f"frequency: {sum(counts.values())} words; {len(rare)} forms occur fewer than {FLOOR} times, of which"
    )
    print(f"  those not of a verb with {VERB_FLOOR}: {' '.join(f'{word}:{counts[word]}' for word in found)}")
    return 0


def verbs_used() -> set[str]:
    """Infinitives among the words of the pairs, and the verbs of the generator's tables."""
    tables = {activity.verb for activity in (*activities(), *intransitive())}
    infinitives = {word for word in words_of_pairs() if re.fullmatch(r"\w{2,}[aei]r", word)}
    return {*verbs.IRREGULAR, *tables, *infinitives, *MORE_VERBS}


def all_forms(verb: str) -> list[str]:
    """The forms that the generator conjugates."""
    finite = [verbs.conjugate(verb, tense, person) for tense in (*TAGS, "inf") for person in verbs.PERSONS]
    participles = [verbs.participle(verb, gender, number) for gender in "MF" for number in ("SG", "PL")]
    return [*finite, verbs.gerund(verb), *participles]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("write", "check"))
    parser.add_argument("--morphobr", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    if given.what == "write":
        write_data(given.morphobr)
        return
    wrong = check_rule() + check_spelling() + check_verbs(given.morphobr)
    if given.texts:
        check_frequency(given.texts)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
