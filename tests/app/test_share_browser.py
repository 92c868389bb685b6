"""Links, files and Usar no meu código in a real Chromium."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from page_controls import set_slider

pytestmark = pytest.mark.browser

BOX = "#texto textarea"
SAID = "#compartilhar-estado"


def wait_for_line(tab, text: str) -> None:
    tab.wait_for_function(f"text => document.querySelector('{SAID}')?.innerText.includes(text)", arg=text)


def test_a_link_opens_with_its_text_and_settings_and_another_one_replaces_it_in_the_same_tab(tab, url):
    tab.goto("about:blank")
    tab.goto(f"{url}#text={quote('Era <b>uma</b> vez')}&temperature=0.35&top_p=9")
    wait_for_line(tab, "Texto aberto. Fora do que esta página aceita, e deixado como estava: top-p.")
    assert tab.input_value(BOX) == "Era <b>uma</b> vez"
    tab.click("#amostragem button")
    assert tab.locator("#amostragem input[type=number]").nth(1).input_value() == "0.35"
    tab.evaluate("location.hash = '#text=' + encodeURIComponent('No Recife, à beira')")
    tab.wait_for_function(f"document.querySelector('{BOX}').value == 'No Recife, à beira'")


def test_a_text_is_saved_in_a_file_and_opened_from_it(tab, tmp_path):
    tab.fill(BOX, "o meu texto 😀")
    with tab.expect_download() as download:
        tab.click("#guardar-arquivo")
    file = tmp_path / "texto.json"
    download.value.save_as(file)
    body = json.loads(file.read_text(encoding="utf-8"))
    assert body["text"] == "o meu texto 😀" and body["settings"]["max_new_tokens"] == 128
    tab.fill(BOX, "")
    with tab.expect_file_chooser() as chooser:
        tab.click("#abrir-arquivo")
    chooser.value.set_files(file)
    tab.wait_for_function(f"document.querySelector('{BOX}').value == 'o meu texto 😀'")
    file.write_text("{}", encoding="utf-8")
    with tab.expect_file_chooser() as chooser:
        tab.click("#abrir-arquivo")
    chooser.value.set_files(file)
    wait_for_line(tab, "Isto não é um texto guardado por esta página.")
    assert tab.input_value(BOX) == "o meu texto 😀"


def test_the_code_follows_the_text_and_the_controls_as_they_move(tab):
    tab.fill(BOX, "Era 'uma' vez")
    tab.click("#codigo > button")
    shown = "text => document.querySelector('#codigo .cm-content')?.innerText.includes(text)"
    tab.wait_for_function(shown, arg="\"Era 'uma' vez\"")
    set_slider(tab, "#amostragem", 1, 0.35)
    tab.wait_for_function(shown, arg="temperature=0.35")
    tab.fill(BOX, "outro")
    tab.wait_for_function(shown, arg='"outro"')
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
