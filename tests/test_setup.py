"""The package's metadata: one version, and a requirement for every import."""

import ast
import re
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools

import crosstask

ROOT = Path(crosstask.__file__).parent
FOLDERS = ("data", "eval", "hub", "training", "utils")
# Distributions that are named in no import: plugins, and packages that hold data.
WITHOUT_IMPORT = {
    "pytest-xdist",
    "types-pyyaml",
    "mypy",
    "ruff",
    "typos",
    "aclsum",
    "sentencepiece",
    "bitsandbytes",
}
WITHOUT_IMPORT |= {"jupytext", "ipykernel", "nbconvert"}


@pytest.fixture(scope="module")
def metadata():
    """The arguments that setup.py gives to `setup`."""
    arguments = {}
    original, setuptools.setup = setuptools.setup, arguments.update
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
    return arguments


def get_name(requirement):
    """Return the normalized name of the distribution that a requirement asks for."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def find_imports(paths):
    """Return the distributions that files import."""
    packages = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                packages.add(node.module.split(".")[0])
    packages -= {*sys.stdlib_module_names, "crosstask", "__future__", "setuptools"}
    known = packages_distributions()
    return {known[package][0].lower().replace("_", "-") for package in packages if package in known}


def test_the_version_has_a_single_source(metadata):
    assert metadata["version"] == crosstask.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {crosstask.__version__}\n" in citation


def test_every_import_has_a_requirement(metadata):
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    required = {get_name(requirement) for requirement in metadata["install_requires"]}
    optional = {get_name(r) for extra in metadata["extras_require"].values() for r in extra}
    assert find_imports(files) - required - optional == set()


def test_every_requirement_and_pin_has_a_user(metadata):
    files = [path for path in ROOT.rglob("*.py") if not {"build", "runs", ".venv"} & set(path.parts)]
    imports = find_imports(files) | WITHOUT_IMPORT
    groups = [metadata["install_requires"], *metadata["extras_require"].values()]
    required = {get_name(requirement) for group in groups for requirement in group}
    assert required - imports == set()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {get_name(line) for line in lines if "==" in line}
    assert pinned == required


def test_releases_of_transformers_without_a_peft_are_excluded(metadata):
    [requirement] = [r for r in metadata["install_requires"] if get_name(r) == "transformers"]
    assert "!=5.24.*" in requirement and ">=4.57" in requirement and "<6" in requirement


def test_what_is_typed_is_marked_so(metadata):
    assert (ROOT / "py.typed").exists() and "py.typed" in metadata["package_data"]["crosstask"]


def test_the_page_of_recipes_is_current(tmp_path):
    script, page = ROOT / ".ci" / "write_recipes_page.py", tmp_path / "recipes.md"
    subprocess.run([sys.executable, script, page], check=True, capture_output=True, timeout=120)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
