"""Training a tokenizer: words without end, Ctrl-C, and texts that fail on the way."""

from __future__ import annotations

import os
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as _Library

from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer import training as tokenizer_training
from ptbr_slm.tokenizer.training import LONGEST_RUN, bounded


def letters(count: int, alphabet: str = string.ascii_lowercase, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=count))


@pytest.mark.parametrize("alphabet", [string.ascii_lowercase, "!?.,;:-=+*#@$%", " \t", "a", "ção日本語"])
def test_400_kb_without_a_space_keep_the_trainer_busy_for_seconds_not_minutes(alphabet: str):
    began = time.process_time()
    tokenizer = Tokenizer.train([letters(400_000, alphabet)], 1_000)
    assert time.process_time() - began < 20
    assert tokenizer.vocab_size > 261


def test_a_line_of_2_mb_in_base64_does_not_make_training_crawl(texts: list[str]):
    line = letters(2_000_000, string.ascii_letters + string.digits + "+/")
    began = time.process_time()
    Tokenizer.train([*texts, line], 2_000)
    assert time.process_time() - began < 30


def test_ordinary_texts_train_the_same_tokenizer_as_the_library_alone(texts, monkeypatch: pytest.MonkeyPatch):
    many = [*texts, *(letters(60, seed=i) + " e fim." for i in range(300))]
    monkeypatch.setattr(tokenizer_training, "_BATCH_CHARACTERS", 500)
    ours = Tokenizer.train(many, 500)

    def alone(inner: _Library, given: list[str], trainer: object) -> int:
        inner.train_from_iterator(given, trainer)
        return 1

    monkeypatch.setattr("ptbr_slm.tokenizer.training.train_from", alone)
    assert ours.to_json() == Tokenizer.train(many, 500).to_json()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "ç", " ", "\n", "!", "_", "1", "日"]), max_size=6), st.randoms())
def test_pieces_give_the_text_back_and_only_endless_runs_are_cut(units: list[str], pick: random.Random):
    runs = [unit * pick.choice([1, 3, LONGEST_RUN, LONGEST_RUN + 1, 3 * LONGEST_RUN]) for unit in units]
    text = "".join(runs)
    pieces = list(bounded(text))
    assert "".join(pieces) == text
    if all(len(run) <= LONGEST_RUN // 8 for run in runs):
        assert pieces == [text]


def test_a_text_that_fails_ends_the_training_with_its_own_error():
    def failing() -> Iterator[str]:
        yield "um texto bom"
        raise OSError("o disco sumiu")

    with pytest.raises(OSError, match="o disco sumiu"):
        Tokenizer.train(failing(), 300)


def test_an_error_of_the_library_is_raised_where_training_was_asked_for():
    with pytest.raises(UnicodeEncodeError):
        Tokenizer.train(["bom", "meio emoji \ud83d"], 300)


def open_for_writing(pipe: Path, reader: subprocess.Popen[str]) -> TextIO:
    """`pipe`, once `reader` has opened it: opening it would wait for ever for a reader that has failed."""
    while True:
        assert reader.poll() is None, reader.communicate()
        try:
            number = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.05)
            continue
        os.set_blocking(number, True)
        return os.fdopen(number, "w")


@pytest.mark.skipif(os.name != "posix", reason="precisa de SIGINT e de um pipe com nome (POSIX)")
@pytest.mark.parametrize("phase", ["reading", "merging"])
def test_ctrl_c_is_answered_at_once(tmp_path: Path, phase: str):
    pipe = tmp_path / "cano.txt"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        "-m",
        "ptbr_slm",
        "tokenizer",
        "train",
        str(pipe),
        "-o",
        str(tmp_path / "t.json"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        with open_for_writing(pipe, process) as file:
            file.write(letters(1_500_000, string.ascii_lowercase + "    "))
            file.flush()
            if phase == "merging":
                file.close()
            time.sleep(1)  # a signal between two readings of a pipe would wait for the next text
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            process.wait(timeout=30)
        assert time.monotonic() - began < 5
        assert process.returncode == 130
        assert process.stderr is not None and "Interrompido." in process.stderr.read()
    assert not (tmp_path / "t.json").exists()
