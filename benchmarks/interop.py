"""One model in four tools: do transformers, llama.cpp and onnxruntime-genai read and write as ours does?

    python benchmarks/interop.py MODEL --text FILE...            # the tables on the terminal
    python benchmarks/interop.py MODEL --text FILE... --write    # and into docs/benchmarks.md

MODEL: a model folder, best a trained one. Needs the environment of benchmarks/requirements.txt; takes
minutes, one thread a tool.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gguf_llama
import numpy as np
import numpy.typing as npt
from machine import facts
from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import PRECISIONS, export_gguf
from results import table, write_section

from ptbr_slm.runtime.load import open_engine
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
PACKAGES = ("onnxruntime", "transformers", "llama-cpp-python", "onnxruntime-genai")
PROMPT_TOKENS = 24
PASSAGE = 400


class Tool(Protocol):
    """Another program with the model opened."""

    name: str
    precision: str
    reference: Path
    """What of ours it is compared with: the model folder, or our export of the same precision."""

    def encode(self, text: str) -> list[int]:
        """Ids as for a prompt, without special tokens of its own."""

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The most probable token, `count` times, after each prompt."""

    def logits(self, ids: Sequence[int]) -> Floats:
        """(V,) after the last token."""


class Transformers:
    """`AutoModelForCausalLM` on the model folder as it is."""

    name, precision = "transformers", "fp32"

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        self._torch, self.reference = torch, folder
        torch.set_num_threads(1)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(self, text: str) -> list[int]:
        """See `Tool.encode`."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """See `Tool.greedy`; `generate` itself, with no end token, so that no text is cut."""
        found = []
        for ids in prompts:
            tokens = self._torch.tensor([list(ids)])
            output = self._model.generate(
                tokens, attention_mask=self._torch.ones_like(tokens), max_new_tokens=count,
                do_sample=False, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
            found.append(output[0, len(ids) :].tolist())
        return found

    def logits(self, ids: Sequence[int]) -> Floats:
        """See `Tool.logits`."""
        with self._torch.no_grad():
            return np.array(self._model(self._torch.tensor([list(ids)])).logits[0, -1].numpy())


class LlamaCpp:
    """llama.cpp on the GGUF of `export --format gguf`, KV cache in f32."""

    name = "llama.cpp"

    def __init__(self, folder: Path, out: Path, precision: str) -> None:
        import llama_cpp

        gguf_llama.silence()
        report = export_gguf(folder, out / f"{precision}.gguf", precision)
        self.precision, self.reference = report.kind, folder
        self._llama = llama_cpp.Llama(
            str(report.file), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
            type_k=0, type_v=0,
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """See `Tool.encode`. llama.cpp does not normalise; NFC text is what it is given."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=False))

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """See `Tool.greedy`."""
        found = []
        for ids in prompts:
            tokens = [int(self.logits(ids).argmax())]
            while len(tokens) < count:
                self._llama.eval(tokens[-1:])
                tokens.append(int(self._llama.scores[self._llama.n_tokens - 1].argmax()))
            found.append(tokens)
        return found

    def logits(self, ids: Sequence[int]) -> Floats:
        """See `Tool.logits`."""
        self._llama.reset()
        self._llama.eval(list(ids))
        return np.array(self._llama.scores[self._llama.n_tokens - 1])


class Genai:
    """onnxruntime-genai on the folder of `export --target genai`; prompts `batch` at a time, padded right."""

    name = "onnxruntime-genai"

    def __init__(self, folder: Path, out: Path, precision: str, batch: int) -> None:
        import onnxruntime_genai as genai

        self._genai, self._batch, target = genai, batch, out / f"genai-{precision}"
        self.precision = f"{precision}, " + ("one at a time" if batch == 1 else f"batches of {batch}")
        export_model(folder, target, target="genai", precision=precision, verify=False)
        self.reference = out / precision
        export_model(folder, self.reference, target="cpu", precision=precision, verify=False)
        settings = json.loads((target / "genai_config.json").read_text())
        last = ModelFolder(folder).config.vocab_size - 1
        settings["model"]["eos_token_id"] = [last]  # never: no text is cut
        (target / "genai_config.json").write_text(json.dumps(settings))
        self._pad = settings["model"]["pad_token_id"]
        self._model = genai.Model(str(target))
        self._tokenizer = genai.Tokenizer(self._model)

    def encode(self, text: str) -> list[int]:
        """See `Tool.encode`."""
        ids = [int(i) for i in self._tokenizer.encode(text)]
        return ids[1:] if ids[:1] == [self._tokenizer.bos_token_id] else ids

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """See `Tool.greedy`."""
        found: list[list[int]] = []
        for start in range(0, len(prompts), self._batch):
            batch = prompts[start : start + self._batch]
            generator = self._generator(batch, count)
            tokens: list[list[int]] = [[] for _ in batch]
            for _ in range(count):
                generator.generate_next_token()
                for sequence, token in zip(tokens, generator.get_next_tokens(), strict=True):
                    sequence.append(int(token))
            found += tokens
        return found

    def logits(self, ids: Sequence[int]) -> Floats:
        """See `Tool.logits`."""
        return np.asarray(self._generator([ids], 1).get_logits(), dtype=np.float32).reshape(-1)

    def _generator(self, prompts: Sequence[Sequence[int]], count: int) -> Any:
        longest = max(map(len, prompts))
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(do_sample=False, max_length=longest + count, batch_size=len(prompts))
        generator = self._genai.Generator(self._model, params)
        padded = [[*ids, *[self._pad] * (longest - len(ids))] for ids in prompts]
        generator.append_tokens(np.array(padded, dtype=np.int32))
        return generator


@dataclass(frozen=True, slots=True)
class Ours:
    """What one of our engines answers to the prompts."""

    greedy: list[list[int]]
    logits: list[Floats]


def main() -> None:
    arguments = _arguments()
    folder = arguments.model
    texts = _passages(arguments.text, arguments.passages)
    tokenizer = Tokenizer.load(folder)
    ids = [tokenizer.encode(text, special=False) for text in texts]
    prompts = _prompts(tokenizer, ids, arguments.prompts)
    rows, answers = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for tool in _tools(folder, Path(temporary)):
            if tool.reference not in answers:
                answers[tool.reference] = _ask_ours(tool.reference, prompts, arguments.tokens)
            same = sum(tool.encode(text) == own for text, own in zip(texts, ids, strict=True))
            rows.append(
                [
                    f"{tool.name} {tool.precision}",
                    f"{same:,} of {len(texts):,}",
                    *_comparison(tool, prompts, answers[tool.reference], arguments.tokens),
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    config = ModelFolder(folder).config
    shape = f"{config.num_parameters / 1e6:.1f}M parameters, vocabulary of {config.vocab_size:,}"
    header = [
        "", "passages with our tokens", "greedy texts equal to ours", "their tokens equal",
        "largest difference of a logit", "least cosine of logits",
    ]  # fmt: skip
    section = (
        f"`python benchmarks/interop.py MODEL --text FILES --write`\n\n{facts(PACKAGES, 1)}\n\n"
        f"MODEL: {arguments.label or shape}; {len(texts):,} passages of Portuguese, "
        f"{sum(len(text.encode()) for text in texts) / 1e6:.1f} MB; {len(prompts)} prompts of "
        f"{PROMPT_TOKENS // 3} to {PROMPT_TOKENS} tokens, {arguments.tokens} greedy tokens each. Compared "
        "with our PyTorch engine in fp32; onnxruntime-genai with our own export of the same precision.\n\n"
        f"{table(header, rows)}"
    )
    print(section)
    if arguments.write:
        write_section(arguments.section, section)


def _tools(folder: Path, out: Path) -> Iterator[Tool]:
    yield Transformers(folder)
    for precision in PRECISIONS:
        yield LlamaCpp(folder, out, precision)
    for precision in ("fp32", "int8", "int4"):
        for batch in (1, 3):
            yield Genai(folder, out, precision, batch)


def _prompts(tokenizer: Tokenizer, ids: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Beginnings of three lengths, with what the tokenizer puts before a text, so that batches are ragged."""
    start = tokenizer.encode("a")[: -len(tokenizer.encode("a", special=False))]
    long = [text for text in ids if len(text) > PROMPT_TOKENS]
    spread = long[:: max(1, len(long) // count)]
    lengths = [PROMPT_TOKENS // 3 * (1 + at % 3) for at in range(count)]
    return [[*start, *text[:length]] for text, length in zip(spread, lengths, strict=False)]


def _ask_ours(path: Path, prompts: Sequence[Sequence[int]], count: int) -> Ours:
    engine, greedy, logits = open_engine(path, "cpu"), [], []
    for prompt in prompts:
        engine.reset(1, len(prompt) + count)
        last = engine.prefill(0, prompt)
        logits.append(last.copy())
        tokens = [int(last.argmax())]
        while len(tokens) < count:
            tokens.append(int(engine.decode([0], tokens[-1:])[0].argmax()))
        greedy.append(tokens)
    engine.close()
    return Ours(greedy, logits)


def _comparison(tool: Tool, prompts: Sequence[Sequence[int]], ours: Ours, count: int) -> list[str]:
    found = tool.greedy(prompts, count)
    equal = sum(a == b for a, b in zip(found, ours.greedy, strict=True))
    tokens = sum(x == y for a, b in zip(found, ours.greedy, strict=True) for x, y in zip(a, b, strict=True))
    theirs = [tool.logits(prompt) for prompt in prompts]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(theirs, ours.logits, strict=True))
    cosine = min(_cosine(a, b) for a, b in zip(theirs, ours.logits, strict=True))
    return [
        f"{equal} of {len(found)}",
        f"{tokens:,} of {len(found) * count:,}",
        f"{difference:.1e}",
        f"{cosine:.6f}",
    ]


def _cosine(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _passages(files: Sequence[Path], wanted: int) -> list[str]:
    """NFC passages of whole lines, some `PASSAGE` characters each, spread evenly over all files."""
    found: list[str] = []
    for file in files:
        lines: list[str] = []
        for line in unicodedata.normalize("NFC", file.read_text(encoding="utf-8")).split("\n"):
            lines.append(line)
            if sum(map(len, lines)) >= PASSAGE:
                found.append("\n".join(lines))
                lines = []
    return found[:: max(1, len(found) // wanted)][:wanted]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--label", help="what the model is, for the section")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--section", default="interop", help="of docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
