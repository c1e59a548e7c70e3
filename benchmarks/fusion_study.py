"""What each fusion brings, on briefs: answer recall and more after few and many joint rows.

    python benchmarks/fusion_study.py --parts runs/quickstart --output benchmarks/results/fusion_study.jsonl

The parts are those of the quickstart (`python train.py configs/quickstart.yaml`): a summarizer that was
trained on generic summaries only, and a question answerer. Each is trained further on N joint rows, as

    fine-tuned   the summarizer alone, with the question in its prompt
    classifier   the cross-task model whose question encoder only judges
    gated        the one whose question encoder takes part in writing
    gated-random the same, with a question encoder that was not trained

and each with its own best of a few learning rates on validation rows. The test rows are the same for all.
A line of the output is one system, N and seed; what is there already is not done again, so that a killed
study goes on where it was. `--rows`, `--seeds` and `--systems` choose a part of it.
"""

import argparse
import copy
import json
import platform
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainingArguments, set_seed
from transformers.utils import logging

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, CrossTaskTrainer, read_rows
from crosstask.data.collator import CrossTaskCollator
from crosstask.eval.calibration import answerability_figures
from crosstask.eval.rows import answer_recall_rows, mean, rouge_rows

# Of the parts, and of the fusion where there is one.
RATES = {
    "fine-tuned": [(1e-4, None), (3e-4, None), (1e-3, None)],
    "classifier": [(1e-4, 3e-3), (3e-4, 3e-3), (1e-3, 3e-3)],
    "gated": [(1e-4, 3e-3), (3e-4, 3e-3), (1e-3, 3e-3)],
    "gated-random": [(1e-4, 3e-3), (3e-4, 3e-3), (1e-3, 3e-3)],
}
STEPS = {50: 200, 200: 300, 1000: 600, 5000: 1500}
RERANK = {"num_beams": 4, "num_return_sequences": 4, "answerability_rerank": 1.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="a finished quickstart run")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, which are added to")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=list(STEPS), help="N, each of " + str(list(STEPS))
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--systems", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--test", type=int, default=400, help="test rows (default 400)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    known = set()
    if arguments.output.exists():
        lines = map(json.loads, arguments.output.read_text(encoding="utf-8").splitlines())
        known = {(line["system"], line["rows"], line["seed"]) for line in lines}
    data = read_rows(
        "briefs", "fuse", options={"passages": {"train": 3000, "validation": 50, "test": 200}, "seed": 11}
    )
    test = data["test"].to_list()[: arguments.test]
    for seed in arguments.seeds:
        for rows in arguments.rows:
            train = data["train"].shuffle(seed=seed).select(range(rows)).to_list()
            for system in arguments.systems:
                if (system, rows, seed) in known:
                    continue
                start = time.monotonic()
                found = study(system, arguments.parts, train, data["validation"].to_list(), test, seed)
                found |= {"system": system, "rows": rows, "seed": seed}
                found["seconds"] = round(time.monotonic() - start)
                found["machine"] = (
                    f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
                    f"transformers {transformers.__version__}"
                )
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
                print(json.dumps(found), flush=True)


def study(system, parts, train, validation, test, seed):
    """Train with each learning rate, choose by validation, and measure on the test rows."""
    best = None
    for rates in RATES[system]:
        model, processor = trained(system, parts, train, rates, seed)
        recall = measure(model, processor, validation)["answer recall"]
        if best is None or recall > best[0]:
            best = recall, rates, copy.deepcopy(model)
    recall, rates, model = best
    found = {
        "learning rates": rates,
        "validation answer recall": recall,
        "test": measure(model, processor, test),
    }
    if getattr(model, "gate", None) is not None:
        found["gates"] = model.gate.gates.tanh().tolist()
        found["zeroed"] = measure(model, processor, test, zeroed=True)
    if hasattr(model, "fusion"):
        found["reranked"] = measure(model, processor, test, **RERANK)
        found["beams"] = measure(model, processor, test, num_beams=RERANK["num_beams"])
    return found


def trained(system, parts, train, rates, seed):
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(parts / "summarizer")
    processor = CrossTaskProcessor(tokenizer, max_source_length=256)
    if system == "fine-tuned":
        model = AutoModelForSeq2SeqLM.from_pretrained(parts / "summarizer")
    else:
        answerer = AutoModelForSeq2SeqLM.from_pretrained(parts / "question_answerer")
        if system == "gated-random":
            answerer = AutoModelForSeq2SeqLM.from_config(answerer.config)
        model = CrossTaskForConditionalGeneration.from_tasks(
            parts / "summarizer",
            answerer,
            fusion=system.split("-")[0],
            fusion_num_heads=4,
            fusion_dropout=0.0,
            summary_loss_on="answerable",
        )
    steps = STEPS[len(train)]
    columns = ("question", "passage", "summary", "answerable")
    if system == "fine-tuned":  # a summary that leaves the answer out is no target for it either
        train, columns = [row for row in train if row["answerable"] == 1], columns[:3]
    encoded = [dict(processor(**{name: row[name] for name in columns})) for row in train]
    with tempfile.TemporaryDirectory() as folder:
        settings = Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=32,
            max_steps=steps,
            learning_rate=rates[0],
            warmup_steps=20,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            seed=seed,
        )
        trainer = CrossTaskTrainer(
            model=model,
            args=settings,
            train_dataset=encoded,
            data_collator=CrossTaskCollator(processor),
            processing_class=processor,
            fusion_learning_rate=rates[1],
        )
        trainer.train()
    return model.eval(), processor


@torch.inference_mode()
def measure(model, processor, rows, batch_size=50, zeroed=False, **settings):
    """Answer recall and ROUGE-L of what is written; AUROC and ECE of the judgement of the references."""
    summaries, probabilities = [], []
    kept = settings.get("num_return_sequences", 1)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        texts = {name: [row[name] for row in part] for name in ("question", "passage")}
        inputs = dict(processor(**texts, return_tensors="pt").to(model.device))
        if zeroed:
            size = (*inputs["input_ids"].shape, model.question_encoder.config.hidden_size)
            inputs["question_encoder_outputs"] = (torch.zeros(size, device=model.device),)
        ids = model.generate(**inputs, max_new_tokens=48, **settings)[::kept]
        summaries += processor.batch_decode(ids, skip_special_tokens=True)
        if hasattr(model, "fusion"):
            given = processor(**texts, summary=[row["summary"] for row in part], return_tensors="pt")
            extra = {"question_encoder_outputs": inputs["question_encoder_outputs"]} if zeroed else {}
            logits = model(**given.to(model.device), **extra).answerability_logits
            probabilities += logits.float().softmax(-1)[:, 1].tolist()
    answered = [index for index, row in enumerate(rows) if row["answer"]]
    wanted = [index for index, row in enumerate(rows) if row["answerable"] == 1]
    found = {
        "answer recall": mean(
            answer_recall_rows([summaries[i] for i in answered], [rows[i]["answer"] for i in answered])
        ),
        "rougeL": mean(
            rouge_rows([summaries[i] for i in wanted], [rows[i]["summary"] for i in wanted])["rougeL"]
        ),
    }
    if probabilities:
        figures = answerability_figures(probabilities, [row["answerable"] for row in rows])
        found |= {"auroc": figures["auroc"], "ece": figures["ece"]}
    return {name: value if value is None else round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
