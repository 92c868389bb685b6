"""The tokenizer: byte-level BPE that transformers, vLLM, llama.cpp and onnxruntime-genai read alike."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _Tokenizer
from tokenizers.decoders import DecodeStream

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.text import decode, quoted
from ptbr_slm.tokenizer import spelling
from ptbr_slm.tokenizer.rules import unfit_rule
from ptbr_slm.tokenizer.spelling import BYTE_OF, is_misread
from ptbr_slm.tokenizer.training import BOS, CHAT_TOKENS, EOS, LLAMA_BPE_SPLIT, PAD, train_bpe

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, which every tool knows; a model learns it only from conversations written so.

`{% generation %}` encloses what the assistant writes, for the trainers that ask for it (TRL, transformers'
`return_assistant_tokens_mask`)."""


class Tokenizer:
    """A `tokenizer.json` whose special tokens never come out of a user's text.

    Any Hugging Face tokenizer.json opens; `train` makes ours.
    """

    def __init__(self, inner: _Tokenizer) -> None:
        self._inner = inner
        self._bytes_of: dict[int, bytes] = {}
        self._inner.encode_special_tokens = True  # "<|eos|>" typed by a user stays text
        self._inner.no_padding()
        self._inner.no_truncation()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 32_000) -> Tokenizer:
        """Train a byte-level BPE of at most `vocab_size` tokens. Raises E_CONFIG or E_DATA_EMPTY.

        Ctrl-C is answered at once; see `tokenizer.training` for what becomes of the library's own thread.
        """
        return cls(train_bpe(texts, vocab_size))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Open a tokenizer.json, or a folder's. Raises E_TOKENIZER_MISSING or E_TOKENIZER_INVALID."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.exists():
            raise _missing(file)
        with os_errors(file):
            content = file.read_bytes()
        return cls.from_json(content, file)

    @classmethod
    def from_json(cls, content: bytes, file: Path) -> Tokenizer:
        """From the content of a tokenizer.json. Raises E_TOKENIZER_INVALID, which names the file."""
        try:
            inner = _Tokenizer.from_str(decode(content))
            fault = unfit_rule(inner, LLAMA_BPE_SPLIT)
            if fault:
                raise ValueError(fault)
            return cls(inner)
        except BaseException as error:  # a bad regex is a Rust panic: pyo3's PanicException is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise SlmError(
                "E_TOKENIZER_INVALID",
                f"o arquivo não é um tokenizador válido ({str(error)[:120]}).",
                where=file,
                hint="Use um tokenizer.json do ptbr-slm ou da Hugging Face.",
            ) from error

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        return str(self._inner.to_str(pretty=True))

    @cached_property
    def sha256(self) -> str:
        """Identity of the tokenizer: hex sha256 of its JSON with sorted keys, however it is laid out."""
        canonical = json.dumps(json.loads(self._inner.to_str()), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def token_id(self, token: str) -> int | None:
        """Id of a token by its exact name, or None."""
        found = self._inner.token_to_id(token)
        return None if found is None else int(found)

    @property
    def bos_id(self) -> int | None:
        """Id of our `<|bos|>`, or None in a foreign tokenizer."""
        return self.token_id(BOS)

    @property
    def eos_id(self) -> int | None:
        """Id of our `<|eos|>`, or None in a foreign tokenizer."""
        return self.token_id(EOS)

    @property
    def pad_id(self) -> int | None:
        """Id of our `<|pad|>`, or None in a foreign tokenizer."""
        return self.token_id(PAD)

    @cached_property
    def unknown_id(self) -> int | None:
        """Id that stands for text outside the vocabulary; None where the vocabulary names none, as ours."""
        model = self._body["model"]
        if model.get("unk_token") is not None:
            return self.token_id(model["unk_token"])
        found = model.get("unk_id")
        return None if found is None else int(found)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of `text`; with `special`, as the model expects a prompt (ours begin with `<|bos|>`).

        Raises E_PROMPT for text that is not valid Unicode (lone surrogates).
        """
        with library_errors():
            return list(self._inner.encode(text, add_special_tokens=special).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens, over all cores."""
        with library_errors():
            return [e.ids for e in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens are left out, bytes that are not UTF-8 become U+FFFD."""
        if not self._plain_ids.isdisjoint(ids):
            return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")
        with library_errors():
            return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Readable pieces, one an id: the text of each token alone, or a special token's name."""
        special = self.special_ids
        return [str(self._inner.id_to_token(i)) if i in special else self.decode([i]) for i in ids]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(i for i, t in self._inner.get_added_tokens_decoder().items() if t.special)

    @cached_property
    def _plain_ids(self) -> frozenset[int]:
        """Added tokens of a byte-level vocabulary that GPT-2's alphabet would misread: "não" as 6E E3 6F.

        Their content is plain text, which the library's ByteLevel decoder takes for the alphabet (as of
        tokenizers 0.23). Content that means UTF-8 in the alphabet (`Ġfim`) is left to that meaning.
        """
        if not self.is_byte_level:
            return frozenset()
        added = self._inner.get_added_tokens_decoder().items()
        return frozenset(i for i, token in added if not token.special and is_misread(token.content))

    @cached_property
    def added_ids(self) -> frozenset[int]:
        """Ids of the tokens that were added to the vocabulary, special or not."""
        return frozenset(self._inner.get_added_tokens_decoder())

    @cached_property
    def is_byte_level(self) -> bool:
        """Whether every token stands for bytes (GPT-2's alphabet), as in ours."""
        decoder = self._inner.decoder
        return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()

    @cached_property
    def is_metaspace(self) -> bool:
        """Whether tokens are written SentencePiece's way (`▁`, `<0x0A>`), as in Llama 2 or TeenyTinyLlama."""
        return not self.is_byte_level and spelling.is_metaspace(self._body)

    @cached_property
    def marks_start(self) -> bool:
        """Whether a text's first token holds a space that the text has not."""
        return self.is_metaspace and spelling.marks_start(self._body)

    @cached_property
    def strips_start(self) -> bool:
        """Whether `decode` takes that space away."""
        return self.is_metaspace and spelling.strips_start(self._body)

    @property
    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self._inner.to_str())
        return body

    def token_name(self, token_id: int) -> str | None:
        """The token as the vocabulary writes it, or None beyond its end."""
        found = self._inner.id_to_token(token_id)
        return None if found is None else str(found)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of an id of a byte-level or SentencePiece-style vocabulary, worked out when asked for.

        Empty for special tokens.
        """
        known = self._bytes_of.get(token_id)
        if known is None:
            known = self._bytes_of[token_id] = self._spell(token_id)
        return known

    def _spell(self, token_id: int) -> bytes:
        token = self._inner.id_to_token(token_id)
        if token is None or token_id in self.special_ids:
            return b""
        if self.is_metaspace:
            return spelling.spell(str(token))
        if token_id in self._plain_ids or not BYTE_OF.keys() >= set(token):  # an added token, plain text
            return str(token).encode("utf-8")
        return bytes(BYTE_OF[char] for char in token)

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """(vocab_size,) UTF-8 bytes of each id, 0 for special tokens: the divisor of bits per byte."""
        if self.is_byte_level or self.is_metaspace:
            lengths = [len(self.token_bytes(i)) for i in range(self.vocab_size)]
        else:  # an approximation: WordPiece and the like do not record the spaces between words
            special, name = self.special_ids, self._inner.id_to_token
            lengths = [
                0 if i in special else len(str(name(i) or "").encode("utf-8")) for i in range(self.vocab_size)
            ]
        return np.array(lengths, dtype=np.int32)

    @cached_property
    def start_marks(self) -> npt.NDArray[np.int32]:
        """(vocab_size,) 1 where an id, first in its text, holds the space that the text has not."""
        if not self.marks_start:
            return np.zeros(self.vocab_size, dtype=np.int32)
        marked = [self.token_bytes(i).startswith(b" ") for i in range(self.vocab_size)]
        return np.array(marked, dtype=np.int32)

    def target_bytes(self, tokens: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """(..., T) UTF-8 bytes of the text of each of `tokens` (..., T + 1) but the first.

        They add up to a document's size: what follows a special token is the start of a text.
        """
        before, targets = tokens[..., :-1], tokens[..., 1:]
        counted: npt.NDArray[np.int32] = self.byte_lengths[targets] - self.start_marks[targets] * (
            self.byte_lengths[before] == 0
        )
        return counted

    def stream_decoder(self, *, continuation: bool = False) -> StreamDecoder:
        """A new incremental decoder for one text.

        continuation: the text goes on from a prompt, so that its first space is its own.
        """
        return StreamDecoder(self, continuation=continuation)

    def hf_config(
        self, max_seq_len: int, *, bos: int | None, eos: int | None, pad: int | None
    ) -> dict[str, Any]:
        """The `tokenizer_config.json` that lets AutoTokenizer open our tokenizer.json.

        bos, eos, pad: the model's. With ChatML's tokens in the vocabulary, also its template.
        """
        ids = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
        names = {key: None if i is None else self.token_name(i) for key, i in ids.items()}
        chat = all(self.token_id(name) is not None for name in CHAT_TOKENS)
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_seq_len,
            "clean_up_tokenization_spaces": False,
            **{key: name for key, name in names.items() if name is not None},
            **({"chat_template": CHAT_TEMPLATE} if chat else {}),
        }


class StreamDecoder:
    """Text from tokens, one at a time, that never splits a UTF-8 character.

    Byte-level and SentencePiece-style vocabularies go through an incremental UTF-8 decoder, exact and O(1) a
    token; others through the tokenizers library's DecodeStream. In a run of byte tokens that is not UTF-8 the
    library gives up every byte of it; here the characters that are whole come out.
    """

    def __init__(self, tokenizer: Tokenizer, *, continuation: bool = False) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        known = tokenizer.is_byte_level or tokenizer.is_metaspace
        self._foreign = None if known else DecodeStream(skip_special_tokens=True)
        self._strip = tokenizer.strips_start and not continuation
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        if self._foreign is None:
            return self._stripped(self._utf8.decode(self._tokenizer.token_bytes(token)))
        self._ids.append(token)
        with library_errors():
            text = self._foreign.step(self._tokenizer._inner, token) or ""
        self._emitted += len(text)
        return str(text)

    @property
    def pending(self) -> bytes:
        """Bytes of a character that is not finished; none for other kinds of vocabulary."""
        return self._utf8.getstate()[0]

    def finish(self) -> str:
        """What is left at the end: an unfinished character becomes U+FFFD."""
        if self._foreign is None:
            return self._stripped(self._utf8.decode(b"", final=True))
        return self._tokenizer.decode(self._ids)[self._emitted :]

    def _stripped(self, text: str) -> str:
        """`text` without the space that a start mark left."""
        if not (self._strip and text):
            return text
        self._strip = False
        return text.removeprefix(" ")


_OTHER_FORMS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Files of tokenizers that transformers can turn into a tokenizer.json."""
_CONVERT = (
    "import sys, transformers as t; t.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])"
)


def _missing(file: Path) -> SlmError:
    """No tokenizer.json: another form of it may lie there."""
    other = next((name for name in _OTHER_FORMS if (file.parent / name).is_file()), None)
    if other is None:
        return SlmError(
            "E_TOKENIZER_MISSING",
            "não encontrei o tokenizador.",
            where=file,
            hint="Treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return SlmError(
        "E_TOKENIZER_MISSING",
        f"a pasta traz o tokenizador em {other}; nós lemos tokenizer.json.",
        where=file,
        hint="Converta com o transformers (pip install transformers sentencepiece):  "
        f'python -c "{_CONVERT}" {quoted(file.parent)}',
    )


@contextmanager
def library_errors() -> Iterator[None]:
    """What the tokenizers library raises, panics included, as a `SlmError`."""
    try:
        yield
    except BaseException as error:
        known = _known_error(error)
        if known is None:
            raise
        raise known from error


def _known_error(error: BaseException) -> SlmError | None:
    """The error to give for one of the tokenizers library; None for what is not of its making."""
    if isinstance(error, TypeError | UnicodeEncodeError):
        return SlmError(
            "E_PROMPT",
            "o texto tem caracteres que não são Unicode válido.",
            where=str(error)[:120],
            hint="Salve o texto em UTF-8 e tente de novo.",
        )
    if type(error).__name__ == "PanicException":  # a Rust panic: a regex that gives up on this text, say
        return SlmError(
            "E_TOKENIZER_INVALID",
            f"o tokenizador falhou neste texto ({str(error)[:120]}): alguma regra dele está errada.",
            where="tokenizer.json",
            hint="Use um tokenizer.json do ptbr-slm ou da Hugging Face.",
        )
    return None
