"""Judging prefixes at each step against ranking whole candidates: on briefs, with the study's models.

    python benchmarks/guided_decoding.py --models runs/study --output benchmarks/results/guided_decoding.jsonl

Guidance is that of FUDGE (Yang & Klein, 2021, https://arxiv.org/abs/2104.05218): the score of a beam is
shifted by weight * log P(answerable | what it has written so far). The head reads the decoder's states as
they are in that step, so that no further pass of the decoder is made; a token is therefore judged one step
after it was written, and with it all that beam search weighs then. Ranking is `answerability_rerank` of as
many candidates. Each is measured with the head as it was trained, on whole summaries, and with a head that
was trained further on random prefixes of the same rows, which is what FUDGE asks of its judge.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from fusion_study import BATCH_SIZE, batches, figures, loaded
from fusion_study import data as briefs
from transformers import LogitsProcessor, set_seed
from transformers.utils import logging

from crosstask.data.collator import CrossTaskCollator
from crosstask.loading_crosstask import get_lm_head

BEAMS = 4
WEIGHTS = (0.3, 1.0, 3.0)
PREFIX_STEPS = 300
PREFIX_RATE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="of fusion_study.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, which are added to")
    parser.add_argument("--rows", type=int, nargs="+", default=[200], help="N of the models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", default=["classifier", "gated"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = briefs()
    test = data["test"].to_list()[:400]
    for rows in arguments.rows:
        for seed in arguments.seeds:
            for system in arguments.systems:
                model, processor = loaded(arguments.models / f"{system}-{rows}-{seed}")
                train = data["train"].shuffle(seed=seed).select(range(rows)).to_list()
                for head in ("whole summaries", "prefixes"):
                    if head == "prefixes":
                        set_seed(seed)
                        train_on_prefixes(model, processor, train)
                    line = {"system": system, "rows": rows, "seed": seed, "head": head}
                    line |= compared(model, processor, test)
                    with arguments.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(json.dumps(line), flush=True)


def compared(model, processor, rows):
    """Figures, and the time in units of plain beam search's."""
    kinds = {"beams": {}}
    for weight in WEIGHTS:
        kinds[f"reranked {weight}"] = {"answerability_rerank": weight, "num_return_sequences": BEAMS}
        kinds[f"guided {weight}"] = {"guidance": weight}
    found, seconds = {}, {}
    for name, settings in kinds.items():
        start = time.perf_counter()
        found[name] = figures(written(model, processor, rows, **settings), rows)
        seconds[name] = time.perf_counter() - start
        found[name]["time"] = round(seconds[name] / seconds["beams"], 2)
    return found


@torch.inference_mode()
def written(model, processor, rows, guidance=None, **settings):
    summaries = []
    for inputs in batches(model, processor, rows):
        if guidance is None:
            ids = model.generate(**inputs, num_beams=BEAMS, max_new_tokens=48, **settings)
        else:
            question = model.question_encoder(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )[0]
            guide = AnswerabilityGuidance(model, question, inputs["attention_mask"].bool(), guidance)
            with guide:
                ids = model.generate(
                    **inputs,
                    question_encoder_outputs=(question,),
                    num_beams=BEAMS,
                    max_new_tokens=48,
                    logits_processor=[guide],
                )
        ids = ids[:: settings.get("num_return_sequences", 1)]
        summaries += processor.batch_decode(ids, skip_special_tokens=True)
    return summaries


class AnswerabilityGuidance(LogitsProcessor):
    """Shifts each beam by what the last token has changed of weight * log P(answerable)."""

    def __init__(self, model, question, mask, weight):
        self.model = model
        self.question = question.repeat_interleave(BEAMS, 0)
        self.mask = mask.repeat_interleave(BEAMS, 0)
        self.weight = weight
        self.heard = self.ids = self.states = self.estimate = None

    def __enter__(self):
        def hear(_, args, output):  # what the LM head reads, behind the gate
            self.heard = args[0][:, -1:]

        self.handle = get_lm_head(self.model.summarizer).register_forward_hook(hear)

    def __exit__(self, *_):
        self.handle.remove()

    def __call__(self, input_ids, scores):
        before = 0.0
        if self.ids is None:
            self.states = self.heard
        else:  # which beam each goes on from: that of the same tokens
            now, then = (ids.unflatten(0, (-1, BEAMS)) for ids in (input_ids[:, :-1], self.ids))
            same = (now[:, :, None] == then[:, None]).all(-1)
            parents = same.int().argmax(-1) + BEAMS * torch.arange(len(same), device=same.device)[:, None]
            parents = parents.flatten()
            self.states = torch.cat([self.states[parents], self.heard], 1)
            before = self.estimate[parents]
        kept = torch.ones(self.states.shape[:2], dtype=torch.bool, device=self.states.device)
        logits, _ = self.model.answerability_head(self.question, self.mask, self.states, kept)
        self.estimate = logits.float().log_softmax(-1)[:, 1]
        self.ids = input_ids.clone()
        return scores + (self.weight * (self.estimate - before))[:, None]


def train_on_prefixes(model, processor, rows):
    """The head alone, on prefixes of random length, each labelled as its whole summary is."""
    columns = ("question", "passage", "summary", "answerable")
    encoded = [dict(processor(**{name: row[name] for name in columns})) for row in rows]
    collate = CrossTaskCollator(processor)
    optimizer = torch.optim.AdamW(model.answerability_head.parameters(), lr=PREFIX_RATE)
    for _ in range(PREFIX_STEPS):
        batch = collate([encoded[at] for at in torch.randint(len(encoded), (BATCH_SIZE,)).tolist()])
        labels = batch.pop("labels")
        lengths = (labels != -100).sum(1)
        # As the head meets them in decoding: states up to and with that which predicts the next token.
        cut = (torch.rand(len(lengths)) * lengths).long() + 1
        mask = (torch.arange(labels.shape[1]) < cut[:, None]).long()
        ids = model.prepare_decoder_input_ids_from_labels(labels)
        output = model(**batch, decoder_input_ids=ids, decoder_attention_mask=mask)
        optimizer.zero_grad()
        output.answerability_loss.backward(inputs=list(model.answerability_head.parameters()))
        optimizer.step()


if __name__ == "__main__":
    main()
