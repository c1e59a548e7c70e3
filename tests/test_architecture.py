"""Test the architecture: who imports whom, what travels with a checkpoint, and what is annotated."""

import ast
import sys
from pathlib import Path

import pytest

import crosstask

ROOT = Path(crosstask.__file__).parent
# Each folder may import itself and the folders before it.
LAYERS = ("utils", "data", "eval", "training", "hub")
TRAVELLING = sorted(path.stem for path in ROOT.glob("*_crosstask.py"))
ENTRY_FILES = ("configuration_crosstask", "modeling_crosstask", "processing_crosstask", "pipeline_crosstask")
# Besides the standard library. peft may be imported within functions, too.
TRAVELLING_MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "safetensors"}
MAX_LINES = 530
MAX_LINES_OF = {
    "modeling_crosstask.py": 720,
    "processing_crosstask.py": 720,
    "pipeline_crosstask.py": 560,
    "data/briefs/lexicon.py": 1000,
}


def get_imports(path):
    """Return `(module, is_within_function)` for each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(("." * node.level + (node.module or ""), id(node) in inner))
    return imports


def get_siblings(name):
    """Return the travelling files that a travelling file imports."""
    modules = (module for module, _ in get_imports(ROOT / f"{name}.py"))
    return {module[1:] for module in modules if module.startswith(".")}


@pytest.mark.parametrize("layer", LAYERS)
def test_folder_imports_only_folders_before_it(layer):
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], *TRAVELLING}
    for path in (ROOT / layer).rglob("*.py"):
        for module, _ in get_imports(path):
            assert not module.startswith("."), f"{path}: expected an absolute import, got {module}"
            package, _, rest = module.partition(".")
            if package == "crosstask" and rest:
                assert rest.split(".")[0] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("name", TRAVELLING)
def test_travelling_file_imports_only_allowed_libraries(name):
    for module, is_within_function in get_imports(ROOT / f"{name}.py"):
        if module.startswith("."):
            assert module[1:] in TRAVELLING, f"{name} imports {module}"
            continue
        package = module.split(".")[0]
        allowed = TRAVELLING_MAY_IMPORT | set(sys.stdlib_module_names)
        assert package in allowed | ({"peft"} if is_within_function else set()), f"{name} imports {module}"


@pytest.mark.parametrize("name", TRAVELLING)
def test_public_functions_of_travelling_files_are_annotated(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    for scope in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        for function in scope.body:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            is_setter = any(
                isinstance(d, ast.Attribute) and d.attr == "setter" for d in function.decorator_list
            )
            if function.returns is None and not is_setter:
                missing.append("return")
            assert not missing, f"{name}.{function.name}: no annotation for {', '.join(missing)}"


@pytest.mark.parametrize("name", ENTRY_FILES)
def test_entry_file_imports_its_closure_directly(name):
    """transformers 4.57 copies the files that an entry file imports, but not the imports of these files."""
    closure, queue = set(), [name]
    while queue:
        new = get_siblings(queue.pop()) - closure
        closure |= new
        queue += new
    assert closure - {name} == get_siblings(name)


def test_at_most_ten_files_travel_and_the_root_is_short():
    assert len(TRAVELLING) <= 10
    assert len(list(ROOT.glob("*.py"))) <= 14


def test_no_module_shadows_a_library():
    libraries = {"datasets", "evaluate", "tokenizers", "peft", "transformers", "accelerate", "torch"}
    names = libraries | set(sys.stdlib_module_names)
    for folder in ("", *LAYERS):
        for path in (ROOT / folder).glob("**/*.py" if folder else "*.py"):
            if "metrics" not in path.parts:
                assert path.stem not in names, path


def test_files_are_short():
    for path in [*ROOT.glob("*.py"), *(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES_OF.get(path.relative_to(ROOT).as_posix(), MAX_LINES), (
            f"{path}: {lines} lines"
        )
