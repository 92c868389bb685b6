"""What `--data` may name: prepared data, one of their .bin files, or texts, which are prepared on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ptbr_slm.data import index
from ptbr_slm.data.clean import NORMALIZATION
from ptbr_slm.data.files import list_files
from ptbr_slm.data.prepare import ProgressCallback, prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.text import quoted
from ptbr_slm.tokenizer import Tokenizer


def resolve(
    path: Path, tokenizer: Path | None, cache: Path, *, progress: ProgressCallback | None = None
) -> PreparedData:
    """The prepared data that `path` names, checked; texts are prepared into `cache`, once.

    tokenizer: a tokenizer.json or its folder; needed for texts, compared where the data have their own.
    Texts are prepared again when a file's size or time, the tokenizer, or the way of cleaning has changed.
    Raises what `PreparedData.open` and `prepare` raise, E_TOKENIZER_MISSING, or E_TOKENIZER_MISMATCH.
    """
    if path.suffix == ".bin" or path.name == index.NAME or (path / index.NAME).is_file():
        data = PreparedData.open(path)
        if tokenizer is not None:
            data.check_tokenizer(Tokenizer.load(tokenizer), tokenizer)
        return data
    files = [(str(file.resolve()), file.stat()) for file, _ in list_files([path])]
    if tokenizer is None:
        raise SlmError(
            "E_TOKENIZER_MISSING",
            "os dados são texto: falta dizer com que tokenizador prepará-los.",
            where=path,
            hint="Acrescente --tokenizer tokenizer.json (para treinar um: "
            f"ptbr-slm tokenizer train {quoted(path)} -o tokenizer.json).",
        )
    opened = Tokenizer.load(tokenizer)
    stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    identity = json.dumps([index.SCHEMA, NORMALIZATION, opened.sha256, stamps])
    folder = (
        cache / f"prepared-{hashlib.sha256(identity.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    )
    if folder.exists():
        try:
            return PreparedData.open(folder)
        except SlmError as error:
            if error.exit_code is not Exit.CORRUPT and error.code != "E_NOT_FOUND":
                raise
            shutil.rmtree(folder, ignore_errors=True)  # a damaged copy of what is about to be made again
    return prepare([path], folder, opened, progress=progress)
