"""Threads: physical cores unless asked otherwise."""

from __future__ import annotations

import os

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers.cpu import thread_count
from ptbr_slm.system import physical_cores


def test_hyper_threads_count_once_and_a_container_quota_counts(tmp_path, monkeypatch):
    for cpu in range(8):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert physical_cores(tmp_path, quota) == 4
    quota.write_text("max 100000\n")
    assert physical_cores(tmp_path, quota) == 4
    quota.write_text("200000 100000\n")
    assert physical_cores(tmp_path, quota) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4}, raising=False)
    assert physical_cores(tmp_path, quota) == 1


def test_a_system_that_does_not_tell_counts_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert physical_cores(tmp_path, tmp_path / "cpu.max") == 3


def test_the_environment_overrides_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    monkeypatch.delenv("PTBR_SLM_THREADS", raising=False)
    assert thread_count() == 3
    monkeypatch.setenv("PTBR_SLM_THREADS", "5")
    assert thread_count() == 5
    monkeypatch.setenv("PTBR_SLM_THREADS", "muitas")
    with pytest.raises(SlmError) as error:
        thread_count()
    assert error.value.code == "E_CONFIG"
