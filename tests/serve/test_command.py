"""`ptbr-slm serve` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.serve.process.server import listen
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.naming import check_names, fingerprint_of, name_of


@pytest.fixture
def serve(exports, support_environment):
    """Start the command on the tiny export; returns the process."""
    started = []
    plain = {key: value for key, value in support_environment.items() if key != "PTBR_SLM_API_KEY"}

    def start(*arguments, environment=None):
        command = [sys.executable, "-m", "ptbr_slm", "serve", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=plain | (environment or {}),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_two_models_are_served_by_name_until_it_is_told_to_stop(serve, exports, tmp_path):
    keys = tmp_path / "chaves"
    keys.write_text("# Ana\nchave-da-ana-1234\n")
    keys.chmod(0o644)
    process = serve(
        exports["base"], "--model", f"fala={exports['conversa']}", "--port", 0, "--json",
        "--api-key-file", keys, "--cors", "https://exemplo.com.br", "--root-path", "/modelo",
        environment={"PTBR_SLM_API_KEY": "chave-do-ambiente"},
    )  # fmt: skip
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready" and ready["models"] == ["base", "fala"]
    assert ready["url"].startswith("http://127.0.0.1:") and ready["url"].endswith("/modelo")
    bare = ready["url"].removesuffix("/modelo")
    for base in (ready["url"], bare):  # proxies that keep the prefix, and proxies that cut it off
        for key in ("chave-da-ana-1234", "chave-do-ambiente"):
            listed = httpx.get(f"{base}/v1/models", headers={"authorization": f"Bearer {key}"}).json()
            assert [each["id"] for each in listed["data"]] == ["base", "fala"]
        assert httpx.get(f"{base}/v1/models").status_code == 401
    answer = httpx.post(
        f"{bare}/v1/completions",
        json={"model": "fala", "prompt": "O rio", "max_tokens": 2},
        headers={"x-api-key": "chave-da-ana-1234"},
    )
    assert answer.json()["model"] == "fala"
    assert answer.json()["system_fingerprint"] == fingerprint_of(ModelFolder(exports["conversa"]))
    asked = {"origin": "https://exemplo.com.br", "access-control-request-method": "POST"}
    preflight = httpx.options(f"{bare}/v1/completions", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://exemplo.com.br"
    other = httpx.options(f"{bare}/v1/completions", headers=asked | {"origin": "https://outra.com"})
    assert "access-control-allow-origin" not in other.headers
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert code == 0 and json.loads(out)["event"] == "done" and json.loads(out)["cut"] == 0
    assert "chmod 600" in err and "chave-" not in err and "O rio" not in err


def test_without_cors_no_page_of_another_origin_may_read_an_answer(engine):
    from toy_server import answering

    with answering(engine) as toy:
        for method in ("GET", "OPTIONS"):
            answer = httpx.request(method, f"{toy.url}/v1/models", headers={"origin": "https://outra.com"})
            assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["--host", "0.0.0.0"], "E_USAGE", 2),
        (["--api-key-file", "não-existe"], "E_NOT_FOUND", 1),
        (["--model", "sem-igual"], "E_USAGE", 2),
        (["--model", "base=outra"], "E_USAGE", 2),
        (["--name", "com espaço"], "E_USAGE", 2),
        (["--cors", "exemplo.com.br/x"], "E_USAGE", 2),
        (["--root-path", "modelo/"], "E_USAGE", 2),
        (["--max-slots", "0"], "E_USAGE", 2),
        (["--timeout", "0"], "E_USAGE", 2),
        (["--port", "70000"], "E_PORT", 1),
        (["--device", "tpu"], "E_PROVIDER", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_three_lines(run_serve, exports, arguments, code, exit_code):
    found, err = run_serve(exports["base"], *arguments)
    assert found == exit_code and f"Erro [{code}]" in err and "Traceback" not in err


def test_a_folder_without_a_model_ends_the_command_and_a_taken_port_is_told_first(run_serve, tmp_path):
    code, err = run_serve(tmp_path, "--port", 0)
    assert code == 3 and "E_MODEL_INVALID" in err
    with listen("127.0.0.1", 0) as taken:
        code, err = run_serve(tmp_path, "--port", taken.getsockname()[1])
    assert code == 1 and "E_PORT" in err


@pytest.fixture
def run_serve(capfd, monkeypatch):
    """The command in this process, for what ends by itself: (exit code, stderr)."""
    from typer.testing import CliRunner

    from ptbr_slm.cli.main import app

    monkeypatch.delenv("PTBR_SLM_API_KEY", raising=False)

    def run(*arguments):
        capfd.readouterr()
        result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
        return result.exit_code, result.stderr + capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/meu/export", "meu"),
        ("runs/meu/export-int4", "meu"),
        ("runs/meu/final", "meu"),
        ("runs/meu/checkpoints/step-00000500", "meu"),
        ("runs/Área de Trabalho/export", "Area-de-Trabalho"),
        ("modelos/tucano-160m", "tucano-160m"),
        ("/export", "ptbr-slm"),
    ],
)
def test_a_model_is_called_after_the_part_of_its_path_that_names_it(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of(Path(path)) == name


def test_a_name_that_a_url_cannot_carry_or_that_stands_twice_is_refused():
    check_names(["a", "b/c:d-1.2"])
    for names in (["a", "a"], [""], ["é"], ["a b"], ["-a"], ["a" * 65]):
        with pytest.raises(SlmError) as caught:
            check_names(names)
        assert caught.value.code == "E_USAGE"


def test_help_imports_neither_fastapi_nor_an_engine(support_environment):
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom ptbr_slm.cli.main import app\n"
        "assert 'MODELO' in CliRunner().invoke(app, ['serve', '--help']).output\n"
        "print({'fastapi', 'uvicorn', 'starlette', 'onnxruntime', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=support_environment
    )
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes de POSIX")
def test_quietly_the_url_is_all_that_is_printed(serve, exports):
    process = serve(exports["base"], "--port", 0, "--quiet")
    url = process.stdout.readline().strip()
    assert httpx.get(f"{url}/health").status_code == 200
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "", "")
