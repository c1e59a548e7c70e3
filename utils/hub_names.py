"""Check names against the rules of the Hugging Face Hub: repository ids and licenses."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from crosstask.utils.errors import ConfigError, suggest

PRIVATE = "private"  # as the name of a data set: it is not on the Hub and stays there
RUN_MODEL = "crosstask"  # the folder of the model in the folder of a training run
# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 "
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
    "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 "
    "epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 "
    "lgpl-lr isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl osl-3.0 "
    "postgresql ofl-1.1 ncsa unlicense zlib pddl deepfloyd-if-license fair-noncommercial-research-license "
    "llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma".split()
)


def is_hub_id(name: str) -> bool:
    """Return whether `name` has the form of a Hub id and is not an existing local file or folder."""
    if Path(name).expanduser().exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def find_checkpoint(name: str | os.PathLike) -> str:
    """
    Return the Hub id or folder that a name of a model stands for; the folder of a run stands for its model.

    Raises:
        ConfigError: If it is a path and does not exist. The Hub would be asked for some paths otherwise,
            which takes minutes without a connection.
    """
    path = Path(name).expanduser()
    if (path / "recipe.yaml").exists() and (path / RUN_MODEL / "config.json").exists():
        return str(path / RUN_MODEL)
    if path.exists():
        return str(path)
    if is_path(name):
        raise ConfigError(f"{name}: no such folder, expected a folder or the Hub id of a model")
    return str(name)


def is_path(name: str | os.PathLike) -> bool:
    """Return whether a name can only be a path: `./x`, `x/`, `a/b/c`, `a\\b`, and `a/b` in a folder `a`."""
    name = str(name)
    first, _, rest = name.partition("/")
    return bool(
        re.match(r"[./~]|[A-Za-z]:", name)
        or re.search(r"/.*/|/$|\\", name)
        or (rest and Path(first).is_dir())
    )


def get_public_name(name: str | Sequence[str]) -> str:
    """Return a Hub id unchanged, and one or more local paths without their folders, which may be private."""
    if not isinstance(name, str):
        return ", ".join(map(get_public_name, name))
    return name if is_hub_id(name) else Path(name).name


def check_datasets(datasets: Sequence[str]) -> None:
    """Raise a `ConfigError` if a name is neither a Hub id of a data set nor "private"."""
    for name in datasets:
        if name != PRIVATE and not ("/" in name and is_hub_id(name)):
            raise ConfigError(
                f"--dataset: expected user/name of a data set on the Hub, or private, got {name!r}"
            )


def check_license(license: str) -> None:
    """Raise a `ConfigError` unless `license` is one of the Hub's names for licenses, or "other"."""
    if license not in LICENSES | {"other"}:
        expected = f"one of the Hub's, or other{suggest(license, LICENSES)}"
        raise ConfigError(f"--license: unknown license {license!r}, expected {expected}")
