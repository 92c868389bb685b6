"""Sources with weights and stages, near copies, records; the same bytes after a kill and with workers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_texts import texts_of

from ptbr_slm.data import batches, encode, presets
from ptbr_slm.data.document import REASONS, REPAIRS, DocumentCounts
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.ingest import PrepareProgress
from ptbr_slm.data.mixture import load_mixture, plan
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.presets import Preset
from ptbr_slm.data.recipe import Recipe, Source, SourceOptions
from ptbr_slm.data.records import read_records
from ptbr_slm.data.stages.c4 import FewWordLines, Sentences, UnendedLines, c4
from ptbr_slm.data.stages.figures import Figures
from ptbr_slm.data.stages.language import KeepPortuguese, TagLanguage
from ptbr_slm.data.stages.named import RULES
from ptbr_slm.data.stages.personal_data import MaskPersonalData
from ptbr_slm.data.stages.rules import ReplacementCharacters, StopWords, Words, fineweb2
from ptbr_slm.data.stages.variety import KeepVariety
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


def write_lines(path: Path, texts: list[str], **fields: str) -> Path:
    path.write_text("".join(json.dumps({"text": text, **fields}) + "\n" for text in texts))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sources(tmp_path: Path, prose: Callable[..., str]) -> Path:
    """A folder with two sources of 200 documents and a mixture file."""
    write_lines(tmp_path / "a.jsonl", [f"A{i}. {prose(i, 3)}" for i in range(200)], license="CC0-1.0")
    write_lines(tmp_path / "b.jsonl", [f"B{i}. {prose(1_000 + i, 3)}" for i in range(200)])
    (tmp_path / "minhas.py").write_text(
        "def sem_setes(document):\n    return '7' not in document.text.split('.')[0]\n"
    )
    (tmp_path / "mistura.toml").write_text(
        '[[source]]\nname = "jornal"\ninputs = ["a.jsonl"]\nweight = 2.5\n'
        '[[source]]\nname = "livros"\ninputs = ["b.jsonl"]\nweight = 0.5\nlicence = "domínio público"\n'
        'preset = "curated"\nstages = ["minhas.py:sem_setes"]\n'
    )
    return tmp_path / "mistura.toml"


def test_weights_repeat_and_sample_whole_documents(sources: Path, tmp_path: Path, tokenizer: Tokenizer):
    counts = DocumentCounts()
    data = prepare(
        [], tmp_path / "dados", tokenizer, recipe=load_mixture(sources), valid_fraction=0.1, counts=counts
    )
    times = Counter(texts_of(data, "train", tokenizer))
    held = Counter(texts_of(data, "valid", tokenizer))
    by_source = {letter: [n for text, n in times.items() if text[0] == letter] for letter in "AB"}
    assert set(by_source["A"]) == {2, 3} and set(by_source["B"]) == {1} and set(held.values()) == {1}
    assert 0.35 < by_source["A"].count(3) / len(by_source["A"]) < 0.65
    without_sevens = sum("7" not in str(i) for i in range(200))
    sampled = len(by_source["B"]) + sum(text[0] == "B" for text in held)
    assert (
        0.35 < sampled / without_sevens < 0.65 and counts.dropped["not_sampled"] == without_sevens - sampled
    )
    assert not set(times) & set(held) and counts.dropped["sem_setes"] == 200 - without_sevens
    order = texts_of(data, "train", tokenizer)
    assert len(set(order[: len(times)])) == len(times)  # further copies come after all documents


def test_the_index_tells_sources_and_licences_and_the_records_every_decision(
    sources: Path, tmp_path: Path, tokenizer: Tokenizer
):
    data = prepare([], tmp_path / "dados", tokenizer, recipe=load_mixture(sources), valid_fraction=0.1)
    recipe = PreparedData.open(data.folder).index.recipe
    assert [source["name"] for source in recipe["sources"]] == ["jornal", "livros"]
    assert recipe["sources"][1]["preset"] == "curated" and recipe["sources"][1]["stages"][-1] == "sem_setes"
    assert set(recipe["licences"]) == {"CC0-1.0", "domínio público"} and recipe["licences"]["CC0-1.0"] == 200
    for name in ("train", "valid"):
        records = list(read_records(data.folder, name))
        texts = texts_of(data, name, tokenizer)
        lines = {f"{tmp_path}/{text[0].lower()}.jsonl:{int(text[1 : text.index('.')]) + 1}" for text in texts}
        assert [len(text.encode()) for text in texts] == [record.bytes for record in records]
        assert {record.source for record in records} == lines
    dropped = list(read_records(data.folder, "dropped"))
    reasons = Counter(record.reason for record in dropped)
    assert dict(reasons) == recipe["sources"][1]["dropped"]
    own = next(record for record in dropped if record.reason == "sem_setes")
    assert own.excerpt.startswith("B7.") and own.origin == "livros" and own.stage == "sem_setes"


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("", "[[source]]"),
        ("a = [", "TOML"),
        ('[[source]]\ninputs = ["a"]\npeso = 2', "peso"),
        ('[[source]]\ninputs = ["a"]\nweight = 0', "weight"),
        ('[[source]]\ninputs = ["a"]\nweight = "2"', "weight"),
        ('[[source]]\nname = "x"', "inputs"),
        ("source = 3", "[[source]]"),
        ("source = [3]", "[[source]]"),
        (
            '[[source]]\ninputs = ["a"]\npreset = "total"',
            'preset pode ser "none", "curated", "web", e não "total"',
        ),
        (
            '[[source]]\ninputs = ["a"]\n[[source]]\nname = "jornal"\ninputs = ["b"]\nvariety = "bra"',
            'na 2ª tabela [[source]] (jornal), variety pode ser "any", "br", "pt", e não "bra"',
        ),
        ('[[source]]\ninputs = ["a"]\nvariety = true', 'variety pode ser "any", "br", "pt", e não true'),
        (
            '[[source]]\ninputs = ["a"]\nmask = "sim"',
            'na 1ª tabela [[source]], mask é true ou false, e não "sim"',
        ),
        ('[[source]]\ninputs = ["a"]\nmask = true\nkeep = ["cnjp"]', 'keep pode ter "cpf", "cnpj", "phone"'),
        ('[[source]]\ninputs = ["a"]\nmask = true\nkeep = 1', "keep é uma lista de textos, e não 1"),
        ('[[source]]\ninputs = ["a"]\nkeep = ["cnpj"]', "acrescente mask = true"),
        (
            '[[source]]\ninputs = ["a"]\nrules = ["wrods"]',
            "não conheço a regra 'wrods' (há fineweb2, c4, join",
        ),
        ('[[source]]\ninputs = ["a"]\nrules = 3', "rules é uma lista de nomes"),
        (
            '[[source]]\ninputs = ["a"]\nrules = {words = 3}',
            "words pode ser true, false ou {least = 50, most",
        ),
        ('[[source]]\ninputs = ["a"]\nrules = {stop_words = "3"}', 'false ou {least = 2}, e não "3"'),
        ('[[source]]\ninputs = ["a"]\nrules = {stop_words = {most = 3}}', "false ou {least = 2}, e não"),
        (
            '[[source]]\ninputs = ["a"]\nrules = {unended_lines = 1}',
            "unended_lines pode ser true ou false, e não 1",
        ),
        ('[[source]]\ninputs = ["a"]\nrules = {c4 = 1}', "rules.c4 é true ou false, e não 1"),
        ('[[source]]\ninputs = ["a"]\nstages = ["nada_disso:f"]', "nada_disso"),
        ('[[source]]\ninputs = ["a"]\nstages = ["json:nada"]', "nada"),
        ('[[source]]\ninputs = ["a"]\nstages = ["os:sep"]', "função"),
    ],
)
def test_a_mixture_file_that_is_wrong_says_where(tmp_path: Path, toml: str, told: str):
    (tmp_path / "m.toml").write_text(toml)
    with pytest.raises(SlmError) as error:
        load_mixture(tmp_path / "m.toml")
    assert error.value.code == "E_CONFIG" and told in str(error.value)


@pytest.mark.parametrize("body", ["return 1 / 0", "return 'sim'"])
def test_a_users_stage_that_fails_is_told_with_the_document(tmp_path: Path, tokenizer: Tokenizer, body: str):
    (tmp_path / "etapa.py").write_text(f"def f(document):\n    {body}\n")
    write_lines(tmp_path / "a.jsonl", ["Uma frase boa."])
    (tmp_path / "m.toml").write_text('[[source]]\ninputs = ["a.jsonl"]\nstages = ["etapa.py:f"]')
    with pytest.raises(SlmError) as error:
        prepare([], tmp_path / "dados", tokenizer, recipe=load_mixture(tmp_path / "m.toml"))
    assert error.value.code == "E_CONFIG" and "a.jsonl:1" in str(error.value.where)
    assert not list(tmp_path.glob(".dados*"))


def test_near_copies_go_out_and_never_fall_on_both_sides(tmp_path: Path, tokenizer: Tokenizer):
    pytest.importorskip("rensa")
    texts = []
    for i in range(120):
        words = [str(number) + letter for number, letter in zip(range(128), "abcd" * 32, strict=True)]
        words = ["".join(random.Random(f"{i} {word}").choices("aeioubcdlmnprst", k=6)) for word in words]
        text = f"História {i}. {' '.join(words[:100])}"
        texts += [text, f"{text} Fim da versão.", f"{text} {' '.join(words[100:])}"]  # the last: 0.78 alike
    recipe = Recipe(
        (Source((write_lines(tmp_path / "a.jsonl", texts),)),), drop_near_duplicates=True, keep_records=True
    )
    counts = DocumentCounts()
    data = prepare([], tmp_path / "dados", tokenizer, recipe=recipe, valid_fraction=0.2, counts=counts)
    assert (
        counts.dropped["near_duplicate"] == 120
        and sum(part.documents for part in data.index.splits.values()) == 240
    )
    told = data.index.near_duplicates
    assert told["found"] == counts.dropped["near_duplicate"] and told["dropped"] and told["threshold"] == 0.8
    stories = [
        {text.split(".")[0] for text in texts_of(data, name, tokenizer)} for name in ("train", "valid")
    ]
    assert stories[0] and stories[1] and not stories[0] & stories[1]
    assert {r.reason for r in read_records(data.folder, "dropped")} == {"near_duplicate"}


@pytest.mark.parametrize("near", [None, NearDuplicateSettings()])
def test_the_number_of_workers_changes_no_byte(
    sources: Path,
    tmp_path: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    near: NearDuplicateSettings | None,
):
    if near is not None:
        pytest.importorskip("rensa")
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 4_000)
    (tmp_path / "ruim.jsonl").write_text('{"text": 1}\nnada\n' * 20)
    found = load_mixture(sources)
    recipe = Recipe((*found.sources, Source((tmp_path / "ruim.jsonl",))), near, True, keep_records=True)
    one = prepare([], tmp_path / "um", tokenizer, recipe=recipe)
    two = prepare([], tmp_path / "dois", tokenizer, recipe=recipe, workers=2)
    assert contents(one.folder) == contents(two.folder)


KILLED = """
import sys
from pathlib import Path
from ptbr_slm.data import batches, encode
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.mixture import load_mixture
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.recipe import Recipe
from ptbr_slm.tokenizer import Tokenizer

encode.BATCH_CHARACTERS, batches.CHECKPOINT_CHARACTERS = 2_000, 6_000
found = load_mixture(Path("mistura.toml"))
near = NearDuplicateSettings() if sys.argv[1] == "near" else None
recipe = Recipe(found.sources, near, keep_records=True)
def slow(now):
    import time
    time.sleep(0.02)
    print(now.tokens, flush=True)
prepare([], Path("dados"), Tokenizer.load(Path(sys.argv[2])), recipe=recipe, progress=slow)
"""


@pytest.mark.parametrize("near", ["near", "plain"])
def test_a_killed_run_goes_on_and_has_the_same_bytes(
    sources: Path, tmp_path: Path, tokenizer: Tokenizer, tokenizer_file: Path, near: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    if near == "near":
        pytest.importorskip("rensa")
    command = [sys.executable, "-c", KILLED, near, str(tokenizer_file)]
    for lines in (10, 15):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "dados").exists() and len(list(tmp_path.glob(".dados.preparing-*"))) == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    found = load_mixture(Path("mistura.toml"))
    recipe = Recipe(found.sources, NearDuplicateSettings() if near == "near" else None, keep_records=True)
    first: list[PrepareProgress] = []
    resumed = prepare([], Path("dados"), tokenizer, recipe=recipe, progress=first.append)
    assert not list(tmp_path.glob(".dados*"))
    whole: list[PrepareProgress] = []
    fresh = prepare([], Path("inteiro"), tokenizer, recipe=recipe, progress=whole.append)
    assert contents(resumed.folder) == contents(fresh.folder)
    assert first[0].tokens > whole[0].tokens and len(first) < len(whole)


def test_work_of_other_inputs_is_not_continued_and_is_cleared(
    sources: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    monkeypatch.setattr(batches, "CHECKPOINT_CHARACTERS", 4_000)

    def interrupted(now: PrepareProgress) -> None:
        if now.tokens > 6_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([], tmp_path / "dados", tokenizer, recipe=load_mixture(sources), progress=interrupted)
    assert len(list(tmp_path.glob(".dados.preparing-*"))) == 1
    time.sleep(0.01)
    write_lines(tmp_path / "a.jsonl", ["Outro texto.", "Mais um texto."])
    events: list[PrepareProgress] = []
    data = prepare([], tmp_path / "dados", tokenizer, recipe=load_mixture(sources), progress=events.append)
    assert "Outro texto." in {*texts_of(data, "train", tokenizer), *texts_of(data, "valid", tokenizer)}
    assert events[0].tokens < 2_500 and not list(tmp_path.glob(".dados*"))


def test_a_mixture_from_the_command_line(sources: Path, tokenizer_file: Path, cli: Callable, prose: Callable):
    folder = sources.parent
    (folder / "d.txt").write_text("Fale com ana.souza@exemplo.com.br hoje mesmo. " + prose(1))
    options = ("--tokenizer", tokenizer_file, "--mask-personal-data", "--workers", "2", "--json")
    done = cli("data", "prepare", "d.txt", "--mix", "mistura.toml", "-o", "dados", *options, check=True)
    body = json.loads(done.stdout)
    assert body["repaired"] == {"masked": 1} and body["dropped"]["sem_setes"] == 38
    told = cli("data", "prepare", "-o", "dados", "--tokenizer", tokenizer_file)
    assert told.returncode == 2 and "--mix" in told.stderr


def test_options_of_the_command_line_hold_for_every_source_that_does_not_say_otherwise(tmp_path: Path):
    (tmp_path / "m.toml").write_text(
        '[[source]]\ninputs = ["a.txt"]\n[[source]]\ninputs = ["b.txt"]\n'
        'paragraph_documents = false\npreset = "web"\ntext_field = "corpo"\nvariety = "any"\nmask = false\n'
        '[[source]]\ninputs = ["c.txt"]\nvariety = "pt"\nmask = true\nkeep = []\n'
    )
    options = SourceOptions(
        "curated", "texto", paragraph_documents=True, variety="br", mask=True, keep=("cnpj",)
    )
    found = plan([], mix=tmp_path / "m.toml", options=options)
    facts = [(s.stages.name, s.text_field, s.paragraph_documents) for s in found.sources]
    assert facts == [("curated", "texto", True), ("web", "corpo", False), ("curated", "texto", True)]
    given = [MaskPersonalData(("cnpj",)), KeepVariety("br"), MaskPersonalData(), KeepVariety("pt")]
    assert [
        stage
        for source in found.sources
        for stage in source.stages.all
        if isinstance(stage, MaskPersonalData | KeepVariety)
    ] == given


def test_a_source_may_turn_masking_and_the_variety_on_where_the_command_line_says_nothing(tmp_path: Path):
    (tmp_path / "m.toml").write_text(
        '[[source]]\ninputs = "a.txt"\n[[source]]\ninputs = "b.txt"\n'
        'variety = "br"\nmask = true\nkeep = "cnpj"\n'
    )
    plain, other = plan([], mix=tmp_path / "m.toml").sources
    assert plain.stages == presets.preset("none")
    assert (
        MaskPersonalData(("cnpj",)) in other.stages.cleaning and KeepVariety("br") in other.stages.filtering
    )


def rules_of(tmp_path: Path, toml: str, name: str = "none") -> Preset:
    (tmp_path / "m.toml").write_text(f'[[source]]\ninputs = ["a.txt"]\npreset = "{name}"\n{toml}')
    return load_mixture(tmp_path / "m.toml").sources[0].stages


def test_rules_by_name_are_added_to_a_preset_changed_or_turned_off(tmp_path: Path):
    bare = presets.preset("none")
    stages = rules_of(tmp_path, 'rules = ["words", "unended_lines", "keep_portuguese"]')
    assert stages.cleaning == (*bare.cleaning, UnendedLines())
    assert stages.tagging == (Figures(("words",)), TagLanguage())
    assert stages.filtering == (*bare.filtering, KeepPortuguese(), Words())

    rules = "words = {least = 20}\nstop_words = false\nfew_word_lines = 2\nsentences = true\n"
    stages = rules_of(tmp_path, f"[source.rules]\n{rules}", "web")
    web = presets.preset("web")
    changed = tuple(Words(least=20) if stage == Words() else stage for stage in web.filtering)
    assert stages.filtering == (*(stage for stage in changed if stage != StopWords()), Sentences())
    assert stages.cleaning == (*web.cleaning, FewWordLines(least=2)) and stages.tagging == web.tagging


def test_all_rules_of_c4_have_one_name_in_the_order_of_datatrove(tmp_path: Path):
    stages = rules_of(tmp_path, "rules = {c4 = true, citations = false}")
    added = (*stages.cleaning[1:], *stages.filtering[1:])
    assert added == tuple(rule for rule in c4() if rule.name != "citations")
    assert rules_of(tmp_path, 'rules = "fineweb2"').filtering[1:] == fineweb2()
    assert rules_of(tmp_path, "rules = {fineweb2 = false}", "web").filtering == (
        KeepPortuguese(),
        ReplacementCharacters(),
    )


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_reasons_and_takes_its_thresholds(name: str, tmp_path: Path):
    entry = RULES[name]
    assert set(entry.reasons) <= {*REASONS, *REPAIRS} and entry.source
    if entry.thresholds:
        given = ", ".join(f"{key} = {value + 1}" for key, value in entry.thresholds.items())
        stages = rules_of(tmp_path, f"rules = {{{name} = {{{given}}}}}").all
        changed = next(stage for stage in stages if stage.name == name)
        assert changed != entry.rule and type(changed) is type(entry.rule)


def test_a_rule_that_takes_more_than_a_fifth_of_a_source_is_told_everywhere(
    tmp_path: Path, tokenizer_file: Path, run: Callable, prose: Callable
):
    write_lines(tmp_path / "leis.jsonl", [prose(i, 8) for i in range(7)] + [f"Art. {i}º" for i in range(3)])
    write_lines(tmp_path / "bom.jsonl", [prose(100 + i, 8) for i in range(10)] + ["Art. 3º."])
    (tmp_path / "m.toml").write_text(
        '[[source]]\nname = "leis"\ninputs = ["leis.jsonl"]\nrules = {words = {least = 10}}\n'
        '[[source]]\nname = "bons"\ninputs = ["bom.jsonl"]\nrules = {words = {least = 10}}\n'
    )
    options = ("--mix", "m.toml", "-o", "dados", "--tokenizer", tokenizer_file)
    told = run("data", "prepare", *options, check=True).stdout
    assert "Atenção: 30 % de leis ficou de fora: tem menos palavras" in told and told.count("Atenção") == 1
    rule = {"source": "leis", "reason": "few_words", "dropped": 3, "share": 0.3}
    body = json.loads(run("data", "stats", "dados", "--json", check=True).stdout)
    assert body["excessive_rules"] == [rule]
    assert json.loads((tmp_path / "dados" / "index.json").read_text())["recipe"]["excessive_rules"] == [rule]
    run("data", "audit", "dados", check=True)
    page = (tmp_path / "dados" / "auditoria.html").read_text()
    assert page.count("Talvez esta fonte peça outra limpeza") == 1 and "leis: a regra" in page


def test_varieties_are_counted_kept_and_dropped(tmp_path: Path, tokenizer_file: Path, run: Callable):
    european = [f"O utilizador {i} deve aceder ao ficheiro no ecrã do telemóvel." for i in range(3)]
    brazilian = [f"O usuário {i} deve acessar o arquivo na tela do celular." for i in range(4)]
    write_lines(tmp_path / "a.jsonl", [*european, *brazilian, "A casa azul fica perto.", "A porta é alta."])
    options = ("a.jsonl", "--tokenizer", tokenizer_file, "-o", "dados", "--variety", "br")
    told = run("data", "prepare", *options, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    assert ["variedade", "ficaram", "saíram"] in lines
    assert ["do", "Brasil", "4", "0"] in lines and ["de", "Portugal", "0", "3"] in lines
    assert ["não", "se", "sabe", "2", "0"] in lines
    counts = {code: {"kept": kept, "dropped": dropped} for code, kept, dropped in
              (("br", 4, 0), ("pt", 0, 3), ("unknown", 2, 0))}  # fmt: skip
    body = json.loads(run("data", "prepare", *options, "--json", check=True).stdout)
    assert body["varieties"] == counts
    assert json.loads((tmp_path / "dados" / "index.json").read_text())["recipe"]["varieties"] == counts
    run("data", "audit", "dados", check=True)
    assert "português de Portugal" in (tmp_path / "dados" / "auditoria.html").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--keep-personal-data", "cnpj"), "--mask-personal-data"),
        (("--mask-personal-data", "--keep-personal-data", "cnjp"), "cnpj, phone"),
    ],
)
def test_a_kind_of_personal_data_to_keep_that_means_nothing_is_refused(
    tmp_path: Path, tokenizer_file: Path, run: Callable, options: tuple[str, ...], told: str
):
    (tmp_path / "a.txt").write_text("Uma frase boa.")
    done = run("data", "prepare", "a.txt", "-o", "dados", "--tokenizer", tokenizer_file, *options)
    assert done.returncode == 2 and "E_USAGE" in done.stderr and told in done.stderr


def test_masking_keeps_what_the_command_line_says(tmp_path: Path, tokenizer_file: Path, run: Callable):
    (tmp_path / "a.txt").write_text("A empresa 11.222.333/0001-81 ligou para (11) 98765-4321 hoje cedo.")
    options = ("--tokenizer", tokenizer_file, "--mask-personal-data", "--keep-personal-data", "cnpj")
    run("data", "prepare", "a.txt", "-o", "dados", *options, "--valid-fraction", "0", check=True)
    data = PreparedData.open(tmp_path / "dados")
    assert texts_of(data, "train", Tokenizer.load(tokenizer_file)) == [
        "A empresa 11.222.333/0001-81 ligou para [TELEFONE] hoje cedo."
    ]
