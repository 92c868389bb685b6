"""A byte order mark and UTF-16 mean the same wherever text comes in."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.cli.generate import read_prompt, read_schema
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import BOM, decode, is_utf16
from ptbr_slm.train.config_file import load_config

TEXT = "A manhã começa cedo."


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch):
    """Give these bytes to the next reader of standard input."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return give


@given(st.text())
def test_a_mark_is_no_text_and_all_else_stays(text: str):
    raw = text.encode("utf-8", "replace")
    assert decode(BOM + raw) == raw.decode()
    assert "\x00" in text or decode(raw) == raw.decode().removeprefix("\ufeff")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_recognised_by_its_mark_or_its_nuls(encoding: str):
    assert is_utf16(TEXT.encode(encoding))
    with pytest.raises(UnicodeDecodeError, match="UTF-16"):
        decode(TEXT.encode(encoding))


@pytest.mark.parametrize(
    "raw", [b"", TEXT.encode(), TEXT.encode("latin-1"), bytes(100), bytes(range(256)) * 4]
)
def test_other_bytes_are_not_taken_for_utf16(raw: bytes):
    assert not is_utf16(raw)


def test_a_mark_on_standard_input_is_no_part_of_the_prompt_or_the_schema(standard_input):
    standard_input(BOM + TEXT.encode() + b"\r\n")
    assert read_prompt("-") == TEXT
    standard_input(BOM + b"{}")
    assert read_schema("-", prompt="x") == "{}"


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16", "utf-16"), ("utf-16-le", "utf-16"), ("latin-1", "latin1")]
)
def test_a_prompt_in_another_encoding_is_refused_with_the_command_that_converts_it(
    standard_input, encoding: str, name: str
):
    standard_input(TEXT.encode(encoding))
    with pytest.raises(SlmError, match=f"iconv -f {name} ") as error:
        read_prompt("-")
    assert error.value.code == "E_PROMPT"


def test_a_mark_before_a_configuration_or_a_chat_template_is_no_part_of_it(tmp_path: Path):
    (tmp_path / "c.toml").write_text('data = "d"\noutput = "o"\nseq_len = 32\n', encoding="utf-8-sig")
    assert load_config(tmp_path / "c.toml").seq_len == 32
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8-sig")
    assert ModelFolder(tmp_path).chat_template == "{{ messages }}"


def test_a_configuration_in_utf16_is_told_as_such(tmp_path: Path):
    (tmp_path / "c.toml").write_text("seq_len = 32\n", encoding="utf-16")
    with pytest.raises(SlmError, match="UTF-16") as error:
        load_config(tmp_path / "c.toml")
    assert error.value.code == "E_CONFIG"
