"""Compare guided decoding, which judges prefixes at each step, with ranking complete candidates, on briefs.

    python benchmarks/guided_decoding.py --models runs/study --output benchmarks/results/guided_decoding.jsonl

The models are those of fusion_study.py. Guided decoding follows FUDGE (Yang & Klein, 2021,
https://arxiv.org/abs/2104.05218): it adds weight * log P(answerable | prefix) to the score of a beam. The
head reads the decoder states of the current step, so no second pass of the decoder is needed; a token is
therefore judged one step after it was generated. Ranking is `answerability_rerank` of the same number of
candidates. Both are measured with the head trained on complete summaries, and with the head trained further
on random prefixes of the same rows, as FUDGE requires.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fusion_study import BATCH_SIZE, compute_metrics, iter_batches, load_briefs, load_model
from transformers import LogitsProcessor, set_seed
from transformers.utils import logging

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.collator import CrossTaskCollator
from crosstask.loading_crosstask import get_lm_head

BEAMS = 4
WEIGHTS = (0.3, 1.0, 3.0)
PREFIX_STEPS = 300
PREFIX_RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the models of fusion_study.py")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines to append to")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[200], help="numbers of training rows of the models"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", default=["classifier", "gated"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = load_briefs()
    test = data["test"].to_list()[:400]
    for rows in arguments.rows:
        for seed in arguments.seeds:
            for system in arguments.systems:
                model, processor = load_model(arguments.models / f"{system}-{rows}-{seed}")
                train = data["train"].shuffle(seed=seed).select(range(rows)).to_list()
                for head in ("whole summaries", "prefixes"):
                    if head == "prefixes":
                        set_seed(seed)
                        train_on_prefixes(model, processor, train)
                    result = {"system": system, "rows": rows, "seed": seed, "head": head}
                    result |= compare_decoding(model, processor, test)
                    with arguments.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
                    print(json.dumps(result), flush=True)


def compare_decoding(model, processor, rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return the metrics of each way of decoding, and its time relative to plain beam search."""
    settings = {"beams": {}}
    for weight in WEIGHTS:
        settings[f"reranked {weight}"] = {"answerability_rerank": weight, "num_return_sequences": BEAMS}
        settings[f"guided {weight}"] = {"guidance": weight}
    results, seconds = {}, {}
    for name, arguments in settings.items():
        start = time.perf_counter()
        results[name] = compute_metrics(generate(model, processor, rows, **arguments), rows)
        seconds[name] = time.perf_counter() - start
        results[name]["time"] = round(seconds[name] / seconds["beams"], 2)
    return results


@torch.inference_mode()
def generate(model, processor, rows: list[dict], guidance: float | None = None, **settings) -> list[str]:
    summaries = []
    for inputs in iter_batches(model, processor, rows):
        if guidance is None:
            ids = model.generate(**inputs, num_beams=BEAMS, max_new_tokens=48, **settings)
        else:
            question_states = model.question_encoder(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )[0]
            mask = inputs["attention_mask"].bool()
            with AnswerabilityGuidance(model, question_states, mask, guidance) as guide:
                ids = model.generate(
                    **inputs,
                    question_encoder_outputs=(question_states,),
                    num_beams=BEAMS,
                    max_new_tokens=48,
                    logits_processor=[guide],
                )
        ids = ids[:: settings.get("num_return_sequences", 1)]
        summaries += processor.batch_decode(ids, skip_special_tokens=True)
    return summaries


class AnswerabilityGuidance(LogitsProcessor):
    """
    Add to each beam's score the change of weight * log P(answerable) by its last token.

    A hook on the LM head captures its inputs, the decoder states of the current step (after the gate).
    """

    def __init__(self, model, question_states: torch.Tensor, mask: torch.Tensor, weight: float):
        self.model = model
        self.question_states = question_states.repeat_interleave(BEAMS, 0)
        self.mask = mask.repeat_interleave(BEAMS, 0)
        self.weight = weight
        self.last_state = self.ids = self.states = self.log_prob = None

    def __enter__(self):
        def capture(_, args, output):
            self.last_state = args[0][:, -1:]

        self.handle = get_lm_head(self.model.summarizer).register_forward_hook(capture)
        return self

    def __exit__(self, *_):
        self.handle.remove()

    def __call__(self, input_ids, scores):
        previous_log_prob = 0.0
        if self.ids is None:
            self.states = self.last_state
        else:  # beams are reordered: find the beam that each one continues by its tokens
            current, previous = (ids.unflatten(0, (-1, BEAMS)) for ids in (input_ids[:, :-1], self.ids))
            same = (current[:, :, None] == previous[:, None]).all(-1)
            parents = same.int().argmax(-1) + BEAMS * torch.arange(len(same), device=same.device)[:, None]
            parents = parents.flatten()
            self.states = torch.cat([self.states[parents], self.last_state], 1)
            previous_log_prob = self.log_prob[parents]
        summary_mask = torch.ones(self.states.shape[:2], dtype=torch.bool, device=self.states.device)
        logits, _ = self.model.answerability_head(self.question_states, self.mask, self.states, summary_mask)
        self.log_prob = logits.float().log_softmax(-1)[:, 1]
        self.ids = input_ids.clone()
        return scores + (self.weight * (self.log_prob - previous_log_prob))[:, None]


def train_on_prefixes(model, processor, rows: list[dict]) -> None:
    """Train only the head, on prefixes of random length that have the labels of their summaries."""
    columns = ("question", "passage", "summary", "answerable")
    encoded = [dict(processor(**{name: row[name] for name in columns})) for row in rows]
    collate = CrossTaskCollator(processor)
    optimizer = torch.optim.AdamW(model.answerability_head.parameters(), lr=PREFIX_RATE)
    for _ in range(PREFIX_STEPS):
        batch = collate([encoded[index] for index in torch.randint(len(encoded), (BATCH_SIZE,)).tolist()])
        labels = batch.pop("labels")
        lengths = (labels != IGNORE_INDEX).sum(1)
        # As in decoding, the states end with the one that predicts the next token.
        cut = (torch.rand(len(lengths)) * lengths).long() + 1
        mask = (torch.arange(labels.shape[1]) < cut[:, None]).long()
        ids = model.prepare_decoder_input_ids_from_labels(labels)
        output = model(**batch, decoder_input_ids=ids, decoder_attention_mask=mask)
        optimizer.zero_grad()
        output.answerability_loss.backward(inputs=list(model.answerability_head.parameters()))
        optimizer.step()


if __name__ == "__main__":
    main()
