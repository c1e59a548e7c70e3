"""Systems to compare: what each writes for a row, and how sure the cross-task model is of a summary."""

import torch
from tqdm.auto import tqdm


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
