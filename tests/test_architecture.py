"""Which part of the code may import which: the layers of folders, and the files that travel with a checkpoint."""

import ast
import sys
from pathlib import Path

import pytest

import crosstask

ROOT = Path(crosstask.__file__).parent
# Each folder may import those before it.
LAYERS = ("utils", "data", "eval", "training", "hub")
TRAVELLING = sorted(path.stem for path in ROOT.glob("*_crosstask.py"))
ENTRY_FILES = ("configuration_crosstask", "modeling_crosstask", "processing_crosstask", "pipeline_crosstask")
# What a checkpoint's code may need beside the standard library; peft only where an adapter is there.
TRAVELLING_MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "safetensors"}
LONGEST = 500  # lines of a file
LONGER = {"modeling_crosstask.py": 700, "data/briefs/lexicon.py": 1000}


def get_imports(path):
    """Return `(module, whether it is imported within a function)` of each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), id(node) in inner))
    return found


def get_siblings(name):
    """Return the travelling files that a travelling file imports."""
    modules = (module for module, _ in get_imports(ROOT / f"{name}.py"))
    return {module[1:] for module in modules if module.startswith(".")}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_only_the_folders_below_it(layer):
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], *TRAVELLING}
    for path in (ROOT / layer).rglob("*.py"):
        for module, _ in get_imports(path):
            assert not module.startswith("."), f"{path}: expected an absolute import, got {module}"
            package, _, rest = module.partition(".")
            if package == "crosstask" and rest:
                assert rest.split(".")[0] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("name", TRAVELLING)
def test_a_travelling_file_imports_only_what_every_user_has(name):
    for module, within_a_function in get_imports(ROOT / f"{name}.py"):
        if module.startswith("."):
            assert module[1:] in TRAVELLING, f"{name} imports {module}"
            continue
        package = module.split(".")[0]
        allowed = TRAVELLING_MAY_IMPORT | set(sys.stdlib_module_names)
        assert package in allowed | ({"peft"} if within_a_function else set()), f"{name} imports {module}"


@pytest.mark.parametrize("name", ENTRY_FILES)
def test_an_entry_file_imports_its_whole_closure_directly(name):
    """transformers 4.57 copies only the files that an entry file itself imports, not those that these import."""
    closure, waiting = set(), [name]
    while waiting:
        new = get_siblings(waiting.pop()) - closure
        closure |= new
        waiting += new
    assert closure - {name} == get_siblings(name)


def test_at_most_ten_files_travel_and_the_root_is_short():
    assert len(TRAVELLING) <= 10
    assert len(list(ROOT.glob("*.py"))) <= 14


def test_no_module_has_the_name_of_a_module_that_it_could_shadow():
    libraries = {"datasets", "evaluate", "tokenizers", "peft", "transformers", "accelerate", "torch"}
    taken = libraries | set(sys.stdlib_module_names)
    for folder in ("", *LAYERS):
        for path in (ROOT / folder).glob("**/*.py" if folder else "*.py"):
            if "metrics" not in path.parts:
                assert path.stem not in taken, path


def test_no_file_is_too_long():
    for path in [*ROOT.glob("*.py"), *(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LONGER.get(path.relative_to(ROOT).as_posix(), LONGEST), f"{path}: {lines} lines"
