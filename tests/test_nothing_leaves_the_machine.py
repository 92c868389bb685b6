"""Every verb, the Python API and the page, each in a process of its own with a new HOME that must stay empty.

Where strace may be used, no system call names an address outside this machine; where `unshare` may be used as
well, the process has no network at all, and still does its work.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from ptbr_slm.privacy import SWITCHES, switch_off_telemetry

ROOT = Path(__file__).resolve().parents[1]

STAYS = {"app", "serve"}
"""What runs until it is told to stop: `PAGE` and `SERVER`."""

ON_REQUEST = {"data fetch", "quickstart"}
"""What asks the network because it is its work: pip brings the texts."""

SMALL = "--model-size nano --seq-len 32 --batch-size 2 --grad-accum 1"
LOGGERS = [name for name in ("tensorboard", "trackio", "wandb") if find_spec(name)]

VERBS = {  # in this order: each may use what an earlier one wrote
    "tokenizer train": "textos -o tok --vocab-size 400",
    "tokenizer inspect": "manhã --tokenizer tok",
    "tokenizer compare": "textos --with tok --svg comparacao.svg",
    "data prepare": "textos -o dados --tokenizer tok",
    "data stats": "dados",
    "data audit": "dados -o auditoria.html",
    "info": "--model-size nano",
    "plan": "--hours 1 --gpu cpu --model-size nano -o plano",
    "doctor": "",
    "find-lr": f"--data dados -o lr {SMALL} --steps 10 --svg lr.svg",
    "train": f"--data dados -o run {SMALL} --max-steps 4 --eval-every 2 --set model.max_seq_len=128 "
    + " ".join(f"--logger {name}" for name in LOGGERS),
    "data teacher-logits": "run/final dados -o logits --top-k 4",
    "tune": "run/final --data conversas.jsonl -o tuned --max-steps 2 --eval-every 0",
    "draft": "run/final --data dados --max-steps 2 --head-tokens 200",
    "chat": "tuned/final -n 4",
    "eval": "run/final --tasks gramatica --limit 4 --no-cache -o avaliacao",
    "eval compare": "avaliacao avaliacao",
    "export": "run/final -o exp --precision int8",
    "verify": "exp --against run/final",
    "generate": "Manhã --model exp --max-new-tokens 4",
    "bench generate": "--model exp --batch 1 --prompt 4 --decode 4 --rounds 1 --cold -o bench",
    "bench train": "--sizes nano --seq-len 32 --seconds 0.2 --no-variants -o bench",
    "bench gpu": "--smoke --sections machine -o gpu",
    "kaggle init": "caderno --user maria",
}

API = """
import time
import ptbr_slm
with ptbr_slm.load("exp") as model:
    model.generate("Manhã", max_new_tokens=4)
time.sleep(11)  # ONNX Runtime's telemetry, when it is on, asks DNS nine seconds after its import
"""

PAGE = """
import json, signal, subprocess, sys
import httpx
command = [sys.executable, "-m", "ptbr_slm", "app", "exp", "--json"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
    url = json.loads(page.stdout.readline())["url"]
    assert httpx.get(url).status_code == 200
    call = url + "gradio_api/call/generate"
    event = httpx.post(call, json={"data": ["Era", 4, 0.8, 0.95, 0, 1.0, ""]}).json()["event_id"]
    assert "event: complete" in httpx.get(f"{call}/{event}", timeout=30).text
    page.send_signal(signal.SIGTERM)
    page.communicate()
assert page.returncode == 0
"""

LONELY = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:  # `ip link set lo up`
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
os.execvp(sys.argv[1], sys.argv[1:])
"""

TRACE = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]


def works(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    )


@functools.cache
def strace() -> list[str]:
    """The command that writes a process's addresses to the file named next; empty where it may not run."""
    for command in ([*TRACE, "--seccomp-bpf"], TRACE):
        if works([*command, "-o", os.devnull, "true"]):
            return [*command, "-o"]
    return []


@functools.cache
def lonely() -> list[str]:
    """The command that takes the network from a process, all but loopback; empty where it may not run."""
    command = ["unshare", "-rn", sys.executable, "-c", LONELY]
    return command if works([*command, "true"]) else []


def outside(line: str) -> bool:
    """Whether a line of strace's names an address that is not this machine's, or a name server."""
    found = re.search(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', line)
    if not found:
        return False
    address = found[1] or found[2]
    local = address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1", "0.0.0.0", "::")
    return not local or "htons(53)" in line


SERVER = """
import json, signal, subprocess, sys
import httpx
command = [sys.executable, "-m", "ptbr_slm", "serve", "exp", "--port", "0", "--json"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    url = json.loads(server.stdout.readline())["url"]
    assert "src=" not in httpx.get(url + "/docs").text
    body = {"prompt": "Era", "max_tokens": 4}
    assert httpx.post(url + "/v1/completions", json=body).json()["usage"]["completion_tokens"] <= 4
    server.send_signal(signal.SIGTERM)
    server.communicate()
assert server.returncode == 0
"""


@dataclass
class Watched:
    """A process that runs in `folder` with a HOME of its own."""

    process: subprocess.Popen[str]
    home: Path
    trace: Path

    def check(self) -> None:
        out, err = self.process.communicate("Oi\n", timeout=120)  # what `chat` reads
        assert self.process.returncode == 0, out + err
        assert sorted(str(p.relative_to(self.home)) for p in self.home.rglob("*") if p.is_file()) == []
        if strace():
            lines = self.trace.read_text(encoding="utf-8", errors="replace").splitlines()
            assert [line for line in lines if outside(line)] == []


@pytest.fixture(scope="module")
def watch(tmp_path_factory, texts) -> Callable[..., Watched]:
    folder = tmp_path_factory.mktemp("casa")
    (folder / "textos").mkdir()
    for number in range(12):
        body = "\n".join(f"{number} {text}" for text in texts * 4)
        (folder / "textos" / f"{number}.txt").write_text(body, encoding="utf-8")
    rows = [{"prompt": f"Oi {number}", "completion": "Olá!"} for number in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "conversas.jsonl").write_text(lines, encoding="utf-8")

    def start(*arguments: str) -> Watched:
        home = tmp_path_factory.mktemp("home")
        trace = home.with_suffix(".strace")
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in SWITCHES and not name.startswith(("XDG_", "HF_", "WANDB", "TRACKIO", "GRADIO"))
        }
        path = os.pathsep.join([str(ROOT), str(ROOT / "export")])
        clean |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        tracing = [*strace(), str(trace)] if strace() else []
        process = subprocess.Popen(
            [*lonely(), *tracing, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=clean,
        )
        return Watched(process, home, trace)

    return start


def test_there_is_a_case_for_every_verb():
    import typer

    from ptbr_slm.cli.main import app

    def leaves(node, words=()):
        children = getattr(node, "commands", {})
        return (
            {" ".join(words)}
            if not children
            else {x for n, c in children.items() for x in leaves(c, (*words, n))}
        )

    assert leaves(typer.main.get_command(app)) | {"eval"} == {*VERBS, *ON_REQUEST, *STAYS}


@pytest.mark.slow
def test_no_verb_writes_to_a_new_home_or_asks_the_network(watch):
    pytest.importorskip("onnx_ir", reason='instale com: pip install "ptbr-slm[export]"')
    later = []
    for verb, arguments in VERBS.items():
        watch("-m", "ptbr_slm", *verb.split(), *arguments.split()).check()
        if verb == "export":  # these wait more than they work
            later = [watch("-c", API), *([watch("-c", PAGE)] if find_spec("gradio") else [])]
            later += [watch("-c", SERVER)] if find_spec("fastapi") else []
    for check in later:
        check.check()


def test_the_network_is_watched_here():
    if not strace():
        pytest.skip("sem strace só a pasta HOME é vigiada: apt install strace (e permissão para usá-lo)")
    for address, far in [("10.0.0.53", True), ("127.0.0.1", False)]:
        line = (
            f'connect(7, {{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("{address}")}}, 16) = 0'
        )
        assert outside(line) is far
    assert outside('connect(7, {sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0')


def test_the_switches_are_set_before_any_library_can_read_them_and_a_users_value_stays():
    code = (
        "import os, sys, ptbr_slm\n"
        "assert not {'onnxruntime', 'gradio', 'huggingface_hub', 'wandb'} & set(sys.modules)\n"
        "from ptbr_slm.privacy import SWITCHES\n"
        "print(*(os.environ[name] for name in SWITCHES))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    run = functools.partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert run(env=clean).stdout.split() == list(SWITCHES.values())
    assert run(env={**clean, "ORT_DISABLE_TELEMETRY": "0"}).stdout.split()[0] == "0"
    environment = {"ORT_DISABLE_TELEMETRY": ""}  # empty counts as off for ONNX Runtime, so as missing for us
    switch_off_telemetry(environment)
    assert environment == SWITCHES


def test_whoever_opens_an_export_imports_our_package_before_onnxruntime():
    """The export package and the tests reach onnxruntime through other doors than `ptbr_slm.runtime`."""
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name != 'onnxruntime' or 'ptbr_slm' in sys.modules\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import ptbr_slm_export, ptbr_slm_export.verification.locate, ptbr_slm_export.genai.graph\n"
        "import ptbr_slm.runtime.engines.onnx.providers.session\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
