"""Systems to compare: what each writes for a row, and how sure the cross-task model is of a summary.

A system has a `name`; `settings`, a mapping fit for JSON of all that determines its outputs but the
rows and the versions of the libraries; and `write(rows, tick=None)`, which gives `Outputs` in the order of
the rows, whatever that order and the batches are, and calls `tick` with how many rows were done.
"""

import inspect
import re

import torch
from tqdm.auto import tqdm

from crosstask.data.schema import DataError, check_keys
from crosstask.eval.ablations import CrossTask
from crosstask.eval.chat import ChatLM
from crosstask.eval.extractive import Lead, LexRank, Oracle
from crosstask.eval.generative import Seq2Seq

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


def generate_summaries(model, processor, passages, questions=None, *, batch_size=32, **gen_kwargs):
    """
    Summaries by a plain summarizer or a cross-task model, in the order of the passages.

    Args:
        model: A sequence-to-sequence model of transformers, in evaluation mode.
        processor: Its [`CrossTaskProcessor`].
        passages (`list[str]`): One a summary.
        questions (`list[str]`, *optional*): One a passage; without, the passage alone is read, and each
            distinct passage is summarized once.
        batch_size (`int`): Inputs a batch.
        gen_kwargs: Arguments of `generate` (`num_beams`, `max_new_tokens`, ...).
    """
    if questions is None:
        inputs = [{"passage": passage} for passage in dict.fromkeys(passages)]
    else:
        inputs = [{"question": q, "passage": p} for q, p in zip(questions, passages, strict=True)]
    encoded = [dict(processor(**texts)) for texts in inputs]

    def write(batch):
        return processor.batch_decode(model.generate(**batch, **gen_kwargs), skip_special_tokens=True)

    summaries = _in_batches(model, processor, encoded, write, batch_size, "summaries")
    if questions is None:
        by_passage = {texts["passage"]: text for texts, text in zip(inputs, summaries, strict=True)}
        summaries = [by_passage[passage] for passage in passages]
    return [summary.strip() for summary in summaries]


def score_summaries(model, processor, rows, *, batch_size=32):
    """
    P(the row's own summary carries the answer) by a cross-task model, in the order of the rows.

    Args:
        model ([`CrossTaskForConditionalGeneration`]): In evaluation mode.
        processor: Its [`CrossTaskProcessor`].
        rows: Mappings with `question`, `passage` and `summary`.
        batch_size (`int`): Rows a batch.
    """
    names = ("question", "passage", "summary")
    encoded = [dict(processor(**{name: row[name] for name in names})) for row in rows]

    def judge(batch):
        return model(**batch).answerability_logits.float().softmax(-1)[:, 1].tolist()

    return _in_batches(model, processor, encoded, judge, batch_size, "answerability")


@torch.no_grad()
def _in_batches(model, processor, encoded, function, batch_size, name):
    """`function` over batches of like length, which are the ones with little padding."""
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]["input_ids"]))
    results = [None] * len(encoded)
    with tqdm(total=len(encoded), desc=name, leave=False) as progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = processor.pad([encoded[index] for index in indices])
            for index, result in zip(indices, function(batch.to(model.device)), strict=True):
                results[index] = result
            progress.update(len(indices))
    return results
