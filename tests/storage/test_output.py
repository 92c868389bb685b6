"""Outputs through links, on mount points, in the current folder, below a folder that may not be written to.

They work, or are refused by name; the same in every verb, since every verb writes through `storage.atomic`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_file, atomic_folder, may_replace, write_bytes, write_text
from ptbr_slm.storage.lock import run_lock
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.storage.output import is_mount, make_folder

HERE = Path()

WRITER = """
import os, pathlib, signal, sys
from ptbr_slm.errors import SlmError
from ptbr_slm.storage import atomic, temporary
from ptbr_slm.storage.manifest import write_manifest
target, names, kill = pathlib.Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3:]
if kill:  # after so many files took their places
    left, original = [int(kill[0])], pathlib.Path.replace
    def replace(self, goal):
        if ".tmp-" in str(self) and pathlib.Path(goal).parent == target.resolve():
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return original(self, goal)
    pathlib.Path.replace = replace
try:
    with atomic.atomic_folder(target) as folder:
        for name in names:
            (folder / name).write_text(sys.argv[2])
        write_manifest(folder, "export")
except SlmError as error:
    sys.exit(f"{error.code}: {error.message}")
"""


def write(target: Path, names: str) -> None:
    with atomic_folder(target) as folder:
        for name in names.split():
            (folder / name).write_text(names)
        write_manifest(folder, "export")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def refusal(action: Callable[[], object]) -> SlmError:
    with pytest.raises(SlmError) as caught:
        action()
    assert caught.value.code != "E_INTERNAL"
    return caught.value


@pytest.fixture
def mounting() -> list[str]:
    """The start of a command that may mount file systems which no other process sees, or a skip."""
    command = ["unshare", "-r", "-m"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("precisa de permissão para montar (unshare -rm)")
    return command


def test_a_link_as_the_output_stays_a_link_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "disco").mkdir()
    (tmp_path / "disco" / "alvo").mkdir()
    (tmp_path / "aqui").mkdir()
    (tmp_path / "aqui" / "link").symlink_to("../disco/alvo")
    for names in ("a b", "a c"):
        write(tmp_path / "aqui" / "link", names)
        assert (tmp_path / "aqui" / "link").is_symlink()
        assert tree(tmp_path / "disco" / "alvo") == [*names.split(), "manifest.json"]
    assert names_in(tmp_path / "aqui") == ["link"] and names_in(tmp_path / "disco") == ["alvo"]


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "velho.json").write_text("1")
    (tmp_path / "link").symlink_to("velho.json")
    write_bytes(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "velho.json").read_text() == "2"


def test_a_link_to_a_folder_that_is_yet_to_be_made_makes_it(tmp_path):
    (tmp_path / "link").symlink_to("alvo")
    write(tmp_path / "link", "a")
    assert tree(tmp_path / "alvo") == ["a", "manifest.json"] and (tmp_path / "link").is_symlink()
    (tmp_path / "run").symlink_to("treino")
    with run_lock(tmp_path / "run" / "lock"):
        assert (tmp_path / "treino" / "lock").is_file()


@pytest.mark.parametrize("goal", ["sumiu/alvo", "link"])
@pytest.mark.parametrize("below", ["", "sub"])
def test_a_link_to_nowhere_or_to_itself_is_refused_by_name(tmp_path, goal, below):
    (tmp_path / "link").symlink_to(goal)
    place = tmp_path / "link" / below if below else tmp_path / "link"
    for action in (lambda: write(place, "a"), lambda: write_bytes(place, b""), lambda: make_folder(place)):
        error = refusal(action)
        assert error.code == "E_NOT_FOUND" and "link" in error.message + error.where
    assert names_in(tmp_path) == ["link"]


def test_the_current_folder_as_the_output_stays_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "aqui").mkdir()
    monkeypatch.chdir(tmp_path / "aqui")
    number = HERE.stat().st_ino
    for names in ("a b", "a c"):
        assert may_replace(HERE, "export")
        write(HERE, names)
        assert HERE.stat().st_ino == (tmp_path / "aqui").stat().st_ino == number
        assert tree(tmp_path) == [f"aqui/{name}" for name in (*names.split(), "manifest.json")]
        read_manifest(HERE)
    (tmp_path / "aqui" / "sub").mkdir()
    monkeypatch.chdir("sub")
    write(Path(".."), "a d")
    assert tree(tmp_path) == ["aqui/a", "aqui/d", "aqui/manifest.json"]


def test_an_error_leaves_a_folder_that_is_written_into_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(HERE, "a b")
    (tmp_path / "meu.txt").write_text("meu")
    with pytest.raises(RuntimeError), atomic_folder(HERE) as folder:
        (folder / "a").write_text("metade")
        raise RuntimeError
    assert tree(tmp_path) == ["a", "b", "manifest.json", "meu.txt"] and (tmp_path / "a").read_text() == "a b"


@pytest.mark.parametrize("files", [0, 1, 2])
def test_kill_9_while_files_take_their_places_is_finished_by_the_next_writer(tmp_path, files):
    """The manifest comes last, so that the folder does not pass for whole in between."""
    command = [sys.executable, "-c", WRITER, "."]
    subprocess.run([*command, "a b velho"], cwd=tmp_path, check=True)
    (tmp_path / "meu.txt").write_text("meu")
    killed = subprocess.run([*command, "a b", str(files)], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(SlmError):
        read_manifest(tmp_path) if files else refuse()
    assert may_replace(tmp_path, "export")
    assert tree(tmp_path) == ["a", "b", "manifest.json", "meu.txt"]
    read_manifest(tmp_path)


def refuse() -> None:
    """Nothing has taken its place yet: the old folder is whole, and that is right, too."""
    raise SlmError("E_MANIFEST", "", hint="")


def test_where_a_file_would_take_the_place_of_a_users_folder_nothing_is_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(HERE, "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "meu.txt").write_text("meu")
    error = refusal(lambda: write(HERE, "b"))
    assert error.code == "E_EXISTS" and error.where.endswith("b")
    assert tree(tmp_path) == ["a", "b/meu.txt", "manifest.json"]
    read_manifest(HERE)


@pytest.mark.parametrize("mount", ["mount -t tmpfs none m", "mount --bind fonte m"])
def test_a_mount_point_as_the_output_is_written_into(tmp_path, mounting, mount):
    (tmp_path / "fonte").mkdir()
    (tmp_path / "m").mkdir()
    script = f"{mount} && " + " && ".join(
        f"{sys.executable} -c \"$1\" m '{names}' && ls -A m" for names in ("a b", "a c")
    )
    done = subprocess.run(
        [*mounting, "sh", "-ec", script, "sh", WRITER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["a", "b", "manifest.json", "a", "c", "manifest.json"]
    assert names_in(tmp_path) == ["fonte", "m"]


def test_a_mounted_file_is_refused_by_name(tmp_path, mounting):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    code = (
        "from pathlib import Path\n"
        "from ptbr_slm.storage.atomic import write_bytes\n"
        "write_bytes(Path('b'), b'2')\n"
    )
    done = subprocess.run(
        [*mounting, "sh", "-ec", 'mount --bind a b && "$1" -c "$2"', "sh", sys.executable, code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "E_EXISTS" in done.stderr and "ponto de montagem" in done.stderr
    assert (tmp_path / "a").read_text() == "a" and names_in(tmp_path) == ["a", "b"]


def without_override() -> None:
    """In a child: permission bits count for root, too (CAP_DAC_OVERRIDE leaves the bounding set)."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.fixture
def locked_parent(tmp_path: Path):
    """fora/dentro: the inner folder may be written to, the outer may not."""
    if not sys.platform.startswith("linux"):
        pytest.skip("precisa de Linux")
    (tmp_path / "fora" / "dentro").mkdir(parents=True)
    (tmp_path / "fora").chmod(0o555)
    yield tmp_path / "fora"
    (tmp_path / "fora").chmod(0o755)


def test_a_writable_folder_below_one_that_is_not_is_written_into(locked_parent):
    for names in ("a b", "a c"):
        done = subprocess.run(
            [sys.executable, "-c", WRITER, locked_parent / "dentro", names],
            preexec_fn=without_override, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert tree(locked_parent) == [f"dentro/{name}" for name in (*names.split(), "manifest.json")]


def test_a_new_folder_in_one_that_may_not_be_written_to_is_refused_by_name(locked_parent):
    done = subprocess.run(
        [sys.executable, "-c", WRITER, locked_parent / "outra", "a"],
        preexec_fn=without_override, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("E_PERMISSION: ")
    assert names_in(locked_parent) == ["dentro"]


def test_a_pipe_a_device_and_a_folder_are_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pasta").mkdir()
    (tmp_path / "nulo").symlink_to(os.devnull)
    for place in ("pipe", "pasta", "nulo"):
        assert refusal(lambda place=place: write_bytes(tmp_path / place, b"x")).code == "E_EXISTS"
    assert (tmp_path / "pipe").is_fifo() and Path(os.devnull).is_char_device()
    assert len(names_in(tmp_path)) == 3


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "f").write_text("meu")
    for action in (lambda: write(tmp_path / "f", "a"), lambda: write(tmp_path / "f" / "x", "a"),
                   lambda: make_folder(tmp_path / "f" / "x")):  # fmt: skip
        error = refusal(action)
        assert error.code == "E_EXISTS" and error.where == str(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "meu"


def test_a_file_that_fails_leaves_no_empty_parents(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a" / "b" / "f"):
        raise RuntimeError
    assert names_in(tmp_path) == []


def test_a_name_as_long_as_file_systems_allow_is_written(tmp_path):
    name = "é" * 127
    write(tmp_path / name, "a")
    write_bytes(tmp_path / (name[:-1] + ".x"), b"1")
    assert len(names_in(tmp_path)) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="lê /proc")
def test_mount_points_are_known_by_name():
    assert is_mount(Path("/proc")) and not is_mount(Path("/proc/self"))


@pytest.fixture(scope="module")
def texts_and_tokenizer(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> tuple[Path, Path]:
    from ptbr_slm.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("textos")
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"{number} " + " ".join(texts), encoding="utf-8")
    file = tmp_path_factory.mktemp("tok") / "tokenizer.json"
    write_text(file, Tokenizer.train(texts, 300).to_json())
    return folder, file


def test_data_prepare_writes_through_a_link_and_into_the_current_folder(
    tmp_path, texts_and_tokenizer, cli: Callable
):
    texts, tokenizer = texts_and_tokenizer
    (tmp_path / "alvo").mkdir()
    (tmp_path / "link").symlink_to("alvo")
    for place, cwd in (("link", tmp_path), (".", tmp_path / "alvo")):
        done = cli("data", "prepare", texts, "-o", place, "--tokenizer", tokenizer, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert names_in(tmp_path) == ["alvo", "link"] and (tmp_path / "link").is_symlink()
    assert (tmp_path / "alvo" / "index.json").is_file()


def test_data_prepare_does_not_replace_a_web_site_with_an_index_json(
    tmp_path, texts_and_tokenizer, cli: Callable
):
    texts, tokenizer = texts_and_tokenizer
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.json").write_text(json.dumps({"pages": []}))
    (tmp_path / "site" / "tese.txt").write_text("tese")
    done = cli("data", "prepare", texts, "-o", "site", "--tokenizer", tokenizer)
    assert done.returncode == 1 and "E_EXISTS" in done.stderr
    assert names_in(tmp_path / "site") == ["index.json", "tese.txt"]


def test_tokenizer_train_does_not_replace_a_file_that_is_no_tokenizer(
    tmp_path, texts_and_tokenizer, cli: Callable
):
    texts, _ = texts_and_tokenizer
    (tmp_path / "tese.doc").write_text("anos de trabalho")
    command = ("tokenizer", "train", texts, "--vocab-size", "300", "-o")
    done = cli(*command, "tese.doc")
    assert done.returncode == 1 and "E_EXISTS" in done.stderr
    assert (tmp_path / "tese.doc").read_text() == "anos de trabalho"
    for _ in range(2):  # one that is there is replaced
        assert cli(*command, "t.json").returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="usa /proc")
def test_a_folder_in_which_nothing_can_be_made_ends_with_an_answer():
    """procfs says that what is to be made does not exist, as often as one tries."""
    assert refusal(lambda: write(Path("/proc/nada"), "a")).code in ("E_NOT_FOUND", "E_PERMISSION")
