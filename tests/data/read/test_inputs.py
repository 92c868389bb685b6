"""Every format, compression and archive gives the same documents; a wrong line costs itself alone."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.read import compressed
from ptbr_slm.data.read.files import format_of, list_files
from ptbr_slm.data.read.formats import read_csv, read_json_lines
from ptbr_slm.errors import SlmError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip
TEXTS = ["A primeira frase, com vírgula.", "A segunda; com ponto e vírgula.", 'A "terceira" frase.']


def read(*inputs: Path, **options: object) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    return [d.text for d in read_documents(inputs, counts=counts, **options)], counts  # type: ignore[arg-type]


def json_lines(texts: list[str] = TEXTS) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def table(delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["id", "text", "licence"], *([i, text, "CC0"] for i, text in enumerate(TEXTS))])
    return file.getvalue().encode()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".jsonl", json_lines()),
        (".ndjson", json_lines()),
        (".csv", table()),
        (".csv", table(";")),
        (".tsv", table("\t")),
    ],
)
def test_lines_and_tables_whatever_their_compression(
    tmp_path: Path, ending: str, content: bytes, packing: str
):
    path = tmp_path / f"a{ending}{packing}"
    path.write_bytes(PACK[packing](content))
    found, counts = read(path)
    assert found == TEXTS and not counts.dropped and counts.input_bytes == path.stat().st_size


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("ending", [".txt", ".md"])
def test_a_text_file_is_one_document_whatever_its_compression(tmp_path: Path, ending: str, packing: str):
    (tmp_path / f"a{ending}{packing}").write_bytes(PACK[packing]("\n\n".join(TEXTS).encode()))
    assert read(tmp_path)[0] == ["\n\n".join(TEXTS)]
    assert read(tmp_path, paragraph_documents=True)[0] == TEXTS


def test_ids_and_licences_of_the_source_are_kept(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(table())
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Uma frase boa.", "id": 7, "license": "CC BY 4.0"}))
    kept = list(read_documents([tmp_path]))
    assert [(d.id, d.licence) for d in kept] == [("0", "CC0"), ("1", "CC0"), ("2", "CC0"), ("7", "CC BY 4.0")]
    assert kept[1].source == f"{tmp_path}/a.csv:3"


def test_a_wrong_row_of_a_table_loses_itself_alone(tmp_path: Path):
    rows = [
        b"id;text",
        b"1;Uma frase boa.",
        b"2",
        b"3;" + "ação e razão".encode("latin-1"),
        b'4;"Duas',
        b'linhas."',
    ]
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    (tmp_path / "b.csv").write_bytes(b"id,corpo\n1,Uma frase\n2,Outra frase\n")
    (tmp_path / "c.csv").write_bytes(b"")
    found, counts = read(tmp_path)
    assert found == ["Uma frase boa.", "Duas\nlinhas."]
    assert dict(counts.dropped) == {"bad_row": 1, "not_utf8": 1, "no_text": 2, "empty": 1}


PAGE = """<!doctype html><html><head><title>Título</title><style>p {}</style></head><body>
<nav><a href=/>Início</a> | <a href=/x>Contato</a></nav>
<main><h1>O mar</h1><p>O mar bate na pedra
e volta.</p><ul><li>peixe</li><li>rede</li></ul><p>Fim &eacute; isso.</p><script>var x</script></main>
<footer>Todos os direitos reservados</footer></body></html>"""


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "windows-1252"])
def test_a_page_gives_its_text_and_not_its_menus(tmp_path: Path, encoding: str):
    pytest.importorskip("selectolax")
    declared = PAGE.replace("<head>", f'<head><meta charset="{encoding}">').replace("&eacute;", "é")
    (tmp_path / "a.html").write_bytes(declared.encode(encoding))
    found, counts = read(tmp_path)
    assert (
        found == ["O mar\n\nO mar bate na pedra e volta.\n\npeixe\nrede\n\nFim é isso."]
        and not counts.dropped
    )


ARTICLE = """{{Info/Cidade|nome=Olinda}}
'''Olinda''' é um [[município]] de [[Pernambuco|pernambucanos]].<ref>IBGE, 2020.</ref>
[[Ficheiro:Olinda.jpg|thumb|A [[vista]] da Sé]]
{| class="wikitable"
| célula
|}
== História ==
Foi fundada em 1535.<!-- nota -->

== Referências ==
{{Reflist}}

== Ligações externas ==
* [http://x.br Sítio]
[[Categoria:Olinda]]"""


def dump(*pages: str) -> bytes:
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{"".join(pages)}</mediawiki>'.encode()
    )


def page(title: str, text: str, ns: int = 0, more: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>12</id>{more}<revision><id>99</id>"
        f"<text>{escaped}</text></revision></page>"
    )


@pytest.mark.parametrize("packing", ["", ".bz2"])
def test_a_wikipedia_dump_gives_the_prose_of_its_articles(tmp_path: Path, packing: str):
    pytest.importorskip("mwparserfromhell")
    pages = [
        page("Olinda", ARTICLE),
        page("Discussão", "Um comentário.", 1),
        page("Ali", "Ir", more='<redirect title="X"/>'),
    ]
    (tmp_path / f"a.xml{packing}").write_bytes(PACK[packing](dump(*pages)))
    kept = list(read_documents([tmp_path]))
    assert [(d.id, d.attributes, d.source) for d in kept] == [
        ("12", {"title": "Olinda"}, f"{tmp_path}/a.xml{packing}:1")
    ]
    assert kept[0].text == "Olinda é um município de pernambucanos.\n\nHistória\nFoi fundada em 1535."


def test_a_dump_that_is_cut_gives_the_articles_before_the_cut(tmp_path: Path):
    pytest.importorskip("mwparserfromhell")
    whole = dump(*(page(f"T{i}", f"O artigo {i} diz pouco.") for i in range(9)))
    (tmp_path / "a.xml").write_bytes(whole[: whole.index(b"O artigo 7")])
    found, counts = read(tmp_path)
    assert found == [f"O artigo {i} diz pouco." for i in range(7)] and dict(counts.dropped) == {
        "corrupt_file": 1
    }


MEMBERS = {
    "textos/a.txt": b"Um texto solto.",
    "textos/b.jsonl.gz": gzip.compress(json_lines()),
    "foto.jpg": b"\xff\xd8",
    ".oculto.txt": "Não se lê isto.".encode(),
    "README.md": b"Fala da pasta.",
}


def as_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    return file.getvalue()


def as_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in MEMBERS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", as_zip()),
        ("a.tar", as_tar()),
        ("a.tar.xz", lzma.compress(as_tar())),
        ("a.tgz", gzip.compress(as_tar())),
    ],
)
def test_the_members_of_an_archive_are_read_as_files(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    kept = list(read_documents([tmp_path], counts=(counts := DocumentCounts())))
    assert [d.text for d in kept] == ["Um texto solto.", *TEXTS]
    assert kept[1].source == f"{tmp_path}/{name}/textos/b.jsonl.gz:1"
    assert dict(counts.dropped) == {"unknown_format": 2}


def test_a_damaged_member_of_a_zip_loses_itself_alone(tmp_path: Path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # stored
        for name in "abc":
            archive.writestr(f"{name}.jsonl", json_lines([f"Uma frase do membro {name}."]))
    content = bytearray(file.getvalue())
    at = content.index(b"membro b")
    content[at : at + 8] = b"MEMBRO B"
    (tmp_path / "a.zip").write_bytes(content)
    found, counts = read(tmp_path)
    assert (
        found[0].endswith("a.") and found[-1].endswith("c.") and dict(counts.dropped) == {"corrupt_file": 1}
    )
    (tmp_path / "a.zip").write_bytes(content[:-40])
    assert dict(read(tmp_path)[1].dropped) == {"corrupt_file": 1}


def test_a_zip_with_a_password_is_told_by_its_members(tmp_path: Path):
    content = bytearray(as_zip())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature)
        content[at + flags] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    found, counts = read(tmp_path)
    assert found == TEXTS and counts.dropped["unreadable"] == 1


@pytest.mark.parametrize("packing", [".gz", ".zst", ".bz2", ".xz"])
def test_a_decompression_bomb_ends_where_no_text_would_grow_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
):
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1 << 20)
    bomb = json_lines() + b" " * (64 << 20)
    (tmp_path / f"a.jsonl{packing}").write_bytes(PACK[packing](bomb))
    found, counts = read(tmp_path)
    assert found == TEXTS and counts.dropped["bomb"] == 1 and set(counts.dropped) <= {"bomb", "too_long"}


def test_a_zip_of_many_bombs_ends_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{i}.txt", b"a " * (8 << 20))
    assert dict(read(tmp_path)[1].dropped)["bomb"] == 1


def test_a_pattern_names_files_and_one_that_matches_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "t" / "sub").mkdir(parents=True)
    for name in ("t/a.txt", "t/sub/b.txt", "t/c.jpg"):
        (tmp_path / name).write_text(f"O texto de {name}.")
    monkeypatch.chdir(tmp_path)
    assert read(Path("t/*"))[0] == ["O texto de t/a.txt."]
    assert read(Path("t/**/*.txt"))[0] == ["O texto de t/a.txt.", "O texto de t/sub/b.txt."]
    assert len(read(tmp_path / "t" / "**" / "*.txt")[0]) == 2
    with pytest.raises(SlmError) as error:
        list(list_files([Path("t/*.parquet")]))
    assert error.value.code == "E_NOT_FOUND"


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (json_lines(), TEXTS),
        (b"\xef\xbb\xbf" + json_lines(), TEXTS),
        (zstandard.compress(json_lines()), TEXTS),
        (gzip.compress(as_tar()), ["Um texto solto.", *TEXTS]),
        ("Só um texto.\n\nDois parágrafos.".encode(), ["Só um texto.\n\nDois parágrafos."]),
    ],
)
def test_the_standard_input_is_read_by_its_first_bytes(
    monkeypatch: pytest.MonkeyPatch, content: bytes, texts: list[str]
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[type-var]
    assert read(Path("-"))[0] == texts


def test_prepare_reads_from_a_pipe(tmp_path: Path, tokenizer_file: Path, cli: Callable):
    done = cli("data", "prepare", "-", "-o", tmp_path / "d", "--tokenizer", tokenizer_file, "--json",
               input=json_lines().decode())  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == 3


@pytest.mark.parametrize(
    "kind", ["nested", "list", "list of structs", "dictionary", "large_string", "string_view", "binary"]
)
def test_the_text_of_a_parquet_file_may_be_nested_and_of_any_kind_of_string(tmp_path: Path, kind: str):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    plain, expected = pa.array(TEXTS), TEXTS
    columns = {
        "nested": lambda: {
            "id": [1, 2, 3],
            "doc": pa.array([{"n": 1, "corpo": {"text": text}} for text in TEXTS]),
        },
        "list": lambda: {"text": pa.array([[text, "Mais um parágrafo."] for text in TEXTS])},
        "list of structs": lambda: {"text": pa.array([[{"text": text, "n": 1}] for text in TEXTS])},
        "dictionary": lambda: {"text": plain.dictionary_encode()},
        "large_string": lambda: {"text": plain.cast(pa.large_string())},
        "string_view": lambda: {"text": plain.cast(pa.string_view())},
        "binary": lambda: {"text": plain.cast(pa.binary())},
    }
    parquet.write_table(pa.table(columns[kind]()), tmp_path / "a.parquet")
    if kind == "list":
        expected = [f"{text}\n\nMais um parágrafo." for text in TEXTS]
    found, counts = read(tmp_path)
    assert found == expected and not counts.dropped


def test_the_field_of_the_text_has_the_name_that_the_user_says(tmp_path: Path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"doc": [{"conteudo": "Uma frase de tabela."}]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"conteudo": "Uma frase de linha."}')
    assert read(tmp_path, text_field="conteudo")[0] == ["Uma frase de tabela.", "Uma frase de linha."]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.TXT", "text"), ("a.md.gz", "text"), ("a.tbz2", "tar"), ("a.tar.zst", "tar"), ("a.htm", "html"),
        ("p.xml.bz2", "mediawiki"), ("a.parquet", "parquet"), ("a.parquet.gz", None), ("a.zip.xz", None),
        ("a.gz", None), ("foto.jpg", None), ("txt", None),
    ],
)  # fmt: skip
def test_the_ending_of_a_name_tells_the_format(name: str, format: str | None):
    assert format_of(name) == format


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=400) | st.text(alphabet='{}[]",;:\n\r text1é\\', max_size=300).map(str.encode)
)
@pytest.mark.parametrize("reader", [read_csv, read_json_lines])
def test_no_bytes_stop_a_reader_of_lines(reader: Callable, content: bytes):
    for prefix in (b"", b"text,id\n"):
        list(reader(io.BytesIO(prefix + content), "a", "text"))
