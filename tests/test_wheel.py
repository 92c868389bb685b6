"""What lands in site-packages."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_two_packages_their_types_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {n for n in top if not n.endswith(".dist-info")} == {"ptbr_slm", "ptbr_slm_export"}
    assert {"ptbr_slm/py.typed", "ptbr_slm_export/py.typed"} <= set(names)


def test_the_wheel_holds_the_demonstration_model_whole(wheel):
    archive, folder = zipfile.ZipFile(wheel), ROOT / "ptbr_slm" / "demo" / "machado"
    held = {name: archive.read(name) for name in archive.namelist() if "/demo/machado/" in name}
    assert held == {f"ptbr_slm/demo/machado/{file.name}": file.read_bytes() for file in folder.iterdir()}
    assert Path(wheel).stat().st_size < 8_000_000


def test_an_installed_wheel_answers_help(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where = subprocess.run(
        [sys.executable, "-c", "import ptbr_slm, ptbr_slm_export; print(ptbr_slm.__file__)"],
        capture_output=True, text=True, check=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert where.stdout.startswith(str(target))
    done = subprocess.run(
        [sys.executable, "-m", "ptbr_slm", "--help"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "quickstart" in done.stdout
