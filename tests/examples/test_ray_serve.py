"""The Ray Serve example: a replica alone in every run; a cluster of two, one killed under load, when asked.

A Ray of its own takes from 25 s to minutes to start on two cores that others use too, so the cluster
waits for PTBR_SLM_TEST_RAY=1.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier

import openai
import psutil
import pytest
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.process.server import Running, listen
from ptbr_slm.tokenizer import Tokenizer

pytest.importorskip("ray.serve", reason='pip install "ptbr-slm[ray-serve]"', exc_type=ImportError)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "scale" / "ray_serve.py"
KEY = "chave-de-teste"
LONG = 700
"""Tokens of a text that is still being written when its replica dies."""
PROMPTS = ["O rio", "Maria abriu", "As crianças", "A biblioteca", "Ninguém sabia", "O trem", "A rua", "O avô"]

needs_ray = pytest.mark.skipif(
    os.environ.get("PTBR_SLM_TEST_RAY") != "1", reason="um cluster Ray demora: PTBR_SLM_TEST_RAY=1"
)


@pytest.fixture(scope="module")
def export(tmp_path_factory, texts) -> Path:
    from ptbr_slm_export import export_model

    folder = tmp_path_factory.mktemp("ray")
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=96,
        max_seq_len=1024,
        tie_embeddings=False,
    )
    write_model(folder / "modelo", config, tokenizer, random_weights(config, 7, scale=6))
    export_model(folder / "modelo", folder / "export", precision="fp32", verify=False)
    return folder / "export"


def client(url: str, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", **{"api_key": KEY, "timeout": 60, **options})


def check_conformance(url: str, text: str) -> None:
    """List, whole text, stream and errors. text: what the engine writes after "O rio", greedily."""
    asked = {"model": "pequeno", "prompt": "O rio", "max_tokens": 20, "temperature": 0}
    with client(url, max_retries=0) as api:
        assert [each.id for each in api.models.list()] == ["pequeno"]
        answer = api.completions.create(**asked)
        [choice] = answer.choices
        assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 20)
        assert choice.text and text.startswith(choice.text)
        chunks = [chunk.choices[0] for chunk in api.completions.create(**asked, stream=True)]
        assert "".join(chunk.text for chunk in chunks) == choice.text
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
        with pytest.raises(openai.NotFoundError) as no_such:
            api.completions.create(**asked | {"model": "outro"})
        assert no_such.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as too_long:
            api.completions.create(**asked | {"prompt": "rio " * 2000})
        assert too_long.value.code == "context_length_exceeded"
    with client(url, max_retries=0, api_key="errada") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.completions.create(**asked)


def test_a_replica_is_the_whole_server(export: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PTBR_SLM_API_KEY", KEY)
    monkeypatch.setenv("PTBR_SLM_THREADS", "1")
    replica_class = runpy.run_path(str(EXAMPLE))["Replica"]
    replica = replica_class(export, "pequeno", 1, "127.0.0.1", None)
    try:
        text = replica.served.model.generate("O rio", max_new_tokens=20, temperature=0)
        app = replica.__serve_build_asgi_app__()
        with listen("127.0.0.1", 0) as listening, Running(app, listening, replica.config):
            check_conformance(f"http://127.0.0.1:{listening.getsockname()[1]}", text)
        replica.check_health()
        replica.check_health()  # nothing runs: no step is no fault
        stuck = replace(replica.served.model.load_figures(), running=1)
        monkeypatch.setattr(replica.served.model, "load_figures", lambda: stuck)
        with pytest.raises(RuntimeError, match="passo"):
            replica.check_health()
    finally:
        replica.served.model.close()


@dataclass(frozen=True)
class Cluster:
    """The example, running."""

    process: subprocess.Popen[str]
    url: str
    texts: dict[str, str]
    """Prompt -> what the engine itself writes, greedily, in LONG tokens."""

    def replicas(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in family if each.name().startswith("ray::ServeRepli")]


@pytest.fixture(scope="module")
def cluster(export: Path, tmp_path_factory) -> Iterator[Cluster]:
    with Model(export) as model:
        written = model.generate(PROMPTS, max_new_tokens=LONG, temperature=0)
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")]),
        "HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
        "PTBR_SLM_API_KEY": KEY,
    }
    options = ["--name", "pequeno", "--replicas", "2", "--threads", "1", "--port", str(port)]
    with (home / "saída").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), str(export), *options],
            env=environment, stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 240
            while "Servidor em" not in (home / "saída").read_text():
                assert process.poll() is None and time.monotonic() < deadline, (home / "saída").read_text()
                time.sleep(0.1)
            yield Cluster(process, f"http://127.0.0.1:{port}", dict(zip(PROMPTS, written, strict=True)))
        finally:
            with suppress(psutil.NoSuchProcess):  # it did not start
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                process.wait(120)
                _, left = psutil.wait_procs(family, 20)
                assert not left, "processes of Ray outlive the example"


@needs_ray
def test_two_replicas_answer_as_one_server(cluster: Cluster):
    assert len(cluster.replicas()) == 2
    with client(cluster.url) as api:
        listed = api.models.with_raw_response.list()
    assert listed.headers["x-request-id"].count(",") == 0
    check_conformance(cluster.url, cluster.texts["O rio"])


@needs_ray
def test_a_killed_replica_loses_only_its_own_streams_and_each_is_told(cluster: Cluster):
    """Whole requests are repeated by the client; a stream that broke is an error, never a shorter text."""
    everyone_writes = Barrier(len(PROMPTS) + 1)

    def whole(prompt: str) -> str:
        with client(cluster.url) as api:
            answer = api.completions.create(model="pequeno", prompt=prompt, max_tokens=LONG, temperature=0)
        return answer.choices[0].text

    def streamed(prompt: str) -> str | None:
        pieces: list[str] = []
        with client(cluster.url, max_retries=0) as api:
            stream = api.completions.create(
                model="pequeno", prompt=prompt, max_tokens=LONG, temperature=0, stream=True
            )
            try:
                for number, chunk in enumerate(stream):
                    pieces.append(chunk.choices[0].text)
                    if number == 0:
                        everyone_writes.wait(60)
            except openai.APIError:
                assert cluster.texts[prompt].startswith("".join(pieces))
                return None
        return "".join(pieces)

    before = cluster.replicas()
    with ThreadPoolExecutor(2 * len(PROMPTS)) as pool:
        # The streams first, so that Ray deals them to both replicas.
        streams = [pool.submit(streamed, prompt) for prompt in PROMPTS]
        everyone_writes.wait(60)
        answers = [pool.submit(whole, prompt) for prompt in PROMPTS]
        before[0].kill()
        assert [answer.result() for answer in answers] == list(cluster.texts.values())
        ended = [stream.result() for stream in streams]
    for prompt, text in zip(PROMPTS, ended, strict=True):
        assert text in (None, cluster.texts[prompt])
    assert 0 < ended.count(None) < len(PROMPTS), "the killed replica wrote some of the streams, not all"

    with client(cluster.url, max_retries=0) as api:
        for prompt in PROMPTS:
            answer = api.completions.create(model="pequeno", prompt=prompt, max_tokens=5, temperature=0)
            assert cluster.texts[prompt].startswith(answer.choices[0].text)
    deadline = time.monotonic() + 60
    while len(cluster.replicas()) < len(before):
        assert time.monotonic() < deadline, "no replica took the place of the one that died"
        time.sleep(0.1)
