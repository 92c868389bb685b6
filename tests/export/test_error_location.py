"""What `onde:` of an export's error names is there when the error is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import export_gguf

from ptbr_slm.errors import SlmError


def test_onde_of_an_export_that_failed_its_check_is_the_model(tied, tmp_path, monkeypatch):
    import ptbr_slm_export.quantization.quantizer as module

    right = module.quantize
    monkeypatch.setattr(module, "quantize", lambda *a: replace(found := right(*a), scales=found.scales * 1.5))
    with pytest.raises(SlmError) as caught:
        export_model(tied, tmp_path / "e", precision="int8")
    assert (caught.value.code, caught.value.where) == ("E_VERIFY", str(tied))


def test_onde_of_an_error_amid_an_export_names_no_temporary_folder(tied, tmp_path, monkeypatch):
    import ptbr_slm_export.export as module

    def fail(folder: Path, *_: object) -> None:
        raise SlmError(
            "E_MODEL_INVALID", f"{folder / 'x'} não abre.", where=folder / "x", hint=f"ls {folder}"
        )

    monkeypatch.setattr(module, "compare", fail)
    with pytest.raises(SlmError) as caught:
        export_model(tied, tmp_path / "e", precision="fp32")
    assert caught.value.where == str(tmp_path / "e") and ".tmp" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_onde_of_a_gguf_that_failed_its_check_is_the_model(tied, tmp_path, monkeypatch):
    import ptbr_slm_export.gguf.file as module

    monkeypatch.setattr(module, "_WORST", dict.fromkeys(module._WORST, -1.0))
    with pytest.raises(SlmError) as caught:
        export_gguf(tied, tmp_path / "e.gguf")
    assert (caught.value.code, caught.value.where) == ("E_VERIFY", str(tied))
