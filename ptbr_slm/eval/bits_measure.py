"""Measures a subject on a held-out text: bits per byte, with documents as units of the interval.

A model on this machine is read in the windows of training's evaluation (`ptbr_slm.eval.bits`): the documents
end to end, each between the tokens that begin and end a text, as `data prepare` lays them. On a `valid` split
that is read whole, the result is the one that training printed.

A server does not tell its tokens, so each document is scored piece by piece through `Subject.score`, after at
least half a window of its own text; the first word of a document is not counted, as nothing precedes it.
"""

from __future__ import annotations

import hashlib
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import UNCOUNTED, EncodedText, HeldOut, held_out_windows
from ptbr_slm.eval.bits_sources import HeldOutText
from ptbr_slm.eval.results import BitsRecord, DocumentBits
from ptbr_slm.eval.statistics import bootstrap_ratio, unit_sums
from ptbr_slm.eval.subject import LocalSubject, Subject
from ptbr_slm.text import number
from ptbr_slm.tokenizer import Tokenizer

WINDOW = 512
"""Targets of a window, where the context holds them and training did not say otherwise."""
SHORT = 64
"""Tokens of a document: a median below it measures short context only."""
_CHARACTERS = 3
"""Of a token at least, in a text that a server scores: Portuguese has 3 to 4.5, by the vocabulary."""
_SCORED_AT_ONCE = 64

Logprobs = Callable[[Sequence[int]], npt.NDArray[np.float64]]
"""Token ids (T,) -> (T - 1,) nats of each but the first, given those before it."""
Advance = Callable[[float], None]
"""Called with the share that is done."""


def measure_bits(
    subject: Subject, text: HeldOutText, *, seq_len: int = WINDOW, advance: Advance = lambda share: None
) -> BitsRecord:
    """Bits per byte of a text.

    seq_len: tokens of a window; no more than the context are taken. advance: called with the share done.
    Raises E_TOKENIZER_LOSSY where the tokenizer does not give the text back, E_MODEL_INVALID where the model
    gives NaN, E_DATA_EMPTY where there is nothing to count, and what `Subject.score` raises for a server.
    """
    seq_len = min(seq_len, subject.context)
    if isinstance(subject, LocalSubject):
        engine = subject.model.engine
        documents = by_windows(
            subject.model.logprobs, engine.tokenizer, engine.config, text, seq_len, advance
        )
        return _record(text, documents, seq_len, seq_len - seq_len // 2, ())
    documents = list(_by_scores(subject, text, seq_len, advance))
    note = "medido documento por documento, pois o servidor não mostra os tokens; a 1ª palavra não conta"
    return _record(text, documents, seq_len, seq_len - seq_len // 2, (note,))


def by_windows(
    logprobs: Logprobs,
    tokenizer: Tokenizer,
    config: ModelConfig,
    text: HeldOutText,
    seq_len: int,
    advance: Advance = lambda share: None,
) -> list[DocumentBits]:
    """What each document costs, window by window. Raises as `measure_bits`."""
    windows = text_windows(tokenizer, config, text, seq_len)
    assert windows.documents is not None and windows.target_bytes is not None
    nats = np.zeros(len(text.documents))
    for done, ((inputs, targets), documents) in enumerate(
        zip(windows.windows(), windows.documents, strict=True), 1
    ):
        counted = np.flatnonzero(targets != UNCOUNTED)
        found = logprobs([*inputs.tolist(), int(targets[-1])])  # the last target that counts is the last id
        np.subtract.at(nats, documents[counted], found[counted])
        advance(done / len(windows.inputs))
    if not np.isfinite(nats).all():
        raise _not_finite()
    counting = windows.targets != UNCOUNTED
    sizes = np.bincount(windows.documents[counting], windows.target_bytes[counting])
    tokens = np.bincount(windows.documents[counting])
    return [
        _document(text, place, float(nats[place]), int(sizes[place]), int(tokens[place]))
        for place in np.flatnonzero(tokens).tolist()
    ]


def text_windows(tokenizer: Tokenizer, config: ModelConfig, text: HeldOutText, seq_len: int) -> HeldOut:
    """All of a text in windows: `<begin> document <end>`, end to end. Raises E_TOKENIZER_LOSSY."""
    check_lossless(tokenizer, text)
    end = [config.eos_token_ids[0]] if config.eos_token_ids else []
    begin = end if config.bos_token_id is None else [config.bos_token_id]
    encoded = tokenizer.encode_batch(text.documents)
    parts = [[*begin, *ids, *end] for ids in encoded]
    ids = np.array([token for part in parts for token in part], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, parts)])
    found = held_out_windows(EncodedText(ids), tokenizer, seq_len, len(ids), name=text.name, offsets=offsets)
    size = sum(len(document.encode()) for document in text.documents)
    if found is None or (begin and found.bytes != size):
        raise SlmError(
            "E_TOKENIZER_LOSSY",
            f"os tokens do texto somam {0 if found is None else found.bytes} bytes, e o texto tem {size}.",
            where=text.source,
            hint="Este tokenizador não diz que bytes um token representa: compare o modelo só por tarefas.",
        )
    return found


def check_lossless(tokenizer: Tokenizer, text: HeldOutText) -> None:
    """Raise E_TOKENIZER_LOSSY, with what is lost, where the tokenizer does not give a document back.

    Lower case, NFKC or unknown characters make another text, which is easier to predict.
    """
    lost: Counter[str] = Counter()
    changed = 0
    for document, ids in zip(text.documents, tokenizer.encode_batch(text.documents), strict=True):
        back = tokenizer.decode(ids)
        if back != document:
            changed += 1
            lost += Counter(document) - Counter(back)
    if not changed:
        return
    shown = ", ".join(f"{_shown(character)} ({number(count)} x)" for character, count in lost.most_common(6))
    more = f" e mais {number(len(lost) - 6)} caracteres" if len(lost) > 6 else ""
    what = f"perde {shown}{more}" if lost else "muda os espaços ou a ordem dos caracteres"
    raise SlmError(
        "E_TOKENIZER_LOSSY",
        f"o tokenizador {what}: {number(changed)} de {number(len(text.documents))} documentos não voltam "
        "iguais. Os bits por byte seriam de outro texto, mais fácil.",
        where=text.source,
        hint="Compare este modelo por tarefas, ou meça os dois em um texto que o tokenizador não altere.",
    )


def _by_scores(subject: Subject, text: HeldOutText, seq_len: int, advance: Advance) -> Iterator[DocumentBits]:
    """What each document costs, by scores of its pieces."""
    half = max(1, seq_len // 2 - 1) * _CHARACTERS
    for place, document in enumerate(text.documents):
        nats, size, tokens = 0.0, 0, 0
        pieces = iter(_spans(document, half))
        while batch := list(islice(pieces, _SCORED_AT_ONCE)):
            for (_, continuation), (score,) in zip(
                batch, subject.score((prompt, [piece]) for prompt, piece in batch), strict=True
            ):
                nats -= score.logprob
                size += len(continuation.encode())
                tokens += score.tokens
        if not math.isfinite(nats):
            raise _not_finite()
        if tokens:
            yield _document(text, place, nats, size, tokens)
        advance((place + 1) / len(text.documents))


def _spans(document: str, half: int) -> Iterator[tuple[str, str]]:
    """(what comes before, piece) for pieces of about `half` characters that begin with their white space."""
    borders = [match.start() for match in re.finditer(r"\s+(?=\S)", document)]
    start = next(iter(borders), len(document))
    for border in [*borders, len(document)]:
        if border - start >= half or (border == len(document) and border > start):
            before = next((b for b in borders if b >= start - half), start) if start > half else 0
            yield document[min(before, start) : start].lstrip(), document[start:border]
            start = border


def _document(text: HeldOutText, place: int, nats: float, size: int, tokens: int) -> DocumentBits:
    document = text.documents[place]
    return DocumentBits(
        id=text.ids[place],
        sha256=hashlib.sha256(document.encode()).hexdigest()[:16],
        bits=round(nats / math.log(2), 6),
        bytes=size,
        tokens=tokens,
        beginning=textwrap.shorten(document[:400], 80, placeholder="…"),
    )


def _record(
    text: HeldOutText,
    documents: Sequence[DocumentBits],
    seq_len: int,
    overlap: int,
    notes: tuple[str, ...],
) -> BitsRecord:
    if not documents:
        raise SlmError(
            "E_DATA_EMPTY",
            "nenhum documento tem o que medir.",
            where=text.source,
            hint="Use documentos de mais de uma palavra.",
        )
    median = int(np.median([document.tokens for document in documents]))
    record = BitsRecord(
        name=text.name,
        source=text.source,
        text_sha256=text.sha256,
        seq_len=seq_len,
        overlap=overlap,
        targets=sum(document.tokens for document in documents),
        bytes=sum(document.bytes for document in documents),
        value=sum(document.bits for document in documents) / sum(document.bytes for document in documents),
        interval=None,
        median_tokens=median,
        documents=tuple(documents),
    )
    units = record.units
    bits, sizes = unit_sums(units, [(one.bits, one.bytes) for one in documents]).T
    return replace(
        record,
        interval=bootstrap_ratio(bits, sizes) if len(bits) > 1 else None,
        notes=(*_text_notes(text, record, len(bits)), *notes),
    )


def _text_notes(text: HeldOutText, record: BitsRecord, units: int) -> Iterator[str]:
    documents = len({document.id.split(".")[0] for document in record.documents})
    if any("." in document.id for document in record.documents):
        yield f"{number(len(record.documents))} trechos de {number(documents)} {text.kind}, sorteados"
    elif documents < text.of:
        yield f"{number(documents)} de {number(text.of)} {text.kind}, sorteados"
    if record.median_tokens < SHORT:
        yield f"{text.kind} com mediana de {number(record.median_tokens)} tokens: mede só o contexto curto"
    if documents == 1 and units > 1:
        yield "um só documento: o intervalo é entre trechos dele, e não diz nada de outros textos"
    elif units < 10:
        yield f"{number(units)} {text.kind}: poucos para um intervalo confiável"


def _shown(character: str) -> str:
    return f"«{character}»" if character.isprintable() else f"U+{ord(character):04X}"


def _not_finite() -> SlmError:
    return SlmError(
        "E_MODEL_INVALID",
        "o modelo dá probabilidades que não são números (NaN).",
        where="bits por byte",
        hint="O treino divergiu, ou a precisão não serve para este modelo: avalie outro checkpoint.",
    )
