"""
Start a command of the package `crosstask` by the name of its script.

This package lies outside of `crosstask`, whose import brings torch and transformers and takes seconds:
`--help` is printed from a file here at once. `.ci/write_help.py` writes the files.
"""

import sys
from importlib import import_module
from pathlib import Path

MODULES = {
    "crosstask-ask": "crosstask.ask",
    "crosstask-build": "crosstask.data.build",
    "crosstask-eval": "crosstask.eval.run",
    "crosstask-publish": "crosstask.hub.publish",
    "crosstask-train": "crosstask.train",
}


def main() -> None:
    """Run the command whose name is that of the running script."""
    name = Path(sys.argv[0]).stem
    if sys.argv[1:] in (["--help"], ["-h"]):
        print((Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8"), end="")
        return
    import_module(MODULES[name]).main()
