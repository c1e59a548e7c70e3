"""A metric as a Space of the Hub, which `evaluate.load("user/name")` reads where this library is absent."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from pathlib import Path

from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text

METRICS = Path(__file__).parents[1] / "eval" / "metrics"
_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "crosstask"
# What they import only once they compute, and `evaluate` is to ask for when it loads them.
_LATE = {"rouge": {"joblib", "rouge_score"}, "bertscore": {"bert_score"}}


def write_metric_space(name: str, folder: str | os.PathLike[str], *, repo_id: str) -> None:
    """Write the folder of a metric's Space.

    `evaluate` takes the script that is named like the repository, and the files beside it that this script
    itself imports. So every module of this library that the metric needs becomes such a file, and the
    script imports them all.

    Args:
        name: A metric: the name of a folder in `eval/metrics`.
        folder: Where to; made if it is not there.
        repo_id: Where it will be published, "user/name".

    Raises:
        ConfigError: If there is no such metric.
    """
    names = sorted(path.name for path in METRICS.iterdir() if (path / f"{path.name}.py").exists())
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown metric {name!r}, expected one of {', '.join(names)}{hint}")
    folder, script = Path(folder), METRICS / name / f"{name}.py"
    folder.mkdir(parents=True, exist_ok=True)
    files, waiting = {}, [script]
    while waiting:
        file = waiting.pop()
        files[file], modules = _flattened(file)
        waiting += [module for module in modules if module not in files]
    needed = {package for text in files.values() for package in _packages(text)} | _LATE.get(name, set())
    siblings = sorted(_flat_name(file) for file in files if file != script)
    # `evaluate` reads lines: each has one import, and nothing behind it.
    lines = [f"import {package}" for package in sorted(needed)]
    lines += [f"from .{sibling} import __doc__ as _" for sibling in siblings]
    main = ast.parse(files[script])
    first = main.body[1].lineno - 1  # behind the docstring
    text = files[script].splitlines()
    text[first:first] = lines
    write_text(folder / f"{repo_id.split('/')[-1]}.py", "\n".join(text) + "\n")
    for file, content in files.items():
        if file != script:
            write_text(folder / f"{_flat_name(file)}.py", content)
    requirements = sorted(package.replace("_", "-") for package in needed | {"evaluate"})
    write_text(folder / "requirements.txt", "\n".join(requirements) + "\n")
    card = (METRICS / name / "README.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", card.replace(f"eval/metrics/{name}", repo_id))


def _flattened(file: Path) -> tuple[str, list[Path]]:
    """A module's text with imports of this library made imports of files beside it, and those modules."""
    text = file.read_text(encoding="utf-8")
    lines, modules = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == _PACKAGE for alias in node.names):
            raise ValueError(f"{file}, line {node.lineno}: expected from {_PACKAGE}... import, got import")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:  # beside it, in the library's root
            module = file.with_name(f"{node.module}.py")
        elif node.module.split(".")[0] == _PACKAGE:
            module = _ROOT.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
        else:
            continue
        if not module.exists():
            raise ValueError(f"{file}, line {node.lineno}: {module} is no module of its own")
        said = "." * node.level + node.module
        lines[node.lineno - 1] = lines[node.lineno - 1].replace(
            f"from {said} import", f"from .{_flat_name(module)} import"
        )
        modules.append(module)
    return "\n".join(lines) + "\n", modules


def _flat_name(module: Path) -> str:
    return "_".join([_PACKAGE, *module.relative_to(_ROOT).with_suffix("").parts])


def _packages(text: str) -> set[str]:
    """Packages beside the standard library that a module imports when it is imported."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"__future__"}
