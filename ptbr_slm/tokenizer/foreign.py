"""Opens the tokenizers of other projects, so that they can be counted beside ours.

Four kinds of file, told apart by their content: a Hugging Face `tokenizer.json`; a SentencePiece model
(`tokenizer.model`, `spiece.model`, `*.spm`), read by the `sentencepiece` library; Mistral's `tekken.json`
(mistral-common, tokens/tokenizers/tekken.py); and a file of tiktoken ranks, such as Llama 3's
`tokenizer.model` (tiktoken, load.py: one base64 token and its rank a line).

The last two hold byte-pair ranks and no merges. The merges follow from the ranks: a token is made of every
pair of tokens that spell it (transformers, convert_slow_tokenizer.py: `TikTokenConverter`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as _Library

from ptbr_slm.errors import SlmError, missing_extra, os_errors
from ptbr_slm.tokenizer.rules import unfit_rule
from ptbr_slm.tokenizer.spelling import CHARACTER_OF
from ptbr_slm.tokenizer.tokenizer import Tokenizer
from ptbr_slm.tokenizer.training import LLAMA_BPE_SPLIT

_FILES = ("tokenizer.json", "tekken.json", "tokenizer.model", "spiece.model")
"""What a folder is searched for, in this order."""


class TextEncoder(Protocol):
    """What a comparison needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones included."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for text outside the vocabulary; None where every text can be spelled."""


class SentencePieceEncoder:
    """A SentencePiece model."""

    def __init__(self, content: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self._inner = SentencePieceProcessor(model_proto=content)

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones included."""
        return int(self._inner.vocab_size())

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for text outside the vocabulary."""
        return int(self._inner.unk_id())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [list(ids) for ids in self._inner.encode(list(texts))]


def open_tokenizer(path: Path) -> TextEncoder:
    """Open a tokenizer of any kind, or the one in a folder.

    Raises E_TOKENIZER_MISSING, E_TOKENIZER_INVALID, or E_DEPENDENCY without `sentencepiece`.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in _FILES if (path / name).is_file()), path / _FILES[0])
    if not file.exists():
        return Tokenizer.load(file)  # says what is missing
    with os_errors(file):
        content = file.read_bytes()
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _from_json(content, file)
    ranks = _parse_ranks(content)
    if ranks is not None:
        return _from_ranks(ranks, LLAMA_BPE_SPLIT, len(ranks), file)
    try:
        opened = SentencePieceEncoder(content)
    except ModuleNotFoundError as error:
        raise missing_extra("sentencepiece") from error
    except (RuntimeError, OSError) as error:
        raise _invalid(file, "não é SentencePiece, tekken, tiktoken nem tokenizer.json") from error
    if not opened.vocab_size:  # an empty file is a valid, empty model
        raise _invalid(file, "está vazio")
    return opened


def looks_like_tokenizer(path: Path) -> bool:
    """Whether a file name is that of a tokenizer, and never that of a text to read."""
    return path.suffix in (".json", ".model", ".spm", ".tiktoken") or ".model." in path.name


def _from_json(content: bytes, file: Path) -> TextEncoder:
    """A tokenizer.json, or a tekken.json, which has `config` and a list of tokens."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not (isinstance(body, dict) and isinstance(body.get("vocab"), list)):
        return Tokenizer.from_json(content, file)
    try:
        config = body["config"]
        pattern, size = str(config["pattern"]), int(config["default_vocab_size"])
        ordinary = size - int(config["default_num_special_tokens"])
        ranks = {base64.b64decode(entry["token_bytes"]): int(entry["rank"]) for entry in body["vocab"]}
        ranks = {token: rank for token, rank in ranks.items() if rank < ordinary}
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(file, f"tekken incompleto: {error}") from error
    return _from_ranks(ranks, pattern, size, file)


class RanksEncoder:
    """Byte-pair ranks with a regular expression that splits the text, as tiktoken has them."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, vocab_size: int) -> None:
        spelled = {token: "".join(CHARACTER_OF[byte] for byte in token) for token in ranks}
        model = models.BPE(
            {spelled[token]: rank for token, rank in ranks.items()},
            [(spelled[left], spelled[right]) for left, right in merges_of(ranks)],
            ignore_merges=True,  # a word that is a token needs no merges, as in tiktoken
        )
        self._inner = _Library(model)
        self._inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self._inner.decoder = decoders.ByteLevel()
        fault = unfit_rule(self._inner, LLAMA_BPE_SPLIT)
        if fault:
            raise ValueError(fault)
        self.vocab_size = vocab_size
        self.unknown_id: int | None = None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        encoded = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encoded]


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that spells a third, the pairs of the lowest rank first."""
    found: list[tuple[int, int, int, bytes, bytes]] = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    found.sort()
    return [(left, right) for _, _, _, left, right in found]


def _from_ranks(ranks: Mapping[bytes, int], pattern: str, size: int, file: Path) -> TextEncoder:
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise _invalid(file, "faltam bytes entre os tokens")
    try:
        return RanksEncoder(ranks, pattern, size)
    except BaseException as error:  # a bad regular expression may be a Rust panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise _invalid(file, str(error)[:120]) from error


def _parse_ranks(content: bytes) -> dict[bytes, int] | None:
    """The tokens of a file of tiktoken ranks; None for another kind of file."""
    ranks: dict[bytes, int] = {}
    try:
        for line in content.splitlines():
            token, rank = line.split(b" ")
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error):
        return None
    return ranks or None


def _invalid(file: Path, why: str) -> SlmError:
    return SlmError(
        "E_TOKENIZER_INVALID",
        f"o arquivo não é um tokenizador que sabemos abrir ({why}).",
        where=file,
        hint="Use um tokenizer.json, um modelo SentencePiece (.model), um tekken.json ou ranks do tiktoken.",
    )
