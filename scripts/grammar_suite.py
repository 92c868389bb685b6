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
from ptbr_slm.eval.grammar.generate import write
from ptbr_slm.eval.grammar.lexicon import activities, intransitive
from ptbr_slm.eval.grammar.suite import load

DATA = Path(package.__file__).parent / "data"
FLOOR = 5
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
    found: set[str] = set()
    for phenomenon in load().phenomena:
        for pair in phenomenon.pairs:
            for text in (pair.good, pair.bad):
                found.update(word.lower() for word in WORD.findall(text))
    return found


def entries(morphobr: Path, folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(form, lemma+TAGS) of the dictionaries of some folders."""
    for folder in folders:
        for path in sorted((morphobr / folder).glob("*.dict")):
            with path.open(encoding="utf-8") as file:
                for line in file:
                    form, _, tags = line.rstrip("\n").partition("\t")
                    yield form, tags


def write_data(morphobr: Path) -> None:
    """Write the pairs, then MorphoBr's tags of their words."""
    write(DATA / "pairs")
    load.cache_clear()
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
    """hunspell's pt_BR dictionary on every word of both members."""
    words = sorted(words_of_pairs())
    run = subprocess.run(
        ["hunspell", "-d", "pt_BR", "-l", "-i", "utf-8"],
        input="\n".join(words),
        capture_output=True,
        text=True,
        check=True,
    )
    unknown = run.stdout.split()
    print(f"hunspell: {len(words)} words, {len(unknown)} unknown: {' '.join(unknown)}")
    return len(unknown)


def check_verbs(morphobr: Path) -> int:
    """Conjugated forms against MorphoBr's, for the verbs that the copy has."""
    listed: dict[str, set[str]] = {}
    for form, tags in entries(morphobr, ("verbs",)):
        lemma, _, rest = tags.partition("+V+")
        listed.setdefault(f"{lemma}+{rest}", set()).add(form)
    lemmas = {key.split("+")[0] for key in listed}
    used = sorted({*verbs.IRREGULAR, *(activity.verb for activity in (*activities(), *intransitive()))})
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
    rare = sorted(word for word in words_of_pairs() if counts[word] < FLOOR)
    listed = " ".join(f"{word}:{counts[word]}" for word in rare)
    print(f"frequency: {sum(counts.values())} words, below {FLOOR}: {listed}")
    return 0


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
