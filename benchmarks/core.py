"""Measure the time of the fusion, of the answerability and of padding, as ratios within one run.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/core.py
    python benchmarks/core.py --squad PATH/TO/sample-v2.0.json

The models have the shape of Flan-T5-small (Hub: google/flan-t5-small) and random weights. A measurement is
one optimizer step or one call. Both sides of a ratio are measured in turn, so that other load on the
machine slows both, and the ratio is that of their medians.

The two environment variables keep glibc from returning large blocks to the system after each use. Without
them, page faults are a large and noisy part of each step. With them, a process keeps the memory of its
peak, which is more than 24 GB for inputs of 1024 tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.collator import CrossTaskCollator
from crosstask.data.readers import read_rows
from crosstask.data.tokenizer import train_tokenizer

BATCH_SIZE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--squad", help="measure only padding, on the lengths in this SQuAD 2.0 file")
    parser.add_argument("--turns", type=int, default=7, help="measurements of each side (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--output", help="also add the results to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results = {
        "machine": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
    }
    if arguments.squad:
        results["padding to 1024 / padding to the longest"] = measure_padding(arguments.squad, turns=1)
    else:
        steps, generation = measure_steps(arguments.turns), measure_generation(arguments.turns)
        results["joint step / (summarizer step + question-encoder step)"] = steps
        results["generate with answerability / plain generate"] = generation
    for name, value in results.items():
        print(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    if arguments.output:
        path = Path(arguments.output)
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(earlier | results, indent=1), encoding="utf-8")


def make_part_config(vocab_size: int = 32128) -> T5Config:
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


def make_model(
    vocab_size: int = 32128, fusion: str = "classifier", likelihood: bool = False
) -> CrossTaskForConditionalGeneration:
    config = CrossTaskConfig(
        make_part_config(vocab_size),
        make_part_config(vocab_size),
        fusion=fusion,
        fusion_likelihood=likelihood,
    )
    return CrossTaskForConditionalGeneration(config)


def measure_steps(turns: int, source_length: int = 192, summary_length: int = 64) -> dict[str, float]:
    """Compare a training step of each fusion with one step of each part, on 8 inputs of 192 tokens."""
    classifier, gated = make_model(), make_model(fusion="gated")
    summarizer, encoder = T5ForConditionalGeneration(make_part_config()), make_model().question_encoder
    ids = torch.randint(2, 32000, (BATCH_SIZE, source_length))
    labels = torch.randint(2, 32000, (BATCH_SIZE, summary_length))
    answerable = torch.randint(0, 2, (BATCH_SIZE,))
    joint = {"input_ids": ids, "labels": labels, "answerable": answerable}
    step, step_gated, step_summarizer, step_encoder = map(make_step, (classifier, gated, summarizer, encoder))
    medians = take_turns(
        turns,
        joint=lambda: step(classifier(**joint).loss),
        gated=lambda: step_gated(gated(**joint).loss),
        summarizer=lambda: step_summarizer(summarizer(input_ids=ids, labels=labels).loss),
        question_encoder=lambda: step_encoder(encoder(input_ids=ids).last_hidden_state.square().mean()),
    )
    return medians | {
        "ratio": round(medians["joint"] / (medians["summarizer"] + medians["question_encoder"]), 3),
        "gated / joint": round(medians["gated"] / medians["joint"], 3),
    }


def measure_generation(turns: int, source_length: int = 256, new_tokens: int = 48) -> dict[str, float]:
    """Compare greedy generation of 48 tokens for 8 inputs of 256 tokens: with answerability, gated, plain."""
    classifier, gated = make_model().eval(), make_model(fusion="gated").eval()
    likelihood = make_model(likelihood=True).eval()
    summarizer = classifier.summarizer
    ids = torch.randint(2, 32000, (BATCH_SIZE, source_length))
    settings = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    medians = take_turns(
        turns,
        answerability=lambda: classifier.generate(ids, return_dict_in_generate=True, **settings),
        likelihood=lambda: likelihood.generate(ids, return_dict_in_generate=True, **settings),
        gated=lambda: gated.generate(ids, **settings),
        plain=lambda: summarizer.generate(ids, **settings),
    )
    return medians | {
        "ratio": round(medians["answerability"] / medians["plain"], 3),
        "ratio with fusion_likelihood": round(medians["likelihood"] / medians["plain"], 3),
        "gated / plain": round(medians["gated"] / medians["plain"], 3),
    }


def measure_padding(squad: str, turns: int, num_batches: int = 2) -> dict[str, float]:
    """Compare training steps on SQuAD's lengths, padded to the longest input and to 1024 tokens."""
    rows = read_rows(squad, "answer", rejects=[])["train"].shuffle(seed=0)
    texts = (text for name in ("passage", "question") for text in rows[name])
    tokenizer = train_tokenizer(texts, vocab_size=16000)
    processor = CrossTaskProcessor(tokenizer, max_source_length=1024)
    encoded = [
        dict(processor(row["question"], row["passage"], summary=row["answer"] or "none", answerable=1))
        for row in islice(rows, num_batches * BATCH_SIZE)
    ]
    batches = [encoded[start : start + BATCH_SIZE] for start in range(0, len(encoded), BATCH_SIZE)]
    model = make_model(len(tokenizer))

    def train_epoch(multiple):
        collate = CrossTaskCollator(processor, pad_to_multiple_of=multiple)
        step = make_step(model)
        for batch in map(collate, batches):
            batch["labels"] = batch["labels"][:, :64]  # only the source is padded to 1024
            step(model(**batch).loss)

    medians = take_turns(turns, dynamic=lambda: train_epoch(8), fixed=lambda: train_epoch(1024))
    return medians | {
        "mean length": round(statistics.mean(len(row["input_ids"]) for row in encoded)),
        "ratio": round(medians["fixed"] / medians["dynamic"], 2),
    }


def make_step(model: torch.nn.Module) -> Callable[[torch.Tensor], None]:
    """Return a function that takes one optimizer step for a loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(loss):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def take_turns(turns: int, **sides: Callable[[], object]) -> dict[str, float]:
    """Call the sides in turn; return the median seconds of each, without the first turn, which warms up."""
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
