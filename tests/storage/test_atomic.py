"""Atomic writes, manifests and locks, with real processes and real kills."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_file, atomic_folder, remove_leftovers, write_bytes, write_json
from ptbr_slm.storage.lock import run_lock
from ptbr_slm.storage.manifest import read_manifest, write_manifest


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"v": 1})
    with pytest.raises(RuntimeError), atomic_file(file) as temporary:
        temporary.write_text("metade")
        raise RuntimeError
    assert json.loads(file.read_text()) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path):
    with atomic_folder(tmp_path / "d") as folder:
        write_bytes(folder / "x", b"1")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as folder:
        write_bytes(folder / "x", b"2")
        raise RuntimeError
    assert (tmp_path / "d" / "x").read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_failed_folder_leaves_no_empty_parents(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a" / "b" / "d"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path):
    for content in (b"1", b"2"):
        with atomic_folder(tmp_path / "d") as folder:
            write_bytes(folder / content.decode(), content)
            write_manifest(folder, "export")
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["2", "manifest.json"]


def test_files_are_readable_by_others_whatever_the_library_did(tmp_path):
    with atomic_file(tmp_path / "f") as temporary:
        temporary.touch(mode=0o600)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644 & ~umask


def test_kill_9_while_writing_never_leaves_a_half_file(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from ptbr_slm.storage.atomic import write_bytes\n"
        "print('go', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    write_bytes(pathlib.Path(sys.argv[1]), bytes([n % 256]) * 300_000)\n"
    )
    file = tmp_path / "f"
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = file.read_bytes() if file.exists() else b""
        assert content == content[:1] * len(content) and len(content) in (0, 300_000)
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"f"}


def test_manifest_names_the_truncated_the_flipped_and_the_missing(tmp_path):
    write_bytes(tmp_path / "w.bin", b"abcdef")
    write_manifest(tmp_path, "model", note="x")
    assert read_manifest(tmp_path).extra["note"] == "x"
    for damage, said in ((b"abc", "bytes"), (b"abcdeg", "sha256"), (None, "falta")):
        if damage is None:
            (tmp_path / "w.bin").unlink()
        else:
            (tmp_path / "w.bin").write_bytes(damage)
        with pytest.raises(SlmError, match=said) as caught:
            read_manifest(tmp_path, code="E_CHECKPOINT_CORRUPT")
        assert caught.value.code == "E_CHECKPOINT_CORRUPT"


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"schema": 1, "kind": "m", "files": {"a": 3}}', "\x00\x01"]
)
def test_a_broken_manifest_is_an_answer_not_a_traceback(tmp_path, body):
    (tmp_path / "manifest.json").write_text(body)
    with pytest.raises(SlmError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code == "E_MANIFEST"


def test_a_newer_schema_and_a_path_outside_are_refused(tmp_path):
    write_json(tmp_path / "manifest.json", {"schema": 99, "kind": "model", "files": {}})
    with pytest.raises(SlmError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code == "E_SCHEMA"
    outside = {"../x": {"size": 1, "sha256": "0"}}
    write_json(tmp_path / "manifest.json", {"schema": 1, "kind": "model", "files": outside})
    with pytest.raises(SlmError, match="fora da pasta"):
        read_manifest(tmp_path)


def test_the_second_writer_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from ptbr_slm.storage.lock import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(SlmError, match=str(holder.pid)) as caught, run_lock(lock):
        pass
    assert caught.value.code == "E_LOCKED"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with run_lock(lock):
        pass


def test_a_read_only_folder_is_an_answer(tmp_path):
    if os.geteuid() == 0:
        target = "/proc/nada/x.json"  # root ignores permission bits; procfs refuses even root
    else:
        tmp_path.chmod(0o500)
        target = str(tmp_path / "x.json")
    with pytest.raises(SlmError) as caught:
        from pathlib import Path

        write_json(Path(target), {})
    assert caught.value.code in ("E_PERMISSION", "E_NOT_FOUND")
