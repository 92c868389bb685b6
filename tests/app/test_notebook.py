"""In a real kernel, as on Kaggle: the link and its login in the cell, and writing in the cell without one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fake_tunnel import environment, install, runs

pytest.importorskip("ipykernel", reason="falta o ipykernel: pip install ipykernel")
jupyter_client = pytest.importorskip("jupyter_client", reason="falta: pip install jupyter_client")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="o túnel de mentira é um script de shell")


@dataclass
class Cell:
    """What a cell left: its printed text, what it asked, and the kinds of its other outputs."""

    text: str = ""
    asked: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("huggingface")


@pytest.fixture(scope="module")
def program(home):
    """Where Gradio of that kernel looks for the tunnel's program. Nothing is there until installed."""
    from gradio.tunneling import BINARY_FILENAME

    return home / "gradio" / "frpc" / BINARY_FILENAME


@pytest.fixture(scope="module")
def run(gradio, home, tmp_path_factory):
    """Run a cell in one kernel of a Kaggle session; `answers` are typed where it asks, None: nobody can."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    variables = {
        **clean,
        **environment(home),
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "OMP_NUM_THREADS": "1",
    }
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(env=variables, cwd=str(tmp_path_factory.mktemp("working")))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def execute(code: str, answers: list[str] | None = None) -> Cell:
        cell, left = Cell(), list(answers or [])

        def output(message) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                cell.text += content["text"]
            elif message["msg_type"] in ("display_data", "execute_result", "error"):
                cell.shown.append(str(content.get("data") or content.get("traceback")))

        def answer(message) -> None:
            cell.asked.append(message["content"]["prompt"])
            client.input(left.pop(0))

        client.execute_interactive(
            code, allow_stdin=answers is not None, output_hook=output, stdin_hook=answer, timeout=240
        )
        return cell

    yield execute
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def serve(model_folder) -> str:
    """The last cell of our own notebook."""
    return f"from ptbr_slm.app import open_page, serve\nserve(open_page({str(model_folder)!r}), share=True)"


@pytest.mark.slow
def test_without_a_link_one_writes_in_the_cell(run: Callable[..., Cell], serve, program):
    program.unlink(missing_ok=True)
    cell = run(serve, ["Era uma vez", "casa amarela " * 2000, " "])
    assert not cell.shown, "no frame of an address that the reader's browser cannot reach, no error"
    assert "Não consegui criar o link público" in cell.text and "senha" not in cell.text
    assert len(cell.asked) == 3 and "Uma linha vazia termina" in cell.asked[0]
    first, second = cell.text.split("Era uma vez")[1].split("casa amarela")[0], cell.text
    assert len(first.strip()) > 20 and "Erro [E_PROMPT_TOO_LONG]" in second and "Até logo" in second


def test_without_a_link_and_with_nobody_there_the_cell_says_how_and_ends(
    run: Callable[..., Cell], serve, program
):
    program.unlink(missing_ok=True)
    cell = run(serve, None)
    assert not cell.shown and not cell.asked and "ptbr_slm.stream(" in cell.text


def test_the_link_and_its_login_stand_in_the_cell_and_running_it_again_leaves_one_page(
    run: Callable[..., Cell], serve, program
):
    install(program)
    first = run(serve)
    assert not first.shown, "Gradio's frame waits for ever for a link that its own machine cannot reach"
    address, password = re.search(r"semana: (\S+)\n +usuário: ptbr   senha: (\S{12,})", first.text).groups()
    ask = "import httpx; print(httpx.get({!r} + '/config', trust_env=False, timeout=20).status_code)"
    assert (
        run(ask.format(address.replace("https", "http"))).text == "401\n"
    )  # the cell has ended and the page answers
    former = (program.parent / "pid").read_text()
    second = run(serve)
    assert password not in second.text and runs(program)
    assert (program.parent / "pid").read_text() != former
    with pytest.raises(ProcessLookupError):
        os.kill(int(former), 0)
