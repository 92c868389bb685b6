"""Which text a model is measured on, and in which windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import UNCOUNTED, held_out_windows
from ptbr_slm.eval.held_out import BUILT_IN, TOKENS, WINDOW, built_in_text, held_out_text, run_settings
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer


def test_the_built_in_text_is_read_from_its_beginning_to_its_end(tokenizer):
    text = built_in_text(tokenizer, 64, tokens=10_000)
    windows = list(text.windows())
    assert {len(inputs) for inputs, _ in windows[:-1]} == {64}
    whole = [int(windows[0][0][0]), *(int(i) for _, targets in windows for i in targets if i != UNCOUNTED)]
    assert tokenizer.decode(whole).startswith("A feira da rua Doze começa antes do sol.")
    assert tokenizer.decode(whole).endswith("ela era só nossa.")


def settings_of(model: ModelFolder, text: str) -> None:
    (model.path.parent / "config.resolved.toml").write_text(text)


def test_the_text_is_the_one_named_or_the_runs_own_or_ours(prepared, model):
    assert held_out_text(model).name == BUILT_IN
    named = held_out_text(model, data=prepared)
    assert named.name == str(prepared) and named.inputs.shape[1] == min(WINDOW, 80)
    settings_of(model, f'data = "{prepared}"\n')
    assert held_out_text(model).name == str(prepared)
    settings_of(model, 'data = "/nada/dados"\n')
    assert run_settings(model.path).data == Path("/nada/dados")
    assert held_out_text(model).name == BUILT_IN


def test_a_checkpoint_lies_in_its_run_too(prepared, model, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000500"
    checkpoint.parent.mkdir()
    model.path.rename(checkpoint)
    (tmp_path / "run" / "config.resolved.toml").write_text(f'data = "{prepared}"\n')
    assert held_out_text(ModelFolder(checkpoint)).name == str(prepared)


@pytest.mark.parametrize("tokens", [512, 10**6])
def test_the_windows_are_those_of_the_runs_own_evaluation(prepared, model, tokenizer, tokens):
    settings_of(model, f'data = "{prepared}"\nseq_len = 24\n[evaluation]\ntokens = {tokens}\n')
    split = PreparedData.open(prepared).split("valid")
    trained = held_out_windows(split, tokenizer, 24, min(tokens, TOKENS))
    found = held_out_text(model)
    assert np.array_equal(found.inputs, trained.inputs) and np.array_equal(found.targets, trained.targets)
    assert found.bytes == trained.bytes and found.data_sha256 == PreparedData.open(prepared).sha256


@pytest.mark.parametrize("text", ["data = 3", "seq_len = -1", "evaluation = 5", "nada", "seq_len = 1.5"])
def test_settings_of_another_hand_are_not_believed(model, text):
    settings_of(model, text)
    assert run_settings(model.path).seq_len is None
    assert held_out_text(model).name == BUILT_IN


def test_data_of_another_tokenizer_are_refused(prepared, texts, model, tmp_path):
    prepare([prepared.parent / "0.txt", prepared.parent / "1.txt"], tmp_path / "outros",
            Tokenizer.train(texts, 300), valid_fraction=0.4)  # fmt: skip
    with pytest.raises(SlmError) as caught:
        held_out_text(model, data=tmp_path / "outros")
    assert caught.value.code == "E_TOKENIZER_MISMATCH"
