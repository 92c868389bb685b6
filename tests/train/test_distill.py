"""Learning from a teacher's stored predictions: written once, read by any run, refused where not its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from listeners import StopAfter
from tiny_models import write_model
from tiny_runs import arguments, records, write_texts

from ptbr_slm.config import ModelConfig
from ptbr_slm.data import teacher_logits as store
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.teacher_logits import TeacherFacts, TeacherLogits
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config import DistillConfig, TrainConfig
from ptbr_slm.train.run import train
from ptbr_slm.train.spec import TextData
from ptbr_slm.train.teacher import write_teacher_logits

K = 8
CONTEXT = 32


def shape(vocabulary: int, context: int = CONTEXT) -> ModelConfig:
    return ModelConfig(vocab_size=vocabulary, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1,
                       head_dim=16, intermediate_size=48, max_seq_len=context)  # fmt: skip


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, tokenizer_file: Path) -> Path:
    """A random model whose predictions are far from even; 4 rows of its embedding have no token."""
    folder, tokenizer = tmp_path_factory.mktemp("teacher") / "professor", Tokenizer.load(tokenizer_file)
    config = shape(tokenizer.vocab_size + 4)
    weights = Llama(config).initialize(1).to_hf_weights()
    return write_model(folder, config, tokenizer, {name: 4 * w for name, w in weights.items()})


@pytest.fixture(scope="session")
def logits(tmp_path_factory, teacher: Path, prepared: PreparedData) -> TeacherLogits:
    return write_teacher_logits(teacher, prepared.folder, tmp_path_factory.mktemp("logits") / "de", top_k=K)


@pytest.fixture
def distilled(settings: Callable[..., TrainConfig], logits: TeacherLogits) -> Callable[..., TrainConfig]:
    """Settings of a run that learns from the teacher."""
    return lambda values=None: settings({"distill.logits": logits.folder, **(values or {})})


def fails(code: str, call: Callable[[], object]) -> SlmError:
    with pytest.raises(SlmError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


# What is written.


def test_records_are_the_models_predictions(teacher, prepared, logits) -> None:
    """Of a few positions, recomputed alone: with all of the document that the teacher's block saw."""
    model, split = Llama.from_folder(teacher).eval(), prepared.split("train")
    offsets, step = split.document_offsets(), CONTEXT - CONTEXT // 4
    for position in (0, 5, step - 1, step, 100, split.tokens - 1):
        block = position // step * step
        document = int(offsets[np.searchsorted(offsets, position, side="right") - 1])
        begin = max(0, block - CONTEXT // 4, document)
        with torch.no_grad():
            row = model(torch.from_numpy(split.read(begin, position + 1))[None])[0, -1]
        expected = torch.log_softmax(row[: logits.facts.vocab_size].double(), -1)
        ids, found = (part[0] for part in logits.read(position, position + 1))
        best = expected.topk(K)
        assert ids.tolist() == best.indices.tolist()
        np.testing.assert_allclose(found[:-1], best.values, rtol=1e-3, atol=1e-3)
        assert np.exp(found.astype(np.float64)).sum() == pytest.approx(1.0, abs=2e-3)


def test_a_record_is_as_large_as_the_documentation_says(logits) -> None:
    facts = asdict(logits.facts)
    assert TeacherFacts(**facts | {"top_k": 32}).dtype.itemsize == 130
    assert TeacherFacts(**facts | {"top_k": 32, "vocab_size": 70_000}).dtype.itemsize == 194


def test_a_killed_writer_goes_on_and_the_bytes_are_the_same(
    teacher, prepared, logits, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(store, "SHARD_RECORDS", 2000)
    output, whole = tmp_path / "killed", tmp_path / "whole"
    expected = write_teacher_logits(teacher, prepared.folder, whole, top_k=K)
    assert len(list(expected.facts.shards())) > 3
    write, written = store.write_records, list[str]()

    def dies(folder: Path, name: str, found: store.Records) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(folder, name, found)

    monkeypatch.setattr(store, "write_records", dies)
    with pytest.raises(KeyboardInterrupt):
        write_teacher_logits(teacher, prepared.folder, output, top_k=K)
    assert "completas" in fails("E_NOT_FOUND", lambda: TeacherLogits.open(output)).message
    (output / written[1]).write_bytes(b"half")  # as a copy that broke off leaves it
    seen = list[int]()
    monkeypatch.setattr(store, "write_records", write)
    found = write_teacher_logits(teacher, prepared.folder, output, top_k=K, progress=seen.append)
    assert found.sha256 == expected.sha256
    assert seen[0] == expected.facts.shard_records and seen[-1] == expected.facts.tokens
    assert seen == sorted(seen)
    # Files of another size hold the same records.
    for ours, theirs in zip(found.read(1500, 4700), logits.read(1500, 4700), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_finished_is_not_made_again(teacher, prepared, logits, monkeypatch) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in logits.folder.iterdir() if "bin" in file.name}
    again = write_teacher_logits(teacher, prepared.folder, logits.folder, top_k=K)
    after = {file.name: file.stat().st_mtime_ns for file in logits.folder.iterdir() if "bin" in file.name}
    assert again.sha256 == logits.sha256 and before == after


def test_a_folder_of_something_else_is_left_alone(teacher, prepared, logits, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("minhas notas")
    fails("E_EXISTS", lambda: write_teacher_logits(teacher, prepared.folder, tmp_path))
    told = fails("E_EXISTS", lambda: write_teacher_logits(teacher, prepared.folder, logits.folder, top_k=3))
    assert "top_k" in told.message
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_bad_settings_are_refused(teacher, prepared, tmp_path) -> None:
    def write(**settings: int) -> object:
        return write_teacher_logits(teacher, prepared.folder, tmp_path / "out", **settings)  # type: ignore[arg-type]

    fails("E_SEQ_LEN", lambda: write(context=CONTEXT + 1))
    fails("E_CONFIG", lambda: write(top_k=0))
    fails("E_CONFIG", lambda: write(top_k=300))
    assert not (tmp_path / "out").exists()


# Which data and which teacher.


def test_a_teacher_with_another_tokenizer_is_refused(prepared, texts, tmp_path, monkeypatch) -> None:
    other = Tokenizer.train(texts, 280)
    folder = write_model(tmp_path / "other", shape(other.vocab_size), other)
    output = tmp_path / "out"
    fails("E_TOKENIZER_MISMATCH", lambda: write_teacher_logits(folder, prepared.folder, output))
    assert not output.exists()


def test_predictions_of_other_data_are_refused(distilled, logits, texts, tokenizer_file, tmp_path) -> None:
    others = write_texts(tmp_path / "texts", texts, seed=9)
    data = prepare([others], tmp_path / "data", Tokenizer.load(tokenizer_file), valid_fraction=0.2)
    fails("E_DATA_CORRUPT", lambda: train(distilled({"data": data.folder})))
    small = Tokenizer.train(texts, 280)
    data = prepare([others], tmp_path / "small", small, valid_fraction=0.2)
    fails("E_TOKENIZER_MISMATCH", lambda: train(distilled({"data": data.folder})))


def test_a_folder_without_predictions_is_told(settings, tmp_path) -> None:
    fails("E_NOT_FOUND", lambda: train(settings({"distill.logits": tmp_path / "nowhere"})))
    (tmp_path / "facts.json").write_text("{}")
    fails("E_DATA_CORRUPT", lambda: train(settings({"distill.logits": tmp_path})))


@pytest.mark.parametrize("fault", ["an id", "a probability", "truncated"])
def test_altered_predictions_are_told(distilled, teacher, prepared, tmp_path, fault) -> None:
    found = write_teacher_logits(teacher, prepared.folder, tmp_path / "logits", top_k=K)
    file = found.folder / "logits-00000.bin"
    content = np.fromfile(file, found.facts.dtype)
    if fault == "an id":
        content["ids"][:, 0] = 60_000
    elif fault == "a probability":
        content["log_probabilities"][:, 0] = np.nan
    content[: -1 if fault == "truncated" else None].tofile(file)
    fails("E_DATA_CORRUPT", lambda: train(distilled({"distill.logits": found.folder})))
    fails("E_DATA_CORRUPT", lambda: TeacherLogits.open(found.folder, verify=True))


# The run.


def test_windows_come_with_the_predictions_of_their_own_tokens(distilled, prepared, logits) -> None:
    config = distilled()
    batch = TextData(prepared, logits).batches(config).sequences([range(3, 7), range(9, 10)], slice(1, 5))
    split = prepared.split("train")
    for row in range(len(batch)):
        text = batch.tokens[row].tolist()
        start = next(s for s in range(split.tokens - 16) if split.read(s, s + 16).tolist() == text)
        ids, log_probabilities = logits.read(start, start + 16)
        np.testing.assert_array_equal(batch.teacher_ids[row], ids)
        np.testing.assert_array_equal(batch.teacher_log_probabilities[row], log_probabilities)
    assert [len(part) for part in batch.split(3)] == [3, 1]
    np.testing.assert_array_equal(batch.split(3)[1].teacher_ids, batch.teacher_ids[3:])


def test_a_student_comes_closer_to_its_teacher(distilled, settings, teacher, prepared, tmp_path) -> None:
    def divergence(model: Path) -> float:
        """KL(teacher || student) in nats a token."""
        tokens = torch.from_numpy(prepared.split("train").read(0, 480)).view(-1, 16)
        with torch.no_grad():
            theirs = torch.log_softmax(Llama.from_folder(teacher)(tokens)[..., :300], -1)
            ours = torch.log_softmax(Llama.from_folder(model)(tokens), -1)
        return float((theirs.exp() * (theirs - ours)).sum(-1).mean())

    taught = train(distilled({"max_steps": 20, "distill.weight": 1.0})).model
    alone = train(settings({"max_steps": 20, "output": tmp_path / "alone"})).model
    assert divergence(taught) < 0.5 * divergence(alone)
    noted = ModelFolder(taught).manifest
    assert noted is not None
    assert noted.extra["distilled_from"] == {
        "teacher": "professor",
        "teacher_sha256": ModelFolder(teacher).sha256,
        "top_k": K,
        "weight": 1.0,
        "temperature": 1.0,
    }
    assert noted.extra["held_out"]["data_sha256"] == prepared.sha256


def test_without_weight_the_run_is_the_one_without_teacher(distilled, settings, tmp_path) -> None:
    train(settings({"loss": "chunked"}))
    config = distilled({"distill.weight": 0.0, "output": tmp_path / "zero"})
    train(config)
    ours, theirs = ([(r["loss"], r["grad_norm"]) for r in records(tmp_path / run)] for run in ("zero", "run"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_stop_and_resume_give_the_run_that_was_never_stopped(distilled, tmp_path, weights) -> None:
    train(distilled({"distill.temperature": 2.0}))
    config = distilled({"distill.temperature": 2.0, "output": tmp_path / "stopped"})
    assert train(config, StopAfter(step=3)).status == "stopped"
    assert train(config).status == "done"
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final")


def test_a_run_goes_on_only_with_the_same_teacher_and_weight(
    distilled, settings, teacher, prepared, tmp_path
) -> None:
    train(distilled(), StopAfter(step=3))
    fails("E_DATA_CORRUPT", lambda: train(settings()))
    fewer = write_teacher_logits(teacher, prepared.folder, tmp_path / "fewer", top_k=2)
    fails("E_DATA_CORRUPT", lambda: train(distilled({"distill.logits": fewer.folder})))
    fails("E_CONFIG_CHANGED", lambda: train(distilled({"distill.weight": 0.9})))


def test_a_micro_batch_of_any_size_gives_the_same_step(distilled, tmp_path) -> None:
    """Also with a document mask; and no sentence is said of a first loss that is not ln V."""
    found = {}
    for size in (1, 4):
        output = tmp_path / str(size)
        more = {"batch_size": size, "grad_accum": 4 // size, "output": output, "data.document_mask": True}
        listener = StopAfter(step=2)
        train(distilled({**more, "distill.weight": 1.0}), listener)
        assert not [w for w in listener.named("warned") if w["code"] == "first_loss"]
        found[size] = [(r["loss"], r["grad_norm"]) for r in records(output)]
    np.testing.assert_allclose(found[1], found[4], rtol=1e-4)


def test_the_rate_is_found_on_the_same_loss(distilled) -> None:
    from ptbr_slm.train.find_lr import find_lr

    test = find_lr(distilled({"distill.weight": 1.0}), steps=3)
    assert len(test.points) == 3 and test.points[0].loss < 4.0  # ln V is 5.7


def test_settings_are_kept_in_the_run(distilled, logits) -> None:
    result = train(distilled({"max_steps": 1}))
    text = (result.run / "config.resolved.toml").read_text(encoding="utf-8")
    assert f"logits = {json.dumps(str(logits.folder))}" in text and 'loss = "chunked"' in text
    assert DistillConfig().weight == 0.5


def test_a_tuning_learns_from_a_teachers_text_instead(teacher, logits, tmp_path) -> None:
    from ptbr_slm.tune.config import tune_config

    values = {"data": tmp_path, "output": tmp_path / "out", "distill.logits": logits.folder}
    assert "destilar_texto" in fails("E_USAGE", lambda: tune_config(teacher, values)).hint


# The command.


def test_command_writes_tells_the_size_and_the_next_step(run, teacher, prepared, tmp_path) -> None:
    done = run("data", "teacher-logits", teacher, prepared.folder, "-o", "out", "--top-k", 4, check=True)
    assert "18 bytes cada" in done.stdout
    assert "--teacher-logits out --output runs/aluno" in done.stdout
    run(*arguments(prepared.folder, tmp_path / "a", max_steps=1), "--teacher-logits", "out", check=True)
    assert "distilled_from" in (tmp_path / "a" / "final" / "manifest.json").read_text()
    refused = run("data", "teacher-logits", prepared.folder, teacher, "-o", "other")
    assert refused.returncode == 1 and not (tmp_path / "other").exists()
