"""As many checkpoints as the disk allows, on real tiny disks where one may mount them, and pretended ones."""

from __future__ import annotations

import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import mounted

from ptbr_slm import faults
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.train.checkpoint import files, retention
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state
from ptbr_slm.train.checkpoint.retention import check_room, disk_space, drop_old, ensure_space
from ptbr_slm.train.config import AUTO
from ptbr_slm.train.run import train

Usage = namedtuple("Usage", "total used free")
MB = 10**6


@pytest.fixture(autouse=True)
def _forget_faults():
    faults.reset()
    yield
    faults.reset()


def checkpoints(folder: Path, count: int, size: int = MB) -> list[Path]:
    """Complete folders step-1.. of about `size` bytes, newest first."""
    for step in range(1, count + 1):
        made = folder / f"step-{step:08d}"
        made.mkdir(parents=True)
        (made / "data").write_bytes(bytes(size))
        write_manifest(made, "checkpoint", step=step)
    return list_checkpoints(folder)


def pretend(monkeypatch, folder: Path, total: int) -> None:
    """A disk of `total` bytes, filled by what lies in `folder`."""

    def usage(_):
        used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        return Usage(total, used, total - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def names(folder: Path) -> list[int]:
    return [int(p.name[5:]) for p in list_checkpoints(folder)]


def test_auto_keeps_all_on_a_large_disk_but_no_more_than_twenty(tmp_path, monkeypatch):
    found = checkpoints(tmp_path, 24, 1000)
    pretend(monkeypatch, tmp_path, 10**12)
    drop_old(tmp_path, found, 1000, AUTO)
    assert names(tmp_path) == list(range(24, 4, -1))


def test_auto_leaves_room_for_the_next_one_the_final_model_and_a_share_of_the_disk(tmp_path, monkeypatch):
    found = checkpoints(tmp_path, 8)
    pretend(monkeypatch, tmp_path, 10 * MB)
    drop_old(tmp_path, found, MB, AUTO)
    assert names(tmp_path) == [8, 7, 6, 5, 4, 3, 2, 1]
    pretend(monkeypatch, tmp_path, 9 * MB)
    drop_old(tmp_path, found, MB, AUTO)
    assert names(tmp_path) == [8, 7, 6, 5, 4, 3, 2]
    assert disk_space(tmp_path).free >= MB + MB // 3 + 0.05 * 9 * MB


def test_the_newest_and_the_protected_one_stay_even_on_a_full_disk(tmp_path, monkeypatch):
    found = checkpoints(tmp_path, 5)
    pretend(monkeypatch, tmp_path, 5 * MB + 5000)
    drop_old(tmp_path, found, 3 * MB, AUTO, protected=["step-00000002"])
    assert names(tmp_path) == [5, 2]
    drop_old(tmp_path, list_checkpoints(tmp_path), MB, 1)
    assert names(tmp_path) == [5]


def test_a_number_keeps_that_number(tmp_path):
    drop_old(tmp_path, checkpoints(tmp_path, 5, 10), 10, 3)
    assert names(tmp_path) == [5, 4, 3]


def test_room_for_a_new_one_is_made_of_the_oldest_and_never_of_the_newest_whole_one(tmp_path, monkeypatch):
    found = checkpoints(tmp_path, 4)
    (found[0] / "data").write_bytes(b"half")  # the newest is broken
    pretend(monkeypatch, tmp_path, 4 * MB)
    ensure_space(tmp_path, found, 2 * MB, AUTO)
    assert names(tmp_path) == [4, 3]
    with pytest.raises(SlmError) as caught:
        ensure_space(tmp_path, list_checkpoints(tmp_path), 4 * MB, AUTO)
    assert caught.value.code == "E_DISK_FULL" and 3 in names(tmp_path)
    assert "4 MB" in caught.value.message and "livres" in caught.value.message


def test_with_a_number_nothing_is_removed_to_free_space(tmp_path, monkeypatch):
    found = checkpoints(tmp_path, 3)
    pretend(monkeypatch, tmp_path, 3 * MB + 3000)
    with pytest.raises(SlmError):
        ensure_space(tmp_path, found, MB, 3)
    assert names(tmp_path) == [3, 2, 1]


def test_in_kaggles_working_folder_its_20_gb_count_and_not_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_KAGGLE_ROOT", str(tmp_path))
    monkeypatch.setattr(retention, "KAGGLE_OUTPUT_BYTES", 5 * MB)
    folder = tmp_path / "working" / "runs" / "x" / "checkpoints"
    found = checkpoints(folder, 4)
    (tmp_path / "working" / "other.bin").write_bytes(bytes(MB // 2))
    assert disk_space(folder).free < MB < disk_space(tmp_path).free
    drop_old(folder, found, MB, AUTO)
    assert names(folder) == [4, 3]


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A real tmpfs of 4 MiB."""
    with mounted(tmp_path / "disk", kib=4096) as folder:
        yield folder


BIG = {"model.intermediate_size": 256, "max_steps": 12, "checkpoint.every": 2}
"""A checkpoint of about 1.7 MB: one fits a disk of 4 MB, and then the foreseen size does not."""


def test_on_a_tiny_disk_the_run_stops_with_bytes_and_its_last_checkpoint_whole(settings, tiny_disk):
    config = settings({**BIG, "output": tiny_disk / "run", "model.hidden_size": 128})
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.exit_code == 5 and "MB" in caught.value.message
    assert not list(config.output.rglob(".tmp-*")), "no stump"
    for checkpoint in list_checkpoints(config.output / "checkpoints"):
        read_state(checkpoint)


def test_a_disk_that_fills_up_in_the_middle_of_a_checkpoint_leaves_the_one_before(
    settings, tiny_disk, monkeypatch
):
    """Another program takes the space after it was measured."""
    config = settings({**BIG, "output": tiny_disk / "run"})
    original, filler = retention.disk_space, tiny_disk / "filler"

    def measured_too_early(folder):
        found = original(folder)
        if len(list_checkpoints(folder)) == 1 and not filler.exists():
            free = shutil.disk_usage(tiny_disk).free
            filler.write_bytes(bytes(free - 600_000))
            return retention.DiskSpace(found.total, 10**9)
        return found

    monkeypatch.setattr(retention, "disk_space", measured_too_early)
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == "E_DISK_FULL" and caught.value.exit_code == 5
    (kept,) = list_checkpoints(config.output / "checkpoints")
    assert read_state(kept).step == 2 and not list(config.output.rglob(".tmp-*"))
    monkeypatch.undo()
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=32m", tiny_disk], check=True)
    assert train(config).step == 12


@pytest.mark.parametrize("point", ["checkpoint.after_weights", "checkpoint.after_optimizer"])
def test_no_space_left_while_writing_is_exit_5_and_the_checkpoint_before_stays(settings, monkeypatch, point):
    monkeypatch.setenv("PTBR_SLM_FAULT", f"enospc@{point}:2")
    config = settings({"checkpoint.every": 2})
    with pytest.raises(SlmError) as caught:
        train(config)
    assert (caught.value.code, caught.value.exit_code) == ("E_DISK_FULL", 5)
    (kept,) = list_checkpoints(config.output / "checkpoints")
    assert read_state(kept).step == 2 and not list(config.output.rglob(".tmp-*"))
    faults.reset()
    monkeypatch.delenv("PTBR_SLM_FAULT")
    assert train(config).status == "done"


def test_auto_is_the_default_and_a_run_keeps_all_of_a_few(settings):
    config = settings({"checkpoint.every": 1})
    assert config.checkpoint.keep == AUTO
    train(config)
    assert names(config.output / "checkpoints") == [8, 7, 6, 5, 4, 3, 2, 1]


SHARE = 2.10
"""Checkpoints of 800m in the 20 GB that Kaggle keeps: 20e9 / (12 · 792.4e6)."""


def model_folder(path: Path, kind: str, weights: bytes, moments: int = 0) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(weights)
    if moments:
        (path / "moments").write_bytes(bytes(moments))
    write_manifest(path, kind)
    return path


@pytest.fixture
def continued(tmp_path, monkeypatch) -> Path:
    """A run's checkpoints at the proportions of 800m: one, and a final model of the same weights."""
    folder = tmp_path / "run" / "checkpoints"
    model_folder(folder / "step-00000010", "checkpoint", bytes(4 * MB), 8 * MB)
    model_folder(tmp_path / "run" / "final", "model", bytes(4 * MB))
    pretend(monkeypatch, tmp_path, int(SHARE * 12 * MB))
    return folder


@pytest.mark.parametrize("keep", [AUTO, 1])
def test_a_final_model_that_the_checkpoint_repeats_makes_room_for_the_next_one(continued, keep):
    final = continued.parent / "final"
    assert disk_space(continued).free < 12 * MB
    check_room(continued, list_checkpoints(continued), 12 * MB, keep)
    assert final.exists(), "looking removes nothing"
    ensure_space(continued, list_checkpoints(continued), 12 * MB, keep)
    assert not final.exists() and names(continued) == [10]


def test_a_final_model_that_fits_stays(continued):
    ensure_space(continued, list_checkpoints(continued), 9 * MB, AUTO)
    assert (continued.parent / "final").exists()


@pytest.mark.parametrize("change", ["cooled", "a note", "a link", "another's"])
def test_a_final_model_of_its_own_stays_and_the_error_names_it(continued, change, tmp_path):
    final = continued.parent / "final"
    if change == "a note":
        (final / "notas.txt").write_text("meu")
    else:
        shutil.rmtree(final)
        if change == "cooled":
            model_folder(final, "model", bytes(4 * MB - 1) + b"1")
        elif change == "another's":
            final.mkdir()
            (final / "model.safetensors").write_bytes(bytes(4 * MB))
        else:
            model_folder(tmp_path / "elsewhere", "model", bytes(4 * MB))
            final.symlink_to(tmp_path / "elsewhere")
    for look in (check_room, ensure_space):
        with pytest.raises(SlmError) as caught:
            look(continued, list_checkpoints(continued), 12 * MB, AUTO)
        assert caught.value.code == "E_DISK_FULL"
        assert (str(final) in caught.value.hint) is (change == "cooled")
    assert (final / "model.safetensors").exists()


def test_where_even_a_repeated_final_model_makes_too_little_room_the_error_does_not_blame_it(continued):
    with pytest.raises(SlmError) as caught:
        check_room(continued, list_checkpoints(continued), 40 * MB, AUTO)
    assert "df -h" in caught.value.hint and "final" not in caught.value.hint
    assert (continued.parent / "final").exists()


def test_a_run_that_is_made_longer_goes_on_where_its_final_model_fills_the_disk(
    settings, tmp_path, monkeypatch
):
    config = settings({"max_steps": 4, "checkpoint.every": 2, "checkpoint.keep": 1})
    train(config)
    run = config.output
    size = sum(p.stat().st_size for p in (run / "checkpoints").rglob("*") if p.is_file())
    monkeypatch.setattr(files, "checkpoint_bytes", lambda *_: size)
    other = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file() and run not in p.parents)
    pretend(monkeypatch, tmp_path, int(SHARE * size) + other)
    longer = {"max_steps": 8, "checkpoint.every": 2, "checkpoint.keep": 1, "allow_config_change": True}
    result = train(settings(longer))
    assert result.status == "done" and result.step == 8 and (run / "final" / "model.safetensors").exists()
