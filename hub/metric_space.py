"""Write a metric as a Space of the Hub, so that `evaluate.load("user/name")` works without this library."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

from crosstask.utils.errors import ConfigError, suggest
from crosstask.utils.files import write_text

METRICS_FOLDER = Path(__file__).parents[1] / "eval" / "metrics"
_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "crosstask"
# Packages that these metrics import inside functions; `evaluate` has to check for them at loading.
_LAZY_IMPORTS = {"rouge": {"joblib", "rouge_score"}, "bertscore": {"bert_score"}}


def write_metric_space(name: str, folder: str | os.PathLike, *, repo_id: str) -> None:
    """
    Write the files of a metric's Space.

    `evaluate` downloads the script that is named like the repository and those files beside it that the
    script itself imports. So each module of this library that the metric needs, directly or not, becomes a
    file beside the script, and the script imports all of them.

    Args:
        name (`str`): Name of a metric, which is the name of a folder in `eval/metrics`.
        folder (`str` or `os.PathLike`): Folder for the files; created if it does not exist.
        repo_id (`str`): The repository where it will be published, `"user/name"`.

    Raises:
        ConfigError: If there is no such metric.
    """
    names = sorted(path.name for path in METRICS_FOLDER.iterdir() if (path / f"{path.name}.py").exists())
    if name not in names:
        raise ConfigError(
            f"unknown metric {name!r}, expected one of {', '.join(names)}{suggest(name, names)}"
        )
    folder, script = Path(folder), METRICS_FOLDER / name / f"{name}.py"
    folder.mkdir(parents=True, exist_ok=True)
    sources = _collect_sources(script)
    packages = _LAZY_IMPORTS.get(name, set()).union(*map(_list_packages, sources.values()))
    script_lines = sources.pop(script).splitlines()
    # `evaluate` finds imports with a regular expression: one import per line, with nothing after it.
    imports = [f"import {package}" for package in sorted(packages)]
    imports += [f"from .{module} import __doc__ as _" for module in sorted(map(_flatten_name, sources))]
    after_docstring = ast.parse("\n".join(script_lines)).body[1].lineno - 1
    script_lines[after_docstring:after_docstring] = imports
    write_text(folder / f"{repo_id.split('/')[-1]}.py", "\n".join(script_lines) + "\n")
    for module, source in sources.items():
        write_text(folder / f"{_flatten_name(module)}.py", source)
    requirements = sorted(package.replace("_", "-") for package in packages | {"evaluate"})
    write_text(folder / "requirements.txt", "\n".join(requirements) + "\n")
    card = (METRICS_FOLDER / name / "README.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", card.replace(f"eval/metrics/{name}", repo_id))


def _collect_sources(script: Path) -> dict[Path, str]:
    """Return the adapted source of a script and of all modules of this library that it needs, by path."""
    sources, pending = {}, [script]
    while pending:
        file = pending.pop()
        if file not in sources:
            sources[file], modules = _flatten_imports(file)
            pending += modules
    return sources


def _flatten_imports(file: Path) -> tuple[str, list[Path]]:
    """Turn imports from this library into imports of files beside it; return the source and the modules."""
    source = file.read_text(encoding="utf-8")
    lines, modules = source.splitlines(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == _PACKAGE for alias in node.names):
            raise ValueError(f"{file}, line {node.lineno}: expected from {_PACKAGE}... import, got import")
        if not isinstance(node, ast.ImportFrom):
            continue
        name = node.module or ""
        if node.level:  # a relative import in the root of the library
            module = file.with_name(f"{name}.py")
        elif name.split(".")[0] == _PACKAGE:
            module = _ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
        else:
            continue
        if not module.exists():
            raise ValueError(f"{file}, line {node.lineno}: expected an import from a module, got a package")
        lines[node.lineno - 1] = lines[node.lineno - 1].replace(
            f"from {'.' * node.level}{name} import", f"from .{_flatten_name(module)} import"
        )
        modules.append(module)
    return "\n".join(lines) + "\n", modules


def _flatten_name(module: Path) -> str:
    """Return the name of a module's file in a Space, e.g. "crosstask_data_answers" for `data/answers.py`."""
    return "_".join([_PACKAGE, *module.relative_to(_ROOT).with_suffix("").parts])


def _list_packages(source: str) -> set[str]:
    """Return the packages outside the standard library that a module imports at its top level."""
    packages = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            packages.add(node.module.split(".")[0])
    return packages - sys.stdlib_module_names - {"__future__"}
