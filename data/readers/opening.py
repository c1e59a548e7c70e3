"""Open the text files of a source: names and suffixes, compression, and encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from crosstask.utils.errors import DataError, first_line

# A byte order mark names the encoding; the one of UTF-32 begins with the one of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_UTF8_HINT = "it is valid UTF-8, which needs no `data_encoding`"


@dataclass(frozen=True)
class TextFormat:
    """How the text files of a source are written, if their names and contents do not tell.

    Attributes:
        delimiter (`str`, *optional*): The character between two fields of a CSV file.
        encoding (`str`, *optional*): The name of an encoding that Python knows, such as "cp1252".
    """

    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and not (len(self.delimiter) == 1 and self.delimiter not in '"\r\n'):
            raise DataError(f"`data_delimiter`: expected one character such as ;, got {self.delimiter!r}")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            got = f"got {self.encoding!r}"
            raise DataError(
                f"`data_encoding`: expected one that Python knows, such as cp1252, {got}"
            ) from None


DEFAULT_TEXT_FORMAT = TextFormat()


def split_name(path: Path) -> tuple[str, str]:
    """Return the stem and the suffix of a file, e.g. `("Rows", ".csv")` of "Rows.CSV.gz".

    The suffix is in lower case, and neither has the suffix of the compression.
    """
    if path.suffix.lower() in _OPENERS:
        path = path.with_suffix("")
    return path.stem, path.suffix.lower()


def read_lines(path: Path, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a text file, with their line breaks.

    Bytes that are not of the encoding become surrogates; [`check_text`] detects them, line by line.

    Args:
        path (`Path`):
            The file.
        encoding (`str`, *optional*, defaults to UTF-8):
            A name that Python knows, such as "cp1252", for a file without a byte order mark.

    Raises:
        DataError: If the file cannot be read.
    """
    with _open_text(path, encoding) as file:
        yield from file


def read_text(path: Path, encoding: str | None = None) -> str:
    """Return the text of a file; the arguments are those of [`read_lines`].

    Raises:
        DataError: If the file cannot be read.
        UnicodeError: If it holds bytes that are not of the encoding.
    """
    with _open_text(path, encoding) as file:
        text = file.read()
    return check_text(text, encoding)


def check_text(text: str, encoding: str | None = None) -> str:
    """Return a text of [`read_lines`] or [`read_text`], which take the same encoding.

    Raises:
        UnicodeError: If it holds surrogates of bytes that could not be decoded. The message says what was
            expected.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        hint = "`data_encoding` names another encoding, such as cp1252"
        if encoding and _is_utf8(text, encoding):
            hint = _UTF8_HINT
        got = f"the byte 0x{ord(text[error.start]) - 0xDC00:02x} at position {error.start}"
        raise UnicodeError(f"expected {encoding or 'UTF-8'}, got {got}; {hint}") from None
    return text


def _is_utf8(text: str, encoding: str) -> bool:
    """Return whether the bytes that were decoded by another encoding are valid UTF-8."""
    try:
        text.encode(encoding, "surrogateescape").decode("utf-8")
    except UnicodeError:
        return False
    return True


def _is_utf8_file(path: Path) -> bool:
    try:
        read_text(path)
    except (DataError, UnicodeError):
        return False
    return True


@contextmanager
def _open_text(path: Path, encoding: str | None) -> Iterator[IO[str]]:
    try:
        with _OPENERS.get(path.suffix.lower(), _open_plain)(path) as file:
            start = file.peek(4)
            marked = (name for mark, name in _ENCODINGS.items() if start.startswith(mark))
            codec = next(marked, encoding or "utf-8")
            yield io.TextIOWrapper(file, codec, errors="surrogateescape", newline="\n")
    except UnicodeError as error:  # in UTF-16, surrogates cannot stand for all bytes
        hint = f"; {_UTF8_HINT}" if encoding and _is_utf8_file(path) else ""
        raise DataError(f"{path}: cannot be read as {codec}: {first_line(error)}{hint}") from None
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
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
