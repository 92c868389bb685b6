"""From a cold process to the first token: ours against llama.cpp, onnxruntime-genai and transformers.

    python benchmarks/first_token.py            # the table on the terminal
    python benchmarks/first_token.py --write    # and into docs/benchmarks.md

Each measurement is a new Python process that imports the tool, opens the model and its tokenizer, reads a
short Portuguese prompt and chooses one token. The files are in the page cache. The clock starts before the
process does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from arguments import contest_parser
from inference import PACKAGES
from machine import facts
from results import command, progress, spread, table, write_section

PROMPT = "O rio corre devagar entre as casas da cidade, e"
PROGRAMS = {
    "ptbr-slm": """
import ptbr_slm
next(iter(ptbr_slm.stream({prompt!r}, model={path!r}, max_new_tokens=1, temperature=0)))
""",
    "llama.cpp": """
from llama_cpp import Llama
model = Llama({path!r}, n_ctx=1024, n_threads={threads}, n_threads_batch={threads}, verbose=False)
next(iter(model({prompt!r}, max_tokens=1, temperature=0, stream=True)))
""",
    "onnxruntime-genai": """
import onnxruntime_genai as genai
model = genai.Model({path!r})
tokenizer = genai.Tokenizer(model)
params = genai.GeneratorParams(model)
params.set_search_options(do_sample=False, max_length=1024)
generator = genai.Generator(model, params)
generator.append_tokens(tokenizer.encode({prompt!r}))
generator.generate_next_token()
tokenizer.decode(generator.get_sequence(0)[-1:])
""",
    "transformers": """
import torch, transformers
torch.set_num_threads({threads})
tokenizer = transformers.AutoTokenizer.from_pretrained({path!r})
model = transformers.AutoModelForCausalLM.from_pretrained({path!r})
model.generate(**tokenizer({prompt!r}, return_tensors="pt"), max_new_tokens=1, do_sample=False)
""",
}


def main() -> None:
    arguments = contest_parser(__doc__, rounds=7).parse_args()
    from entries import make_entries

    about = facts(PACKAGES, arguments.threads)
    _, entries = make_entries(arguments.size, arguments.folder / arguments.size, progress, keep=True)
    programs = [
        PROGRAMS[entry.tool].format(prompt=PROMPT, path=str(entry.path), threads=arguments.threads)
        for entry in entries
    ]
    seconds: list[list[float]] = [[] for _ in entries]
    for turn in range(arguments.rounds + 1):
        for position in range(len(entries)):
            index = (position + turn) % len(entries)
            took = cold(programs[index], arguments.threads)
            if turn:  # the first round fills the page cache
                seconds[index].append(took)
    rows = [[f"{e.tool} {e.weights}", spread(s, digits=2)] for e, s in zip(entries, seconds, strict=True)]
    text = "\n\n".join(
        [
            f"`{command()}`",
            about,
            f"{arguments.size}: a new process to its first token, {arguments.rounds} rounds.",
            table(["", "seconds"], rows),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("first-token", text)


def cold(program: str, threads: int) -> float:
    """Seconds of one new process. Raises CalledProcessError where it fails."""
    environment = {**os.environ, "PTBR_SLM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    # As a user's: with it our sources, installed in place, were compiled anew in each process, and no peer's.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
