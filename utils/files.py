"""Write files and folders atomically, and list the files of a checkpoint that are published."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from crosstask.processing_crosstask import QUESTION_TOKENIZER

CENTROIDS_NAME = "adapter_centroids.safetensors"  # a router saves it next to an adapter's weights
# Patterns of the files that a published checkpoint consists of; `*` stays within a folder. Optimizer states,
# logs and pickles match none of them.
MODEL_FILES = (
    "model*.safetensors",
    "model.safetensors.index*.json",
    "model*.sha256",
    "*_crosstask.py",
    "config.json",
    "generation_config.json",
    "processor_config.json",
)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", CENTROIDS_NAME)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.bpe.codes",
    # The names in `vocab_files_names` of the tokenizers of transformers that match no pattern above.
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "monolingual_vocab.json",
    "normalizer.json",
    "prophetnet.tokenizer",
    "target_vocab.json",
    "tokenizer.tiktoken",
    "vocab-src.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
QUESTION_TOKENIZER_FILES = tuple(f"{QUESTION_TOKENIZER}/{name}" for name in TOKENIZER_FILES)


@contextmanager
def replace_file(path: str | os.PathLike) -> Iterator[Path]:
    """
    Yield a temporary path next to `path`, and rename it to `path` when the block ends.

    A reader therefore never sees half a file. The folder is created if it is missing; if the block fails,
    `path` stays as it was.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")  # always the same name, so that leftovers do not pile up
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file atomically; see [`replace_file`]."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_folder(folder: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then rename it to `folder`, which must not exist."""
    folder = Path(folder)
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir(parents=True)
    write(temporary)
    mode = temporary.stat().st_mode & 0o666  # what the umask leaves; safetensors lets only the owner read
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    os.replace(temporary, folder)


def hash_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 digest of a file in hexadecimal; the file is read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def match_path(path: str, pattern: str) -> bool:
    """Return whether a relative path matches a pattern in which `*` does not cross folders."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def list_model_files(folder: Path) -> dict[str, Path]:
    """
    List the files of a saved model or adapter, and of its processor, that are worth publishing.

    Returns:
        `dict[str, Path]`: The files by their path relative to `folder`.
    """
    patterns = (*MODEL_FILES, *ADAPTER_FILES, *TOKENIZER_FILES, *QUESTION_TOKENIZER_FILES)
    paths = {file.relative_to(folder).as_posix(): file for file in (*folder.glob("*"), *folder.glob("*/*"))}
    return {
        path: file
        for path, file in paths.items()
        if file.is_file() and any(match_path(path, pattern) for pattern in patterns)
    }
