"""Serving: settings, port, password, Kaggle, and a clean end. Processes are real ones."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ptbr_slm.app import launch, launch_options, network, open_page, serve
from ptbr_slm.errors import SlmError

httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')
ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE_", "GRADIO_SERVER", "GRADIO_SHARE"))
    }
    return {**clean, "OMP_NUM_THREADS": "1", **more}


@contextmanager
def running(*arguments: str | Path, **keywords) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**keywords.pop("env", {})),
        **keywords,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_the_launch_settings_keep_everything_on_this_machine(page):
    options = launch_options(page)
    expected = {
        "show_error": False, "max_file_size": "1kb", "allowed_paths": [], "enable_monitoring": False,
        "run_history": False, "ssr_mode": False, "mcp_server": False, "footer_links": [], "share": False,
    }  # fmt: skip
    assert {key: options[key] for key in expected} == expected


def test_the_page_fonts_have_the_letters_of_portuguese(gradio):
    tt_font = pytest.importorskip("fontTools.ttLib", reason="instale com: pip install fonttools[woff]").TTFont
    pytest.importorskip("brotli", reason="instale com: pip install brotli")
    from ptbr_slm.app.theme import FONT

    folder = Path(gradio.__file__).parent / "templates/frontend/static/fonts" / FONT.replace(" ", "")
    for weight in ("Regular", "Bold"):
        letters = tt_font(folder / f"{FONT.replace(' ', '')}-{weight}.woff2").getBestCmap()
        assert not [letter for letter in "aAzZãçéíõúâêôàÃÇ0189…·“”—" if ord(letter) not in letters]


def test_a_given_port_that_is_taken_is_an_error_and_a_free_choice_moves_on(monkeypatch):
    with taken_port() as port:
        with pytest.raises(SlmError) as caught:
            network.choose_port(None, port)
        assert caught.value.code == "E_PORT"
        monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
        chosen, notes = network.choose_port(None, None)
        assert chosen > port
        assert notes == [f"A porta {port} está ocupada; usei a {chosen}."]


def test_where_another_process_takes_the_free_port_first_the_page_opens_on_the_next(
    gradio, model_folder, monkeypatch
):
    choose = network.choose_port
    page = open_page(model_folder)
    with taken_port() as port:
        lost = [port, port]
        monkeypatch.setattr(
            launch, "choose_port", lambda *given: (lost.pop(), []) if lost else choose(*given)
        )
        served = launch.open_server(page)
        assert httpx.get(served.url, trust_env=False).status_code == 200 and f":{port}/" not in served.url
    page.close()


@pytest.mark.parametrize("value", ["abc", "-1", "0", "65536", "7860.5"])
def test_a_first_port_that_is_none_names_its_variable(monkeypatch, value):
    monkeypatch.setenv("GRADIO_SERVER_PORT", value)
    with pytest.raises(SlmError) as caught:
        network.choose_port(None, None)
    assert caught.value.code == "E_CONFIG" and "GRADIO_SERVER_PORT" in caught.value.where


def test_port_0_is_a_free_one_that_the_system_chooses(gradio, model_folder):
    page = open_page(model_folder)
    served = launch.open_server(page, port=0)
    assert ":0/" not in served.url and httpx.get(served.url, trust_env=False).status_code == 200
    page.close()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_does_not_exist_is_an_error(port):
    with pytest.raises(SlmError, match="porta"):
        network.choose_port(None, port)


def test_a_host_that_is_not_this_machine_is_an_error():
    with pytest.raises(SlmError) as caught:
        network.choose_port("203.0.113.1", 7860)
    assert caught.value.code == "E_PORT"


@pytest.mark.slow
def test_the_command_serves_until_sigterm_even_while_a_text_is_written(gradio, model_folder, tmp_path):
    tmp_path.chmod(0o555)  # like /kaggle/input
    arguments = ["-m", "ptbr_slm", "app", model_folder, "--json", "--host", "0.0.0.0"]
    with running(*arguments, cwd=tmp_path) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready" and ready["share_url"] is None
        assert ready["user"] and len(ready["password"]) >= 12  # 0.0.0.0: others can reach it
        url = ready["url"]
        assert httpx.get(f"{url}config").status_code == 401
        with httpx.Client(timeout=20) as client:
            login = {"username": ready["user"], "password": ready["password"]}
            assert client.post(f"{url}login", data=login).status_code == 200
            call = f"{url}gradio_api/call/generate"
            event = client.post(call, json={"data": ["Era", 2000, 0.8, 0.95, 0, 1.0, ""]}).json()["event_id"]
            with client.stream("GET", f"{call}/{event}") as stream:
                next(stream.iter_lines())
                process.send_signal(signal.SIGTERM)
                started = time.monotonic()
                out, err = process.communicate(timeout=20)
        assert time.monotonic() - started < 12
        assert process.returncode == 0
        assert json.loads(out)["event"] == "done"
        assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_kaggle_batch_run_writes_one_text_and_ends(model_folder):
    with running("-m", "ptbr_slm", "app", model_folder, env={"KAGGLE_KERNEL_RUN_TYPE": "Batch"}) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Batch" in err and "O Brasil é" in err
    assert "http" not in out + err


def test_on_kaggle_a_share_link_that_cannot_be_made_says_how_to_go_on(gradio, model_folder, tmp_path):
    # No proxy leads out of here: the tunnel's program cannot be downloaded, as with Kaggle's internet off.
    blocked = {
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
    }
    with running("-m", "ptbr_slm", "app", model_folder, "--share", env=blocked) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Não consegui criar o link público" in err
    assert "ptbr_slm.stream(" in err and repr(str(model_folder)) in err
    assert "Could not create share link" not in out + err


def test_a_folder_without_a_model_gives_the_three_lines(tmp_path, cli):
    done = cli("app", tmp_path / "nada")
    assert done.returncode in (1, 3)
    lines = done.stderr.strip().splitlines()
    assert lines[-3].startswith("Erro [E_") and "Traceback" not in done.stderr


def test_without_a_model_the_page_opens_the_one_of_the_package_and_says_so(gradio, tmp_path):
    with running("-m", "ptbr_slm", "app", env={"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, cwd=tmp_path) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err.startswith("Sem modelo indicado, abro machado, o modelo de demonstração do pacote")


def test_the_root_app_is_short_and_opens_the_same_page(gradio, model_folder, monkeypatch):
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) <= 15
    monkeypatch.setenv("PTBR_SLM_MODEL", str(model_folder))
    app = runpy.run_path(str(ROOT / "app.py"), run_name="app")
    assert app["open_page"] is open_page and app["serve"] is serve and app["demo"] is app["page"].demo
    app["page"].close()


def test_the_root_app_without_a_model_says_so_without_a_traceback(tmp_path):
    with running("app.py", env={"PTBR_SLM_MODEL": str(tmp_path / "nada")}, cwd=ROOT) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Erro [E_NOT_FOUND]") and "Traceback" not in err


def test_importing_the_app_package_does_not_import_gradio():
    code = "import sys, ptbr_slm.app, ptbr_slm.cli.app; print({'gradio', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


DEAD = "http://127.0.0.1:9"
PROXIES = {
    "for every protocol": {"all_proxy": DEAD},
    "for each, and some that httpx cannot use": {
        "HTTP_PROXY": DEAD,
        "ALL_PROXY": "socks://127.0.0.1:9",  # GNOME writes it so; httpx knows no such scheme
        "https_proxy": "socks5://127.0.0.1:9",  # refused by httpx without its extra
    },
}


@pytest.mark.parametrize("proxies", PROXIES.values(), ids=PROXIES)
def test_the_page_opens_and_writes_where_proxies_are_set_that_lead_nowhere(gradio, model_folder, proxies):
    names = {"HTTPS_PROXY", "http_proxy", "NO_PROXY", "no_proxy"}.union(*PROXIES.values())
    others = dict.fromkeys(names, "")
    arguments = ["-m", "ptbr_slm", "app", model_folder, "--json"]
    with running(*arguments, env={**others, **proxies}) as process:
        ready = json.loads(process.stdout.readline() or "{}")
        assert ready.get("event") == "ready", process.communicate()[1]
        call = f"{ready['url']}gradio_api/call/generate"
        with httpx.Client(timeout=30, trust_env=False) as client:
            event = client.post(call, json={"data": ["Era", 2, 0.8, 0.95, 0, 1.0, ""]}).json()["event_id"]
            assert "event: complete" in client.get(f"{call}/{event}").text


def test_a_proxy_is_as_the_user_set_it_once_the_page_is_open(monkeypatch):
    from ptbr_slm.app.network import own_address_without_proxy

    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.exemplo:3128")
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.delenv("NO_PROXY", raising=False)
    before = dict(os.environ)
    with own_address_without_proxy("192.0.2.7"):
        assert "ALL_PROXY" not in os.environ
        assert os.environ["HTTPS_PROXY"] == before["HTTPS_PROXY"]  # the share link still goes through it
        assert os.environ["NO_PROXY"].split(",") == ["intranet", "127.0.0.1", "localhost", "::1", "192.0.2.7"]
    assert dict(os.environ) == before
