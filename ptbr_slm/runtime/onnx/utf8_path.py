"""A folder by a name that ONNX Runtime takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptbr_slm.text import is_utf8


@contextmanager
def utf8_folder(folder: Path) -> Iterator[Path]:
    """`folder`, or, where its name is not UTF-8, a link to it until the block ends.

    On Linux a name is any bytes; ONNX Runtime's Python binding (pybind11's `std::string`) takes UTF-8 only.
    """
    if is_utf8(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-") as place:
        link = Path(place) / "export"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
