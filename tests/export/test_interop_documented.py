"""The programs of docs/OUTRAS_FERRAMENTAS.md, as they stand there, write what `ptbr-slm generate` writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import export_gguf

import ptbr_slm

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "OUTRAS_FERRAMENTAS.md"


@pytest.mark.parametrize("module", ["transformers", "onnxruntime_genai", "llama_cpp"])
def test_a_documented_program_runs_and_writes_our_greedy_text(module, make_model, tmp_path, capsys):
    pytest.importorskip(module, reason="roda o programa do guia; veja docs/OUTRAS_FERRAMENTAS.md")
    programs = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (program,) = [text for text in programs if f"import {module}" in text or f"from {module}" in text]
    model = make_model(max_seq_len=1024, seed=8)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "final").symlink_to(model)
    if module == "onnxruntime_genai":
        export_model(model, tmp_path / "runs/x/genai", target="genai", precision="fp32", verify=False)
    if module == "llama_cpp":
        export_gguf(model, tmp_path / "modelo.gguf", "fp32")
        program = program.replace("max_tokens=64", "max_tokens=64, temperature=0.0")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(compile(program, "guia", "exec"), {})
    finally:
        os.chdir(before)
    with ptbr_slm.load(model, device="cpu") as ours:
        text = ours.generate("O Brasil é", max_new_tokens=64, temperature=0.0)
    assert len(text) > 20 and text[:40] in capsys.readouterr().out
