"""Open the text files of a source: names and suffixes, compression, and encoding."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from crosstask.utils.errors import DataError, first_line

# A byte order mark names the encoding; the one of UTF-32 begins with the one of UTF-16.
_ENCODINGS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def split_name(path: Path) -> tuple[str, str]:
    """Return the stem and the suffix of a file, e.g. `("Rows", ".csv")` of "Rows.CSV.gz".

    The suffix is in lower case, and neither has the suffix of the compression.
    """
    if path.suffix.lower() in _OPENERS:
        path = path.with_suffix("")
    return path.stem, path.suffix.lower()


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, with their line breaks.

    Bytes that are not UTF-8 become surrogates; [`check_utf8`] detects them, line by line.

    Raises:
        DataError: If the file cannot be read.
    """
    with _open_text(path) as file:
        yield from file


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        DataError: If the file cannot be read.
        UnicodeError: If it holds bytes that are not UTF-8.
    """
    with _open_text(path) as file:
        text = file.read()
    return check_utf8(text)


def check_utf8(text: str) -> str:
    """Return the text; raise a `UnicodeError` if it holds surrogates of bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8")


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    try:
        with _OPENERS.get(path.suffix.lower(), _open_plain)(path) as file:
            start = file.peek(4)
            encoding = next(
                (name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8-sig"
            )
            yield io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="\n")
    # UnicodeDecodeError: in UTF-16, surrogates cannot stand for all bytes.
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


def _open_plain(path: str | os.PathLike) -> Any:
    return open(path, "rb")


@contextmanager
def _open_zip(path: str | os.PathLike) -> Iterator[Any]:
    with zipfile.ZipFile(path) as archive:
        # Archives of macOS hold a second entry with the attributes of each file.
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
        if len(names) != 1:
            raise DataError(f"{path}: has {len(names)} files, expected one")
        with archive.open(names[0]) as file:
            yield file


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_zip,
}
