"""What a teacher expects after each token of prepared text, stored: its k best tokens, and the rest as one.

    facts.json  logits-00000.bin ...  manifest.json

Record p is the prediction after token p of the training part, in little-endian numbers: k + 1 float16
log-probabilities (of the k tokens, most probable first, then of all others together), then k ids in uint16
(uint32 above 65,536 ids). With k = 32 that is 130 bytes a token, or 194.

facts.json is written first and says of what the records are; manifest.json is written last. A folder without
manifest is unfinished: whoever writes it goes on behind its last whole file (`ptbr_slm.train.teacher`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.shards import token_dtype
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_file, write_json
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import read_manifest, write_manifest

KIND = "teacher-logits"
FACTS = "facts.json"
SHARD_RECORDS = 1 << 18
"""Records of a file at most, 34 MB with k = 32: what a killed writer does again."""
LEAST = -60.0
"""Log-probabilities are not below: e^-60 is nothing, and float16 and every sum stay finite."""

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """What records are of. The same facts are the same predictions."""

    teacher: str
    """The name of its folder."""
    teacher_sha256: str
    """`ModelFolder.sha256`."""
    data_sha256: str
    """`PreparedData.sha256`."""
    tokenizer_sha256: str
    vocab_size: int
    tokens: int
    """Records: tokens of the training part."""
    top_k: int
    context: int
    """Tokens that the teacher read at once."""
    shard_records: int
    """Records of each file but the last."""

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Of a record."""
        ids = np.dtype(token_dtype(self.vocab_size)).newbyteorder("<")
        return np.dtype([("log_probabilities", "<f2", (self.top_k + 1,)), ("ids", ids, (self.top_k,))])

    def shards(self) -> Iterator[tuple[str, int, int]]:
        """(file, first record, one past the last) of each file."""
        for number, start in enumerate(range(0, self.tokens, self.shard_records)):
            yield f"logits-{number:05d}.bin", start, min(start + self.shard_records, self.tokens)


class TeacherLogits:
    """A finished folder of a teacher's predictions."""

    def __init__(self, folder: Path, facts: TeacherFacts, sha256: str) -> None:
        self.folder, self.facts = folder, facts
        self.sha256 = sha256
        """Identity: over facts and files."""

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> TeacherLogits:
        """Open a folder that `data teacher-logits` made. verify: read all files and compare their sha256.

        Raises E_NOT_FOUND, E_DATA_CORRUPT or E_SCHEMA.
        """
        facts = read_facts(folder) if folder.is_dir() else None
        if facts is None:
            raise SlmError("E_NOT_FOUND", "não há previsões de um professor aqui.", where=folder, hint=_MAKE)
        if not (folder / MANIFEST).exists():
            raise SlmError(
                "E_NOT_FOUND", "estas previsões ainda não estão completas.", where=folder, hint=_GO_ON
            )
        manifest = read_manifest(folder, code="E_DATA_CORRUPT", hashes=verify)
        sizes = {name: (stop - start) * facts.dtype.itemsize for name, start, stop in facts.shards()}
        if manifest.kind != KIND or sizes != {
            name: entry["size"] for name, entry in manifest.files.items() if name != FACTS
        }:
            raise corrupt("os arquivos não são os que facts.json descreve.", folder)
        content = json.dumps({name: entry["sha256"] for name, entry in sorted(manifest.files.items())})
        return cls(folder, facts, hashlib.sha256(content.encode()).hexdigest())

    def check_data(self, data: PreparedData) -> None:
        """Refuse data that the predictions are not of. Raises E_TOKENIZER_MISMATCH or E_DATA_CORRUPT."""
        check_same_tokenizer(self.facts.tokenizer_sha256, data, self.folder)
        if (self.facts.data_sha256, self.facts.tokens) != (data.sha256, data.split("train").tokens):
            raise SlmError(
                "E_DATA_CORRUPT",
                f"estas previsões do professor são de outros dados (sha256 {self.facts.data_sha256[:12]}; "
                f"os do treino, {data.sha256[:12]}).",
                where=self.folder,
                hint="Treine com os dados de que elas são, ou refaça-as para estes. " + _MAKE,
            )

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float16]]:
        """Ids (n, k) and log-probabilities (n, k + 1) after the tokens start..stop of the training part.

        Raises E_DATA_CORRUPT for an id out of the vocabulary and for what is no log-probability.
        """
        size = self.facts.shard_records
        pieces = []
        for number in range(start // size, -(-stop // size)):
            low = number * size
            pieces.append(self._maps[number][max(start - low, 0) : stop - low])
        records = np.concatenate(pieces)
        ids, log_probabilities = records["ids"].astype(np.int32), records["log_probabilities"]
        if ids.size and int(ids.max()) >= self.facts.vocab_size:
            raise corrupt(f"há um id fora do vocabulário, entre os tokens {start} e {stop}.", self.folder)
        if not ((log_probabilities >= 2 * LEAST) & (log_probabilities <= 0)).all():
            raise corrupt(f"há uma probabilidade inválida, entre os tokens {start} e {stop}.", self.folder)
        return ids, np.ascontiguousarray(log_probabilities)

    @cached_property
    def _maps(self) -> list[Records]:
        with os_errors(self.folder):
            return [
                np.memmap(self.folder / name, self.facts.dtype, "r") for name, _, _ in self.facts.shards()
            ]


def begin(folder: Path, facts: TeacherFacts) -> list[tuple[str, int, int]]:
    """Begin to write into `folder`, or go on: the files that it does not have yet (`TeacherFacts.shards`).

    Raises E_EXISTS where the folder holds anything else, or the predictions of others.
    """
    there = read_facts(folder) if folder.is_dir() else None
    if there is None and folder.is_dir() and any(folder.iterdir()):
        raise SlmError(
            "E_EXISTS",
            "a pasta já tem outra coisa: não vou misturá-la com as previsões do professor.",
            where=folder,
            hint="Escolha outra pasta em --output.",
        )
    if there is not None and there != facts:
        changed = [f.name for f in fields(facts) if getattr(there, f.name) != getattr(facts, f.name)]
        raise SlmError(
            "E_EXISTS",
            f"a pasta já tem previsões de outro professor, de outros dados ou de outra forma "
            f"({', '.join(changed)}).",
            where=folder,
            hint="Escolha outra pasta em --output, ou apague esta.",
        )
    if there is None:
        write_json(folder / FACTS, asdict(facts))
    size = facts.dtype.itemsize
    return [
        (name, start, stop)
        for name, start, stop in facts.shards()
        if not (folder / name).is_file() or (folder / name).stat().st_size != (stop - start) * size
    ]


def write_records(folder: Path, name: str, records: Records) -> None:
    """Write one file, atomically. Raises E_DISK_FULL, E_PERMISSION or E_IO."""
    with atomic_file(folder / name) as file:
        records.tofile(file)


def finish(folder: Path) -> TeacherLogits:
    """Write the manifest, when all files are there."""
    write_manifest(folder, KIND)
    return TeacherLogits.open(folder)


def read_facts(folder: Path) -> TeacherFacts | None:
    """What the records of this folder are, or will be, of; None where it holds none.

    Raises E_DATA_CORRUPT for a facts.json that we did not write.
    """
    file = folder / FACTS
    if not file.is_file():
        return None
    with os_errors(file):
        raw = file.read_bytes()
    try:
        facts = TeacherFacts(**json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
        raise corrupt("facts.json está quebrado.", file) from error
    numbers = (facts.vocab_size, facts.tokens, facts.top_k, facts.context, facts.shard_records)
    names = (facts.teacher, facts.teacher_sha256, facts.data_sha256, facts.tokenizer_sha256)
    if any(type(n) is not int or n < 1 for n in numbers) or any(type(name) is not str for name in names):
        raise corrupt("facts.json está quebrado.", file)
    return facts


def check_same_tokenizer(sha256: str, data: PreparedData, where: Path) -> None:
    """Refuse a teacher whose ids are not those of the data. Raises E_TOKENIZER_MISMATCH."""
    if sha256 != data.tokenizer_sha256:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"o tokenizador do professor ({sha256[:12]}) não é o dos dados ({data.tokenizer_sha256[:12]}): "
            "as probabilidades dele são de outros tokens.",
            where=where,
            hint="Prepare os dados com o tokenizador do professor, ou aprenda só do texto dele "
            "(docs/DESTILAR.md).",
        )


def corrupt(message: str, where: Path) -> SlmError:
    """E_DATA_CORRUPT with the usual advice."""
    return SlmError("E_DATA_CORRUPT", message, where=where, hint=f"Apague a pasta. {_MAKE}")


_MAKE = "Faça-as com:  ptbr-slm data teacher-logits PROFESSOR DADOS -o PASTA"
_GO_ON = "Repita o comando que as faz: ele continua de onde parou."
