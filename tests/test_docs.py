"""Every figure and every command of the Kaggle pages and the scripts is true."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptbr_slm.bench.gpu import agreement, card, exports, training
from ptbr_slm.bench.gpu.check import SECTIONS
from ptbr_slm.cli.plan_tables import FITS, POLICIES, decode_data
from ptbr_slm.config import SIZES
from ptbr_slm.text import number
from ptbr_slm.train.checkpoint.retention import BYTES_PER_PARAMETER
from ptbr_slm.train.planning.memory import GIB, estimate
from ptbr_slm.train.planning.recommend import fit
from ptbr_slm.train.planning.speed import flops_per_token

ROOT = Path(__file__).resolve().parents[1]
CUDA, GPU = ROOT / "docs" / "CUDA.md", ROOT / "docs" / "GPU.md"
GUIDE, CHECKLIST = ROOT / "docs" / "KAGGLE_QUICK_START.md", ROOT / "docs" / "KAGGLE_CHECKLIST.md"
ROW = re.compile(r"^\| (\d+m) \| (\d+) \| (\d+) \| (\d+) \| (\w+) \| ([\d,]+) \| ([\w ]+) \| (\w+) \|$", re.M)


@pytest.fixture(scope="module")
def cli_docs() -> dict[str, Any]:
    """The names of scripts/generate_cli_docs.py."""
    return runpy.run_path(str(ROOT / "scripts" / "generate_cli_docs.py"))


@pytest.mark.parametrize("page", [GUIDE, CHECKLIST], ids=lambda page: page.stem)
def test_every_memory_figure_of_the_kaggle_pages_is_what_info_computes(page):
    rows = ROW.findall(page.read_text(encoding="utf-8"))
    assert {row[0] for row in rows} == {"85m", "400m", "800m"}
    for size, batch, _, seq_len, policy, gib, fits, status in rows:
        e = estimate(
            SIZES[size],
            batch_size=int(batch),
            seq_len=int(seq_len),
            checkpoint_every=POLICIES[policy],
            precision="fp16",
            optimizer="muon",
        )
        assert gib == number(e.total / GIB, 2), (size, batch, seq_len, policy)
        assert fits == FITS[fit(e)] and status == "calculado"


def test_the_other_figures_of_the_guide_are_computed_too():
    text = GUIDE.read_text(encoding="utf-8")
    for size in ("85m", "400m", "800m"):
        assert f"{number(BYTES_PER_PARAMETER * SIZES[size].num_parameters / 1e9, 2)} GB" in text
    e = estimate(
        SIZES["800m"], batch_size=1, seq_len=1024, checkpoint_every=1, precision="fp16", optimizer="muon"
    )
    assert f"{number((e.weights + e.gradients + e.optimizer) / GIB, 2)} GiB" in text
    assert f"{number(16 * SIZES['800m'].num_parameters / GIB, 2)} GiB" in text  # with AdamW
    gflop = flops_per_token(SIZES["400m"], 256, checkpoint_every=1) / 1e9
    assert f"{number(gflop, 2)} GFLOP" in text
    assert f"de {number(11 / gflop, 1)} a {number(17 / gflop, 1)} mil tokens por segundo" in text
    for size, keep in (("400m", 2), ("800m", 1)):  # the new checkpoint is written before the oldest goes
        peak = (keep + 1) * BYTES_PER_PARAMETER * SIZES[size].num_parameters / 1e9
        assert f"{number(peak, 1)} GB" in text


def test_the_writing_speeds_of_the_cuda_page_are_what_info_computes():
    row = r"^\| (\d+m) \| ([\d.]+)(?: tokens/s)? \| ([\d.]+) \| ([\d.]+) \|$"
    rows = re.findall(row, CUDA.read_text(encoding="utf-8"), re.M)
    assert [row[0] for row in rows] == ["85m", "400m", "800m"]
    for size, *speeds in rows:
        assert speeds == [number(row["tokens_per_second"]) for row in decode_data(SIZES[size])], size


@pytest.mark.parametrize("page", [CUDA, GUIDE, CHECKLIST], ids=lambda page: page.stem)
def test_the_command_that_computes_them_stands_above_every_table_of_computed_figures(page):
    text = page.read_text(encoding="utf-8")
    tables = [block for block in re.split(r"\n\n", text) if re.search(r"^\| (\d+m) \|", block, re.M)]
    assert tables
    for table in tables:
        above = text[: text.index(table)].rstrip().rsplit("\n\n", 1)[1]
        assert re.search(r"`ptbr-slm (info --model-size|plan --hours) \w+", above), table


def test_every_section_of_the_check_and_every_tolerance_is_explained():
    text = GPU.read_text(encoding="utf-8")
    for section in SECTIONS:
        minutes = number(section.most_s / 60, 1).removesuffix(",0")
        assert re.search(rf"^\| `{section.name}` \| {minutes} min \|", text, re.M), section
    shares = (
        agreement.AMP_TOLERANCE, agreement.LEAST_LEARNED, training.MEMORY_TOLERANCE,
        agreement.RANKS_TOLERANCE, card.MOST, training.LEAST_MFU,
    )  # fmt: skip
    for share in shares:
        assert f"{number(100 * share, 1).removesuffix(',0')} %" in text
    assert number(agreement.LEAST_SPEED_UP, 1) in text and number(exports.LEAST_GAIN, 2) in text


def test_the_diagrams_are_drawn_from_the_code_as_it_is():
    check = [sys.executable, str(ROOT / "scripts" / "diagrams"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_docs_eventos_md_is_made_from_the_classes():
    made = runpy.run_path(str(ROOT / "scripts" / "generate_events_docs.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["render"](), (
        "python scripts/generate_events_docs.py"
    )


def test_docs_cli_md_is_the_help_of_every_verb(cli_docs, monkeypatch):
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        rendered = cli_docs["render"]()
        assert cli_docs["PAGE"].read_text(encoding="utf-8") == rendered, "python scripts/generate_cli_docs.py"


def used_commands() -> list[tuple[str, list[str]]]:
    """(command words, its flags) of every call of ours in the pages and the scripts."""
    found = []
    script = r"(?:-m ptbr_slm|(?<![-\w])slm|Invoke-Slm|\bmeasured|Invoke-Measured) ([a-z][^`\n|]*)"
    page = r"(?:^!?|[`!])ptbr-slm ([a-z][^`\n|]*)"  # prose names us without a command
    for file in [
        GUIDE,
        CHECKLIST,
        CUDA,
        GPU,
        *sorted((ROOT / "docs" / "tutoriais").glob("*.md")),
        *sorted((ROOT / "scripts").glob("*.sh")),
        *(ROOT / "scripts").glob("*.ps1"),
    ]:
        text = re.sub(r"\\\n", " ", file.read_text(encoding="utf-8"))
        calls = re.findall(page if file.suffix == ".md" else script, text, re.M)
        for call in calls:
            words = re.match(r"(?:(?:data|tokenizer|kaggle|bench) )?[a-z][a-z-]*", call)
            assert words is not None
            found.append((words[0], re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", call)))
    return found


def test_every_command_of_the_pages_and_scripts_exists_with_its_flags(cli_docs):
    known = {" ".join(words): cli_docs["help_of"](words) for words in cli_docs["commands"]()}
    used = used_commands()
    assert {"train", "data prepare", "export", "verify", "generate", "info", "doctor"} <= {u[0] for u in used}
    for words, flags in used:
        assert words in known, words
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", known[words]), f"{words} {flag}"
