"""After a killed writer only what carries our mark, its lock free, is cleaned up; what is not ours stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.storage import temporary
from ptbr_slm.storage.atomic import (
    atomic_file,
    atomic_folder,
    discard,
    may_replace,
    remove_leftovers,
    scratch_folder,
    write_bytes,
)
from ptbr_slm.storage.lock import run_lock
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.storage.record import foreign_files, kind_of, recorded_files
from ptbr_slm.train.run_folder import check_run_folder, is_our_checkpoint

WRITER = """
import os, pathlib, signal, sys, time
from ptbr_slm.storage import atomic, temporary
from ptbr_slm.storage.manifest import write_manifest
target, content, where = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "between the renames":
    original = pathlib.Path.rename
    def rename(self, goal):
        if self.name == "new":
            die()
        return original(self, goal)
    pathlib.Path.rename = rename
elif where == "after the renames":
    atomic.recover = die
elif where == "before the renames":
    atomic.publish_folder = die
with atomic.atomic_folder(target) as folder:
    (folder / content).write_text(content)
    write_manifest(folder, "export")
    if where == "alive":
        print("writing", flush=True)
        time.sleep(60)
"""


def write(target: Path, content: str, where: str = "") -> int:
    """A real process that writes a folder, and may be killed on the way."""
    return subprocess.run([sys.executable, "-c", WRITER, target, content, where], check=False).returncode


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.glob(".tmp-*"))


def test_temporary_folders_of_the_user_stay_and_a_pid_without_end_is_no_overflow(tmp_path):
    (tmp_path / ".tmp-fotos-2019").mkdir()
    (tmp_path / ".tmp-fotos-2019" / "praia.jpg").write_text("foto")
    (tmp_path / ".tmp-x-99999999999999999999").touch()
    (tmp_path / ".tmp-d-999999").mkdir()
    (tmp_path / ".tmp-d-0123456789ab").mkdir()
    (tmp_path / ".tmp-d-0123456789ab" / "meu.txt").write_text("meu")
    (tmp_path / ".tmp-d-abcdefabcdef").write_text("um arquivo")
    before = tree(tmp_path)
    with atomic_folder(tmp_path / "d") as folder:
        (folder / "a").touch()
    remove_leftovers(tmp_path)
    assert tree(tmp_path) == sorted([*before, "d/a"]) and (tmp_path / ".tmp-d-999999").is_dir()


MARKED = {"kind": "temporary", "ptbr_slm": "1", "folder": ".tmp-d-0123456789ab", "for": "d", "inside": False}
OF_OTHERS = [
    {"folder": ".tmp-d-000000000000"},
    {"for": "../d"},
    {"kind": "x"},
    {"inside": 0},
    {"ptbr_slm": None},
]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"pid": 3}', *(json.dumps(MARKED | other) for other in OF_OTHERS)]
)
def test_a_folder_whose_mark_is_not_one_we_wrote_in_it_stays(tmp_path, content):
    folder = tmp_path / ".tmp-d-0123456789ab"
    folder.mkdir()
    (folder / temporary.MARK).write_text(content)
    (folder / "meu.txt").write_text("meu")
    remove_leftovers(tmp_path)
    assert tree(folder) == ["meu.txt", temporary.MARK]


@pytest.mark.parametrize("where", ["before the renames", "between the renames", "after the renames"])
def test_kill_9_at_any_moment_leaves_one_whole_folder_and_the_next_writer_cleans_up(tmp_path, where):
    target = tmp_path / "d"
    assert write(target, "velho") == 0
    (target / "minhas notas.txt").write_text("meu")
    assert write(target, "novo", where) == -signal.SIGKILL
    assert len(temporaries(tmp_path)) == 1
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    survived = "novo" if where == "after the renames" else "velho"
    assert tree(tmp_path) == [f"d/{name}" for name in sorted([survived, "manifest.json", "minhas notas.txt"])]


def test_a_living_writer_is_left_alone_and_both_may_write_the_same_place(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "d", "outro", "alive"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        (theirs,) = temporaries(tmp_path)
        remove_leftovers(tmp_path)
        with atomic_folder(tmp_path / "d") as folder:
            (folder / "nosso").touch()
        assert (theirs / "new" / "outro").read_text() == "outro"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    remove_leftovers(tmp_path)
    assert tree(tmp_path) == ["d/nosso"]


def test_another_pid_namespace_does_not_make_a_living_writer_look_dead(tmp_path):
    """Its process has an id that no process here has: only the lock tells that it lives."""
    apart = ["unshare", "-r", "-p", "-f", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("precisa de permissão para um espaço de PIDs próprio (unshare)")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "d", "dentro", "alive"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        (theirs,) = temporaries(tmp_path)
        done = subprocess.run([*apart, sys.executable, "-c", WRITER, tmp_path / "d", "fora", ""], check=False)
        assert done.returncode == 0 and (theirs / "new" / "dentro").read_text() == "dentro"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert tree(tmp_path / "d") == ["fora", "manifest.json"]


def test_kill_9_while_files_are_written_leaves_nothing_that_is_not_cleaned_up(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from ptbr_slm.storage.atomic import write_bytes\n"
        "print('go', flush=True)\n"
        "while True: write_bytes(pathlib.Path(sys.argv[1]), b'x' * 9)\n"
    )
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "f"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.007 * attempt)
        process.kill()
        process.wait()
        process.stdout.close()
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} <= {"f"}


def test_a_writer_killed_before_its_mark_leaves_an_empty_folder_that_goes(tmp_path):
    (tmp_path / ".tmp-d-0123456789ab").mkdir()
    (tmp_path / ".tmp-d-ba9876543210").mkdir()
    (tmp_path / ".tmp-d-ba9876543210" / temporary.MARK).touch()
    remove_leftovers(tmp_path, "d")
    assert list(tmp_path.iterdir()) == []


def test_only_leftovers_of_the_same_output_go(tmp_path):
    assert write(tmp_path / "d-2", "x", "before the renames") == -signal.SIGKILL
    assert write(tmp_path / "e", "x", "before the renames") == -signal.SIGKILL
    before = temporaries(tmp_path)
    with atomic_folder(tmp_path / "d") as folder:
        (folder / "a").touch()
    assert temporaries(tmp_path) == before
    remove_leftovers(tmp_path)
    assert tree(tmp_path) == ["d/a"]


def test_a_link_that_looks_like_a_leftover_is_not_followed(tmp_path):
    (tmp_path / "minhas").mkdir()
    (tmp_path / "minhas" / "tese.txt").write_text("tese")
    (tmp_path / ".tmp-d-0123456789ab").symlink_to("minhas")
    work = temporary.create(tmp_path, "d")
    (work.path / "atalho").symlink_to(tmp_path / "minhas")
    work.release()
    remove_leftovers(tmp_path)
    assert (tmp_path / "minhas" / "tese.txt").exists() and not work.path.exists()
    assert (tmp_path / ".tmp-d-0123456789ab").is_symlink()


def test_files_that_we_did_not_write_survive_the_replacement_of_their_folder(tmp_path):
    with atomic_folder(tmp_path / "d") as folder:
        for name in ("a", "b"):
            write_bytes(folder / name, b"1")
        write_manifest(folder, "export")
    (tmp_path / "d" / "sub").mkdir()
    (tmp_path / "d" / "sub" / "tese.txt").write_text("tese")
    (tmp_path / "d" / "atalho").symlink_to("nada")
    with atomic_folder(tmp_path / "d") as folder:
        write_bytes(folder / "a", b"2")
        write_manifest(folder, "export")
    assert tree(tmp_path) == ["d/a", "d/atalho", "d/manifest.json", "d/sub/tese.txt"]
    assert (tmp_path / "d" / "a").read_bytes() == b"2"


def test_a_record_that_points_outside_its_folder_names_nothing_there(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "tese.txt").write_text("tese")
    body = {"schema": 1, "kind": "export", "files": {"../tese.txt": {}, str(tmp_path / "tese.txt"): {}}}
    (tmp_path / "d" / "manifest.json").write_text(json.dumps(body))
    assert kind_of(tmp_path / "d") == "export" and "../tese.txt" in recorded_files(tmp_path / "d")
    with atomic_folder(tmp_path / "d") as folder:
        write_bytes(folder / "a", b"2")
    assert (tmp_path / "tese.txt").read_text() == "tese"


@pytest.mark.parametrize("name", ["index.json", "manifest.json"])
@pytest.mark.parametrize("body", ['{"a": 1}', "[]", "{", '{"kind": "export", "files": []}'])
def test_a_folder_with_an_index_or_a_manifest_of_another_program_may_not_be_replaced(tmp_path, name, body):
    (tmp_path / name).write_text(body)
    assert not may_replace(tmp_path, "export") and not may_replace(tmp_path, "prepared-data")


def test_scratch_folders_of_killed_processes_go_at_the_next_call(tmp_path):
    code = (
        "import os, pathlib, signal, sys\n"
        "from ptbr_slm.storage.atomic import scratch_folder\n"
        "with scratch_folder(pathlib.Path(sys.argv[1]), 'x') as folder:\n"
        "    (folder / 'grande').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert len(temporaries(tmp_path)) == 1
    with scratch_folder(tmp_path, "x") as folder:
        assert temporaries(tmp_path) == [folder.parent]
    assert list(tmp_path.iterdir()) == []


def checkpoint(folder: Path, kind: str = "checkpoint") -> Path:
    folder.mkdir(parents=True)
    (folder / "pesos").touch()
    write_manifest(folder, kind)
    return folder


def test_only_a_checkpoint_whose_manifest_names_every_file_is_deleted(tmp_path):
    assert is_our_checkpoint(checkpoint(tmp_path / "step-00000001"))
    assert not is_our_checkpoint(checkpoint(tmp_path / "step-00000002", "model"))
    with_notes = checkpoint(tmp_path / "step-00000003")
    (with_notes / "notas.txt").touch()
    assert foreign_files(with_notes) == ["notas.txt"] and not is_our_checkpoint(with_notes)
    (tmp_path / "step-00000004").symlink_to("step-00000001")
    assert not is_our_checkpoint(tmp_path / "step-00000004")
    bare = tmp_path / "step-00000005"
    bare.mkdir()
    assert not is_our_checkpoint(bare)


def test_a_discarded_folder_goes_whole(tmp_path):
    discard(checkpoint(tmp_path / "step-00000001"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["final/tese.txt", "report/lido.txt", "metrics.jsonl", "micro_batch.json",
                                  "checkpoints/step-00000100/pesos", "lock"])  # fmt: skip
def test_a_run_does_not_begin_where_it_would_replace_what_is_not_its_own(tmp_path, name):
    file = tmp_path / "projeto" / name
    file.parent.mkdir(parents=True)
    file.write_text("meu")
    with pytest.raises(SlmError) as caught:
        check_run_folder(tmp_path / "projeto")
    assert caught.value.code == "E_EXISTS" and name.split("/")[0] in caught.value.message
    assert "--output" in caught.value.hint and file.read_text() == "meu"


def test_a_run_begins_beside_other_files_and_goes_on_in_its_own_folder(tmp_path):
    check_run_folder(tmp_path / "nova")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "texto.txt").touch()
    (tmp_path / "checkpoints").mkdir()
    check_run_folder(tmp_path)
    with run_lock(tmp_path / "lock"):
        (tmp_path / "metrics.jsonl").write_text("{}\n")
    check_run_folder(tmp_path)


def test_a_lock_file_of_another_program_is_not_overwritten(tmp_path):
    (tmp_path / "lock").write_text("de outro programa")
    with pytest.raises(SlmError) as caught, run_lock(tmp_path / "lock"):
        pass
    assert caught.value.code == "E_EXISTS" and (tmp_path / "lock").read_text() == "de outro programa"


def test_a_process_that_forked_and_died_leaves_no_deadlock(tmp_path):
    """A child that outlives its parent holds the lock: nothing is cleaned up while it may still write."""
    if not hasattr(os, "fork"):
        pytest.skip("precisa de fork")
    code = (
        "import os, pathlib, sys, time\n"
        "from ptbr_slm.storage import temporary\n"
        "temporary.create(pathlib.Path(sys.argv[1]), 'd')\n"
        "child = os.fork()\n"
        "print(child, flush=True) if child else (os.close(1), time.sleep(60))\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, check=True, timeout=20
    )
    child = int(done.stdout)
    try:
        remove_leftovers(tmp_path)
        assert len(temporaries(tmp_path)) == 1
    finally:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while temporaries(tmp_path) and time.monotonic() < deadline:
        remove_leftovers(tmp_path)
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_a_file_of_the_same_temporary_name_is_never_reused(tmp_path):
    mine = tmp_path / f".tmp-f-{os.getpid()}"
    mine.write_text("meu")
    with atomic_file(tmp_path / "f") as file:
        file.write_text("nosso")
    assert mine.read_text() == "meu" and (tmp_path / "f").read_text() == "nosso"
