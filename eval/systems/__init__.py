"""The systems that an evaluation compares, and how to make one from a recipe."""

import inspect
import re

from crosstask.data.schema import check_keys
from crosstask.eval.systems.base import System
from crosstask.eval.systems.chat import ChatLM
from crosstask.eval.systems.crosstask import CrossTask
from crosstask.eval.systems.lead import Lead
from crosstask.eval.systems.lexrank import LexRank
from crosstask.eval.systems.oracle import Oracle
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.utils.errors import DataError

KINDS: dict[str, type[System]] = {
    "lead": Lead,
    "oracle": Oracle,
    "lexrank": LexRank,
    "seq2seq": Seq2Seq,
    "chat": ChatLM,
    "crosstask": CrossTask,
}


def make_system(spec: str | dict) -> System:
    """Make a system from its entry in a recipe.

    Args:
        spec (`str` or `dict`): A kind, for extractive systems optionally with the number of sentences
            ("oracle", "lead-3", "lexrank-5"); or a mapping with `kind`, the arguments of its class, and
            optionally `name`, which replaces the system's name in the report.

    Raises:
        DataError: If the kind or a key is unknown, if an argument is missing, or if the class refuses it.
    """
    if isinstance(spec, str):
        match = re.fullmatch(r"(.+)-(\d+)", spec, re.DOTALL)
        spec = {"kind": match[1], "k": int(match[2])} if match else {"kind": spec}
    if not isinstance(spec, dict) or "kind" not in spec:
        raise DataError(f"system {spec!r} has no kind, expected one of {', '.join(KINDS)}")
    check_keys("system", [spec["kind"]], KINDS)
    system_class = KINDS[spec["kind"]]
    arguments = {name: value for name, value in spec.items() if name not in ("kind", "name")}
    parameters = inspect.signature(system_class).parameters
    check_keys(f"system {spec['kind']}: key", arguments, [*parameters, "name"])
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise DataError(f"system {spec['kind']}: needs a {name}, got {', '.join(spec)} only")
    system = system_class(**arguments)
    system.name = str(spec.get("name", system.name))
    return system
