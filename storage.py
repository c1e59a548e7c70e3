"""Files that are either whole or not there."""

import os
import shutil
from pathlib import Path


def write_text(path, text):
    """Write a text file under a temporary name, then rename it: a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def save_whole(folder, write):
    """Let `write(folder)` fill a temporary folder, then rename it to `folder`, which must not exist."""
    folder = Path(folder)
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed while writing
    temporary.mkdir(parents=True)
    write(temporary)
    os.replace(temporary, folder)
