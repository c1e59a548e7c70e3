"""What the fusion, the answerability and the padding cost, as ratios measured in one run:

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/core.py
    python benchmarks/core.py --squad PATH/TO/sample-v2.0.json

Flan-T5-small's shape with random weights (Hub: google/flan-t5-small), one optimizer step or one call a
measurement; the two sides of a ratio take turns, so that a busy machine slows both, and the median of
their turns counts. The two variables keep glibc from handing big blocks back to the system after each
use: without them the page faults of fetching them anew are a large and noisy part of every step. With
them it keeps all that it ever had, which for inputs of 1024 tokens is more than 24 GB.
"""

import argparse
import json
import platform
import statistics
import time
from itertools import islice
from pathlib import Path

import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.collator import CrossTaskCollator
from crosstask.data.readers import read_rows
from crosstask.data.tokenizer import train_tokenizer

BATCH = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--squad", help="measure the padding instead, on the real lengths of this SQuAD 2.0 file"
    )
    parser.add_argument("--turns", type=int, default=7, help="turns of each side (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--output", help="also add the figures to those of this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    figures = {
        "machine": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
    }
    if arguments.squad:
        figures["padding to 1024 / padding to the longest"] = padding(arguments.squad, turns=1)
    else:
        joint, generate = joint_step(arguments.turns), generation(arguments.turns)
        figures["joint step / (summarizer step + question-encoder step)"] = joint
        figures["generate with answerability / plain generate"] = generate
    for name, value in figures.items():
        print(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    if arguments.output:
        path = Path(arguments.output)
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(known | figures, indent=1), encoding="utf-8")


def shape(vocab_size=32128):
    return T5Config(
        vocab_size=vocab_size,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )


def composite(vocab_size=32128, fusion="classifier"):
    config = CrossTaskConfig(shape(vocab_size), shape(vocab_size), fusion=fusion)
    return CrossTaskForConditionalGeneration(config)


def joint_step(turns, length=192, summary=64):
    """One training step of the whole, and of a gated one, against the sum of its parts: 8 x 192 tokens."""
    model, plain, encoder = composite(), T5ForConditionalGeneration(shape()), composite().question_encoder
    gated = composite(fusion="gated")
    ids = torch.randint(2, 32000, (BATCH, length))
    labels = torch.randint(2, 32000, (BATCH, summary))
    answerable = torch.randint(0, 2, (BATCH,))
    joint, gate, alone, question = (
        _trainer(model, lambda: model(input_ids=ids, labels=labels, answerable=answerable).loss),
        _trainer(gated, lambda: gated(input_ids=ids, labels=labels, answerable=answerable).loss),
        _trainer(plain, lambda: plain(input_ids=ids, labels=labels).loss),
        _trainer(encoder, lambda: encoder(input_ids=ids).last_hidden_state.square().mean()),
    )
    times = take_turns(turns, joint=joint, gated=gate, summarizer=alone, question_encoder=question)
    return times | {
        "ratio": round(times["joint"] / (times["summarizer"] + times["question_encoder"]), 3),
        "gated / joint": round(times["gated"] / times["joint"], 3),
    }


def generation(turns, length=256, new_tokens=48):
    """`generate` of 8 inputs of 256 tokens, 48 new ones, greedy; the answerability of each, or a gate."""
    model, gated = composite().eval(), composite(fusion="gated").eval()
    plain = model.summarizer
    ids = torch.randint(2, 32000, (BATCH, length))
    settings = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    times = take_turns(
        turns,
        answerability=lambda: model.generate(ids, return_dict_in_generate=True, **settings),
        gated=lambda: gated.generate(ids, **settings),
        plain=lambda: plain.generate(ids, **settings),
    )
    return times | {
        "ratio": round(times["answerability"] / times["plain"], 3),
        "gated / plain": round(times["gated"] / times["plain"], 3),
    }


def padding(squad, turns, batches=2):
    """Training steps on SQuAD's own lengths, padded to the longest of the batch or to 1024 tokens."""
    rows = read_rows(squad, "answer", rejects=[])["train"].shuffle(seed=0)
    texts = (text for name in ("passage", "question") for text in rows[name])
    tokenizer = train_tokenizer(texts, vocab_size=16000)
    processor = CrossTaskProcessor(tokenizer, max_source_length=1024)
    encoded = [
        dict(processor(row["question"], row["passage"], summary=row["answer"] or "none", answerable=1))
        for row in islice(rows, batches * BATCH)
    ]
    parts = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    model = composite(len(tokenizer))

    def epoch(multiple):
        collate = CrossTaskCollator(processor, pad_to_multiple_of=multiple)
        step = _trainer(model, None)
        for part in parts:
            batch = collate(part)
            # Only the source is padded to 1024: the labels are short on both sides.
            batch["labels"] = batch["labels"][:, :64]
            step(lambda batch=batch: model(**batch).loss)

    times = take_turns(turns, dynamic=lambda: epoch(8), fixed=lambda: epoch(1024))
    lengths = [len(row["input_ids"]) for row in encoded]
    return times | {
        "mean length": round(statistics.mean(lengths)),
        "ratio": round(times["fixed"] / times["dynamic"], 2),
    }


def _trainer(model, loss):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(loss=loss):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def take_turns(turns, **sides):
    """Median seconds of each side, which run in turn; the first turn warms up and does not count."""
    seconds = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(values), 3) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
