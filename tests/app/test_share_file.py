"""Links and files of a text, as static/share.js makes and reads them; hostile ones too."""

from __future__ import annotations

import json

import pytest
from page_scripts import run_script

TEXT = 'Era "uma" vez\n\\ 😀 & a=b #x %20 + <b>'
GIVEN = [TEXT, 40, 0.9, 0.9, 20, 1.1, "42"]
LIMITS = {
    "max_new_tokens": [1, 1024],
    "temperature": [0, 2],
    "top_p": [0.05, 1],
    "top_k": [0, 200],
    "repetition_penalty": [1, 2],
}
PANEL = {"limits": LIMITS, "name": "meu", "fingerprint": "0123456789abcdef"}
OTHER = PANEL | {"name": "outro", "fingerprint": "fedcba9876543210"}
EMPTY = ["o meu", 1, 1, 1, 0, 1, ""]


def copied(given: list) -> tuple[str, str]:
    """The link on the clipboard, and the sentence."""
    code = f"ptbrShare.copyLink({json.dumps(PANEL)}, {json.dumps(given)})"
    link, said = run_script("share.js", f"[await {code}, globalThis.copied ?? '']")[::-1]
    return link, said


def opened(link: str, panel: dict = PANEL, given: list = EMPTY) -> list:
    """What the controls and the status line show after a page was opened with `link`."""
    code = f"(location.hash = {json.dumps(link.partition('#')[2])}, ptbrShare.openLink({json.dumps(panel)}, "
    return run_script("share.js", code + f"{json.dumps(given)}))")


def read(content: str, panel: dict = PANEL, given: list = EMPTY) -> list:
    """What they show after a file was opened."""
    code = """(HTMLInputElementStub(%s), ptbrShare.openFile(%s, %s))"""
    stub = """(() => {
      globalThis.HTMLInputElementStub = (content) => {
        document.body = {append: () => {}};
        document.createElement = () => ({
          addEventListener(name, end) { if (name === "change") this.end = end; },
          remove() {},
          click() { this.files = [new Blob([content])]; this.end(); },
        });
      };
    })(), """
    return run_script("share.js", "(" + stub + code % tuple(map(json.dumps, (content, panel, given))) + ")")


def test_a_link_brings_the_text_and_every_setting_back():
    link, _ = copied(GIVEN)
    assert link.startswith("http://127.0.0.1:7860/modelo/page/#text=")
    assert opened(link) == [*GIVEN, "Texto aberto."]


def test_a_link_made_with_another_model_says_so():
    link, _ = copied(GIVEN)
    *shown, said = opened(link, OTHER)
    assert shown == GIVEN and "outro modelo" in said


def test_without_a_text_in_the_address_the_page_opens_as_always():
    for link in ("", "#", "#temperature=1", "#texto=a"):
        assert opened(link) == [*EMPTY, ""]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("temperature=99", "temperatura"),
        ("temperature=NaN&top_p=Infinity", "temperatura, top-p"),
        ("max_new_tokens=1.5", "tokens novos"),
        ("top_k=-1&seed=1e3", "top-k, semente"),
        ("repetition_penalty=&seed=99999999999999999999", "repetição, semente"),
    ],
)
def test_a_setting_that_the_page_does_not_take_stays_as_it_was_and_is_named(given, left):
    *shown, said = opened(f"#text=a&{given}")
    assert shown == ["a", *EMPTY[1:]]
    assert said == f"Texto aberto. Fora do que esta página aceita, e deixado como estava: {left}."


def test_a_text_too_long_for_a_link_is_for_a_file():
    link, said = copied(["é" * 4000, *GIVEN[1:]])
    assert not link and said == "O texto é longo demais para um link: guarde num arquivo."
    link, _ = copied(["é" * 1000, *GIVEN[1:]])
    assert len(link) < 8000


def test_there_is_nothing_to_share_of_an_empty_text():
    assert copied(["", *GIVEN[1:]]) == ("", "Escreva um texto antes de guardar ou compartilhar.")
    assert "Escreva um texto" in run_script(
        "share.js", f"ptbrShare.saveFile({json.dumps(PANEL)}, {json.dumps(['', *GIVEN[1:]])})"
    )


def test_a_file_brings_the_text_and_every_setting_back():
    stub = """(() => {
      document.createElement = () => ({click() {}});
      URL.createObjectURL = (blob) => { globalThis.written = blob; };
      URL.revokeObjectURL = () => {};
      globalThis.setTimeout = () => {};
    })(), """
    code = f"({stub} ptbrShare.saveFile({json.dumps(PANEL)}, {json.dumps(GIVEN)}), written.text())"
    content = run_script("share.js", code)
    assert json.loads(content)["model"] == {"name": "meu", "fingerprint": "0123456789abcdef"}
    assert read(content) == [*GIVEN, "Texto aberto."]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "não é um texto guardado"),
        ("não é JSON", "não é um texto guardado"),
        ("null", "não é um texto guardado"),
        ("[1, 2]", "não é um texto guardado"),
        ('{"format": "outro", "version": 1, "text": "a"}', "não é um texto guardado"),
        ('{"format": "ptbr-slm-text", "version": 1}', "não é um texto guardado"),
        ('{"format": "ptbr-slm-text", "version": 1, "text": {"a": 1}}', "não é um texto guardado"),
        (
            '{"format": "ptbr-slm-text", "version": 1, "text": "%s"}' % ("a" * 200_001),
            "não é um texto guardado",
        ),
        ('{"format": "ptbr-slm-text", "version": 2, "text": "a"}', "versão mais nova"),
        (" " * 1_000_001, "passa de 1 MB"),
        ("[" * 500_000, "não é um texto guardado"),
    ],
)
def test_a_file_that_is_not_one_of_ours_changes_nothing_and_the_page_says_why(content, said):
    *shown, told = read(content)
    assert shown == EMPTY and said in told


def test_odd_settings_and_models_in_a_file_are_left_out():
    body = {"format": "ptbr-slm-text", "version": 1, "text": "a", "settings": None, "model": "x"}
    assert read(json.dumps(body))[:-1] == ["a", *EMPTY[1:]]
    settings = {"temperature": {"a": 1}, "top_k": "20", "__proto__": {"seed": 1}}
    body |= {"settings": settings, "model": {"fingerprint": "constructor"}}
    *shown, told = read(json.dumps(body))
    assert shown == ["a", 1, 1, 1, 20, 1, ""] and "temperatura" in told and "outro modelo" in told
