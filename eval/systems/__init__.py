"""Systems to compare: what each writes for a row, and how sure the cross-task model is of a summary.

A system has a `name`; `settings`, a mapping fit for JSON of all that determines its outputs but the
rows and the versions of the libraries; and `write(rows, tick=None)`, which gives `Outputs` in the order of
the rows, whatever that order and the batches are, and calls `tick` with how many rows were done.
"""

import inspect
import re

from crosstask.data.schema import check_keys
from crosstask.eval.systems.chat import ChatLM
from crosstask.eval.systems.crosstask import CrossTask
from crosstask.eval.systems.extractive import Lead, LexRank, Oracle
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.utils.errors import DataError

KINDS = {
    "lead": Lead,
    "oracle": Oracle,
    "lexrank": LexRank,
    "seq2seq": Seq2Seq,
    "chat": ChatLM,
    "crosstask": CrossTask,
}


def make_system(spec):
    """
    A system from the value that a YAML file has for it.

    Args:
        spec (`str` or `dict`): A kind, with a number of sentences after a dash where it takes sentences
            ("lead-3", "oracle", "lexrank-5"); or a mapping of `kind`, the arguments of its class, and
            `name`, which replaces the system's own.

    Raises:
        DataError: Where the kind or a key is unknown, an argument is missing, or the class refuses one.
    """
    if isinstance(spec, str):
        kind, _, k = re.fullmatch(r"(.*?)(-(\d+))?", spec, re.DOTALL).groups()
        spec = {"kind": kind} | ({"k": int(k)} if k else {})
    if not isinstance(spec, dict) or "kind" not in spec:
        raise DataError(f"system {spec!r} has no kind, expected one of {', '.join(KINDS)}")
    check_keys("system", [spec["kind"]], KINDS)
    kind = KINDS[spec["kind"]]
    arguments = {name: value for name, value in spec.items() if name not in ("kind", "name")}
    parameters = inspect.signature(kind).parameters
    check_keys(f"system {spec['kind']}: key", arguments, [*parameters, "name"])
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise DataError(f"system {spec['kind']}: needs a {name}, got {', '.join(spec)} only")
    system = kind(**arguments)
    system.name = str(spec.get("name", system.name))
    return system
