"""What models side by side are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.naming import check_names, named, names_of


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["runs/meu/export-int8", "runs/meu/export-fp32", "runs/outro/export"]
    names = names_of([Path(path) for path in paths])
    assert names == ["meu/export-int8", "meu/export-fp32", "outro"]
    check_names(names)


def test_one_folder_twice_is_refused(tmp_path):
    with pytest.raises(SlmError) as caught:
        check_names(names_of([tmp_path / "x" / "export"] * 2))
    assert caught.value.code == "E_USAGE"


def test_a_named_model_is_a_name_and_a_folder():
    assert named("conversa=runs/a=b/export") == ("conversa", Path("runs/a=b/export"))
    for wrong in ("runs/x", "x="):
        with pytest.raises(SlmError) as caught:
            named(wrong)
        assert caught.value.code == "E_USAGE"
