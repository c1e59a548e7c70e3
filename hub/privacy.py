"""Refuse to publish texts that name folders of this machine or contain a token of the Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import get_token

from crosstask.hub.cards import read_test_rows
from crosstask.utils.errors import HubError

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9_]{20,}")
_TEXT_SUFFIXES = (".json", ".md", ".yaml", ".yml", ".txt", ".py", ".jinja", ".csv")
# The words of a vocabulary come from a corpus and may look like a path or a token.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"})


def check_public(files: Mapping[str, Path | str], *folders: Path) -> None:
    """
    Raise an error if a text reveals something about this machine or its user.

    Args:
        files (`dict[str, Path | str]`): A local file, or its text, by path in the repository. Vocabularies
            and files that are not texts (weights, tables) are not searched.
        folders (`Path`): Folders that must not be named, besides the home folder and the current folder.

    Raises:
        HubError: If a text contains the path of one of these folders or a token of the Hub; names the file.
    """
    folders = (Path.home(), Path.cwd(), *folders)
    private = {str(folder) for folder in folders if folder.is_absolute()}
    private |= {str(folder.resolve()) for folder in folders}
    token = (get_token() or "").encode()
    for path, file in files.items():
        if not path.endswith(_TEXT_SUFFIXES) or Path(path).name in _VOCABULARIES:
            continue
        content = file.encode() if isinstance(file, str) else file.read_bytes()
        if (token and token in content) or _TOKEN.search(content):
            raise HubError(f"{path}: contains what looks like a token of the Hub; nothing was published")
        for folder in sorted(private - {"/"}):
            if _names_folder(content, folder):
                raise HubError(f"{path}: names a folder of this machine ({folder}); nothing was published")


def check_rows(files: Mapping[str, Path | str], run_dir: str | os.PathLike) -> None:
    """
    Raise an error if a text contains a passage of a run's test rows that its card does not show on purpose.

    Args:
        files (`dict[str, Path | str]`): Same as in [`check_public`]; the examples in `metrics.json` are those
            that the card may show.
        run_dir (`str` or `os.PathLike`): The run's folder.

    Raises:
        HubError: Names the file and the row.
    """
    shown = {example["passage"] for example in json.loads(str(files["metrics.json"]))["examples"]}
    rows = {row["passage"]: row["id"] for row in read_test_rows(run_dir) if row["passage"] not in shown}
    for path, file in files.items():
        if not path.endswith((".md", ".json", ".yaml")) or Path(path).name in _VOCABULARIES:
            continue
        content = _keep_letters(file if isinstance(file, str) else file.read_text(encoding="utf-8"))
        for passage, row_id in rows.items():
            letters = _keep_letters(max(passage.splitlines(), key=len))
            if len(letters) > 20 and letters in content:
                raise HubError(
                    f"{path}: contains the passage of the test row {row_id!r}; nothing was published"
                )


def _keep_letters(text: str) -> str:
    # A card breaks texts into lines, and escapes some characters.
    return "".join(re.findall(r"\w", text))


def _names_folder(content: bytes, folder: str) -> bool:
    # "/tmp" alone may be meant in general, so of a top-level folder only files in it count.
    end = rb"/" if folder.count("/") == 1 else rb"(?![\w.-])"
    spellings = {folder, json.dumps(folder)[1:-1]}
    return any(re.search(rb"(?<![\w.])" + re.escape(name.encode()) + end, content) for name in spellings)
