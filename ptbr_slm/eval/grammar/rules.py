"""What the good member of a pair must satisfy and the bad one violate, recomputed from the strings.

Shares no code and no table with the generator. Gender and number of nouns, adjectives and participles come
from MorphoBr's tags (data/morphobr.tsv), those of verbs from their endings, those of determiners and pronouns
from the tables below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files

Features = frozenset[tuple[str, str]]
"""Possible (gender, number) readings of a word; "*" is a feature that the form leaves open."""


Rule = Callable[[tuple[str, ...], int, str], bool | None]
"""(words, index, form): whether the form fits there; None: the rule cannot tell, a fault too."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@cache
def _table(classes: str = "N") -> dict[str, Features]:
    """MorphoBr's readings of the words of the suite. classes: of "N" (nouns), "A", "V" (participles)."""
    text = (files("ptbr_slm.eval.grammar") / "data" / "morphobr.tsv").read_text(encoding="utf-8")
    found: dict[str, set[tuple[str, str]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            form, tags = line.split("\t")
            parts = tags.split("+")[1:]
            if parts[0] not in classes:
                continue
            gender = next((part for part in parts if part in ("M", "F")), "*")
            number = next((part for part in parts if part in ("SG", "PL")), "*")
            found.setdefault(form, set()).add((gender, number))
    return {form: frozenset(readings) for form, readings in found.items()}


def _determiner(word: str) -> Features | None:
    """Gender and number of a word of the closed classes, by its ending."""
    for prefix in ("d", "n", "pel", ""):
        rest = word.removeprefix(prefix)
        if rest in ("o", "a", "os", "as"):
            return frozenset({("F" if "a" in rest else "M", "PL" if rest.endswith("s") else "SG")})
    stems = (
        "est",
        "ess",
        "aquel",
        "me",
        "minh",
        "su",
        "se",
        "noss",
        "um",
        "un",
        "tod",
        "muit",
        "pouc",
        "vári",
        "amb",
        "algu",
        "algun",
        "quant",
        "nenhu",
        "dois",
        "duas",
    )
    bare = word
    for prefix in ("d", "n"):
        if word[1:].startswith(("est", "ess", "aquel")) and word.startswith(prefix):
            bare = word[1:]
    if not bare.startswith(stems):
        return None
    if bare in ("dois", "duas"):
        return frozenset({("M" if bare == "dois" else "F", "PL")})
    gender = "F" if bare.rstrip("s").endswith("a") else "M"
    return frozenset({(gender, "PL" if bare.endswith("s") else "SG")})


def _match(one: Features | None, other: Features | None) -> bool | None:
    if not one or not other:
        return None
    return any(
        all("*" in (a, b) or a == b for a, b in zip(first, second, strict=True))
        for first in one
        for second in other
    )


def _before_noun(words: tuple[str, ...], at: int, form: str) -> bool | None:
    following = words[at + 1 : at + 3]
    noun = following[1] if following[0] in ("os", "as") else following[0]
    return _match(_determiner(form), _table().get(noun))


def _after_noun(words: tuple[str, ...], at: int, form: str) -> bool | None:
    head = _match(_determiner(words[at - 2]), _table("AV").get(form))
    return head and _match(_table().get(words[at - 1]), _table("AV").get(form))


def _with_subject(words: tuple[str, ...], at: int, form: str) -> bool | None:
    """The subject is a determiner and a noun at the beginning."""
    determiner, noun = _determiner(words[0]), _table().get(words[1])
    both = frozenset(reading for reading in noun or () if _match(frozenset({reading}), determiner))
    return _match(both, _table("AV").get(form))


def _participle(words: tuple[str, ...], at: int, form: str) -> bool | None:
    if words[at - 1].startswith("tinha"):
        return form.endswith("o")
    return _with_subject(words, at, form)


def plural_verb(form: str) -> bool:
    """Whether a verb form of the third person is plural, by its ending: -m, -ão (vão, são)."""
    return form.endswith(("m", "ão")) and form not in ("vem", "tem", "bem", "convém")


def _verb_number(words: tuple[str, ...], at: int, form: str) -> bool | None:
    determiner = _determiner(words[0])
    if determiner is None:
        return None
    (_, number), *_ = determiner
    agrees = _match(determiner, _table().get(words[1]))
    return agrees and plural_verb(form) == (number == "PL")


def _coordinated(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return plural_verb(form) == ("e" in words[:at])


_FIRST_SINGULAR = (
    "fiz",
    "disse",
    "trouxe",
    "vi",
    "fui",
    "sei",
    "vou",
    "estou",
    "pude",
    "tive",
    "vim",
    "pus",
    "quis",
)
_SAME = ("disse", "trouxe", "quis")


def _person(words: tuple[str, ...], at: int, form: str) -> bool | None:
    """eu: -o, -i or a strong preterite; nós: -mos; você, ela: neither; plural pronouns: -m or -ão."""
    subject = words[0]
    if subject == "nós":
        return form.endswith("mos")
    if subject in ("eles", "elas", "vocês"):
        return plural_verb(form) and not form.endswith("mos")
    if form.endswith("mos") or plural_verb(form):
        return False
    imperfect = form.endswith(("ava", "ia")) or form in _SAME
    first = (
        imperfect
        or (form.endswith(("o", "i", "í")) and form not in ("foi", "vai"))
        or form in _FIRST_SINGULAR
    )
    third = imperfect or not first or (form.endswith("ou") and form not in ("vou", "estou"))
    if form.endswith("ou") and form not in ("vou", "estou"):
        first = False
    return first if subject == "eu" else third if subject in ("ela", "ele", "você") else None


def cannot_tell(words: tuple[str, ...], at: int, form: str) -> bool | None:
    """For a phenomenon without a rule."""
    return None


_SUBJUNCTIVE = frozenset(
    _listed(
        "venha saia saiba diga faça tenha traga queira possa esteja vá veja leia durma perca ouça peça volte "
        "compre venda chegue fique abra escreva aceite conheça fale viva more siga espere consiga deixe"
    )
)
_ASKING = ("talvez", "preciso", "possível", "espero", "duvido", "quero", "bom", "prefiro", "peço", "convém")


def _mood(words: tuple[str, ...], at: int, form: str) -> bool | None:
    stem = form.removesuffix("mos") if form.endswith("mos") else form
    subjunctive = {stem, stem.removesuffix("m"), stem.replace("ê", "e")} & _SUBJUNCTIVE or form in (
        "vão",
        "vamos",
    )
    wanted = any(word in _ASKING for word in words[:3])
    return bool(subjunctive) == wanted


_FUTURES = frozenset(_listed("fizer disser trouxer tiver souber puder quiser estiver for vier puser der"))


def _future(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return (form in _FUTURES) == (words[0] in ("quando", "se", "assim", "logo"))


def _tense(words: tuple[str, ...], at: int, form: str) -> bool | None:
    text = " ".join(words)
    coming = any(word in text for word in ("amanhã", "que vem", "daqui a"))
    return form.endswith(("rei", "rá", "remos", "rão")) == coming


def _non_finite(words: tuple[str, ...], at: int, form: str) -> bool | None:
    kind = "gerund" if form.endswith("ndo") else "infinitive" if form.endswith("r") else "participle"
    before = words[at - 1]
    if before in ("está", "estava", "continua", "ficou", "anda"):
        return kind == "gerund"
    return kind == ("participle" if before in ("tinha", "havia") else "infinitive")


def _reflexive(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return form == {"eu": "me", "nós": "nos"}.get(words[0], "se")


def _case(words: tuple[str, ...], at: int, form: str) -> bool | None:
    if words[at - 1] in ("para", "de", "em", "sem"):
        return form in ("mim", "nós")
    following = [word for word in words[at + 1 :] if word != "não"]
    first = following[0].endswith(("i", "í")) and following[0] != "foi"
    first = first or following[0] in ("fui", "disse", "digo", "moro", "dormia", "queria", "vivia")
    return form == "eu" if first else form in ("me", "nos")


def _enclitic(words: tuple[str, ...], at: int, form: str) -> bool | None:
    host = words[at - 1]
    if host.endswith("m"):
        return form.startswith("-n")
    infinitive = host.endswith(("á", "ê")) or words[at - 2] in (
        "quis",
        "decidi",
        "resolvemos",
        "foi",
        "conseguiu",
    )
    return form.startswith("-l") if infinitive else form[1:2] in ("o", "a")


def _relative(words: tuple[str, ...], at: int, form: str) -> bool | None:
    if form.startswith("cuj"):
        return _match(frozenset({("F" if form == "cuja" else "M", "SG")}), _table().get(words[at + 1]))
    return _match(_determiner(form), _determiner(words[0])) and _match(
        _determiner(form), _table().get(words[1])
    )


def _contraction(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return (" " in form) == words[at + 1].endswith("r")


_WITHOUT_ARTICLE = _listed(
    "ela você todos ninguém cada um uma qualquer essa mim quem alguma cem dois pouco sexta pé cavalo "
    "prazo lápis vapor tempo"
)


def _crase(words: tuple[str, ...], at: int, form: str) -> bool | None:
    following = words[at + 1]
    bare = following in _WITHOUT_ARTICLE or following.endswith("r") or following[0].isupper()
    bare = bare or following == words[at - 1]
    genders = {gender for gender, _ in _table().get(following, frozenset())}
    if not bare and following != "nova" and genders - {"F", "*"}:
        return None
    return form == ("a" if bare else "à")


_GOVERNED = {
    "gosta": "de", "precisa": "de", "depende": "de", "desconfia": "de", "lembra": "de", "esqueceu": "de",
    "queixa": "de", "aproximou": "de", "duvida": "de", "confia": "em", "acredita": "em", "pensa": "em",
    "tropeçou": "em", "sonha": "com", "concorda": "com", "casou": "com", "parece": "com", "convive": "com",
    "referiu": "a", "dirigiu": "a", "dedica": "a", "resiste": "a",
}  # fmt: skip


def _governed(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return form == _GOVERNED[words[at - 1]]


def _comparison(words: tuple[str, ...], at: int, form: str) -> bool | None:
    equal = form in ("tão", "tantos", "tantas", "grande", "bom", "boa", "ruim", "pequeno", "pequena")
    return equal == ("quanto" in words)


def _negation(words: tuple[str, ...], at: int, form: str) -> bool | None:
    before = any(word in ("ninguém", "nenhum", "nenhuma", "nada") for word in words[:at])
    return (form == "não") != before


_RANKS = (
    "todos todas ambos ambas",
    "o a os as um uma esse essa este esta aquele aquela cada algun alguma",
    "meu minha seu sua dois duas três outro outra mesmo mesma certo certa",
)


def _order(words: tuple[str, ...], at: int, form: str) -> bool | None:
    ranks = [_rank(word) for word in form.split()]
    return ranks == sorted(ranks) and len(set(ranks)) == len(ranks)


def _rank(word: str) -> int:
    for rank, listed in enumerate(_RANKS):
        if word in listed.split() or word.removesuffix("s") in listed.split():
            return rank
    return len(_RANKS)


def _no_enclisis(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return " -" not in form


def _enclisis_first(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return (" -" in form) == (at == 0)


def _impersonal(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return plural_verb(form) == (at > 0 and words[0] in ("os", "as", "meus", "minhas", "eles", "elas"))


def _inflected(words: tuple[str, ...], at: int, form: str) -> bool | None:
    auxiliary = words[at - 1].rstrip("s").endswith(("em", "am", "ão", "mo")) and words[at - 1] not in (
        "em",
        "irmãos",
    )
    return form.endswith("r") if auxiliary else form.endswith(("em", "mos"))


def _for_me(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return (form == "eu") == (at + 1 < len(words) and words[at + 1].endswith("r"))


def _postposed(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return plural_verb(form) == words[at + 1].endswith("s")


def _motion(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return (form == "a") == words[at - 1].startswith(("cheg", "volt", "fu", "fo"))


def _passive_se(words: tuple[str, ...], at: int, form: str) -> bool | None:
    return words[at + 1] == "-se" and plural_verb(form) == words[at + 2].endswith("s")


RULES: dict[str, Rule] = {
    "determinante_genero": _before_noun,
    "determinante_numero": _before_noun,
    "quantificador_genero": _before_noun,
    "adjetivo_genero": _after_noun,
    "adjetivo_numero": _after_noun,
    "sujeito_verbo_numero": _verb_number,
    "sujeito_verbo_relativa": _verb_number,
    "sujeito_verbo_complemento": _verb_number,
    "pessoa_verbal": _person,
    "sujeito_composto": _coordinated,
    "predicativo_genero": _with_subject,
    "predicativo_numero": _with_subject,
    "predicativo_complemento": _with_subject,
    "passiva_genero": _with_subject,
    "participio_ter_estar": _participle,
    "predicativo_verbo": _with_subject,
    "modo_subjuntivo": _mood,
    "futuro_subjuntivo": _future,
    "tempo_adverbio": _tense,
    "forma_nominal": _non_finite,
    "reflexivo_pessoa": _reflexive,
    "pronome_caso": _case,
    "enclise_forma": _enclitic,
    "relativo_genero": _relative,
    "proclise_negacao": _no_enclisis,
    "contracao": _contraction,
    "crase": _crase,
    "preposicao_regida": _governed,
    "comparacao": _comparison,
    "negacao": _negation,
    "ordem_determinante": _order,
    "haver_impessoal": _impersonal,
    "infinitivo_flexionado": _inflected,
    "para_eu_para_mim": _for_me,
    "sujeito_posposto": _postposed,
    "verbo_movimento": _motion,
    "passiva_sintetica": _passive_se,
    "enclise_inicial": _enclisis_first,
}
