"""The members of .zip and .tar archives, each read as a file of its name would be."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ptbr_slm.data.document import Document, Skipped
from ptbr_slm.data.read.compressed import CORRUPT, Expansion, buffered, compression_of, decompressed
from ptbr_slm.data.read.files import format_of, is_about
from ptbr_slm.data.read.formats import READERS, Found, corrupt


def read_zip(raw: BinaryIO, name: str, text_field: str, size: int) -> Found:
    """The members of a .zip of `size` bytes, in its order; a damaged one ends with what could be read."""
    expansion = Expansion(lambda: size)
    try:
        archive = zipfile.ZipFile(raw)
    except (zipfile.BadZipFile, *CORRUPT, ValueError) as error:
        yield corrupt(error, name)
        return
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if not members:
            yield Skipped("empty", name)
        for member in members:
            source = f"{name}/{member.filename}"
            try:
                opened = archive.open(member)
            except (zipfile.BadZipFile, *CORRUPT) as error:
                yield corrupt(error, source)
                continue
            except (RuntimeError, NotImplementedError, OSError):  # a password, an unknown compression
                yield Skipped("unreadable", source)
                continue
            with opened:
                read = _zip_errors(opened.read)
                for found in _member(read, source, member.filename, text_field, expansion):
                    yield found
                    if isinstance(found, Skipped) and found.reason == "bomb":
                        return


def _zip_errors(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """`read`, whose wrong checksum is an error of a corrupt stream."""

    def checked(size: int) -> bytes:
        try:
            return read(size)
        except zipfile.BadZipFile as error:
            raise EOFError(str(error)) from error

    return checked


def read_tar(stream: BinaryIO, name: str, text_field: str) -> Found:
    """The members of a .tar, in its order, from a stream that cannot go back."""
    empty = True
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                empty = False
                opened = archive.extractfile(member)
                if opened is not None:
                    source, expansion = f"{name}/{member.name}", _expansion_of(member)
                    yield from _member(opened.read, source, member.name, text_field, expansion)
    except (tarfile.TarError, *CORRUPT) as error:
        yield corrupt(error, name)
        return
    if empty:
        yield Skipped("empty", name)


def _expansion_of(member: tarfile.TarInfo) -> Expansion:
    """Of a member that is compressed itself; the archive's own is watched where it is decompressed."""
    return Expansion(lambda: member.size)


def _member(
    read: Callable[[int], bytes], source: str, name: str, text_field: str, expansion: Expansion
) -> Iterator[Document | Skipped]:
    base = name.rpartition("/")[2]
    if base.startswith(".") or name.startswith("__MACOSX/"):
        return
    format = format_of(name)
    reader = READERS.get(format or "")
    if reader is None or is_about(base):
        yield Skipped("unknown_format", source)
        return
    inner: io.BufferedReader = buffered(read, expansion)
    with decompressed(inner, compression_of(name), expansion) as stream:
        yield from reader(stream, source, text_field)
