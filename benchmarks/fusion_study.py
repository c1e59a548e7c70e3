"""What each fusion brings, on briefs: answer recall and more after few and many joint rows.

    python benchmarks/fusion_study.py --parts runs/quickstart --models runs/study \\
        --output benchmarks/results/fusion_study.jsonl
    python benchmarks/fusion_report.py

The parts are those of the quickstart (`python train.py configs/quickstart.yaml`): a summarizer that was
trained on generic summaries only, and a question answerer. Each system of `SYSTEMS` is trained further on N
joint rows, with the learning rate of `RATES` that is best for it at that N on validation rows with the
first seed; variants of one system have its rate. Test rows are the same for all.

Models are kept in `--models`, and a line of the output is what one system, N and seed measured. What is
there already is not done again, so that a killed study goes on where it was, and several processes may
share the work by `--rows`, `--seeds` and `--systems`.
"""

import argparse
import json
import platform
import shutil
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainingArguments, set_seed
from transformers.utils import logging

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, CrossTaskTrainer, read_rows
from crosstask.data.answers import answer_recall_rows, mean
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import rouge_rows

SYSTEMS = {
    "summarizer": {"untrained": True},
    # The fair opponent: the same rows, the question in its prompt.
    "fine-tuned": {},
    "classifier": {"fusion": "classifier"},
    "gated": {"fusion": "gated"},
    "gated, random question encoder": {"fusion": "gated", "random": True},
    # Variants, for N = 200.
    "gated, alpha 0": {"fusion": "gated", "answerability_weight": 0.0},
    "gated, alpha 0.1": {"fusion": "gated", "answerability_weight": 0.1},
    "gated, alpha 0.3": {"fusion": "gated", "answerability_weight": 0.3},
    "gated, alpha 3": {"fusion": "gated", "answerability_weight": 3.0},
    "classifier, alpha 0.1": {"fusion": "classifier", "answerability_weight": 0.1},
    "classifier, alpha 0.3": {"fusion": "classifier", "answerability_weight": 0.3},
    "classifier, alpha 3": {"fusion": "classifier", "answerability_weight": 3.0},
    "gated, alpha 0.1, rate 3e-3": {"fusion": "gated", "answerability_weight": 0.1, "rate": 3e-3},
    "gated, warm start": {"fusion": "gated", "warm_start": 1 / 3},
    "gated, contrastive 0.1": {"fusion": "gated", "contrast": 0.1},
    "gated, contrastive 0.3": {"fusion": "gated", "contrast": 0.3},
    "gated, contrastive 1": {"fusion": "gated", "contrast": 1.0},
    "classifier, contrastive 0.3": {"fusion": "classifier", "contrast": 0.3},
    "fine-tuned, contrastive 0.3": {"contrast": 0.3},
    # As many rows of fewer passages, each with all its questions: contrasts are among the N rows then.
    "gated, whole passages": {"fusion": "gated", "whole": True},
    "gated, whole passages, contrastive 0.3": {"fusion": "gated", "whole": True, "contrast": 0.3},
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
FUSION_RATE = 3e-3  # of what is new
STEPS = {50: 200, 200: 300, 1000: 500, 5000: 1000}
BATCH_SIZE = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="a finished quickstart run")
    parser.add_argument("--models", type=Path, required=True, help="folder for the trained models")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, which are added to")
    parser.add_argument("--rows", type=int, nargs="+", default=[200], choices=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--test", type=int, default=400, help="test rows (default 400)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train-only", action="store_true", help="measure later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows_of = data()
    study = Study(arguments.parts, arguments.models, rows_of)
    test = rows_of["test"].to_list()[: arguments.test]
    for seed in arguments.seeds:
        for rows in arguments.rows:
            for system in arguments.systems:
                key = {"system": system, "rows": rows, "seed": seed}
                if SYSTEMS[system].get("untrained"):
                    key |= {"rows": 0, "seed": 0}
                start = time.monotonic()
                folder = study.trained(**key)
                if arguments.train_only or key in known(arguments.output):
                    continue
                found = key | json.loads((folder / "training.json").read_text(encoding="utf-8"))
                found |= measured(*loaded(folder), test)
                found["seconds"] = round(time.monotonic() - start)
                found["machine"] = (
                    f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
                    f"transformers {transformers.__version__}"
                )
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
                print(json.dumps(found), flush=True)


def data():
    return read_rows(
        "briefs", "fuse", options={"passages": {"train": 3000, "validation": 50, "test": 200}, "seed": 11}
    )


def known(output):
    """The keys of the lines that are there."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    return [{name: json.loads(line)[name] for name in ("system", "rows", "seed")} for line in lines]


class Study:
    """Trains the systems from two parts on rows of the data, and keeps them in a folder."""

    def __init__(self, parts, models, data):
        self.parts = parts
        self.models = models
        self.data = data
        tokenizer = AutoTokenizer.from_pretrained(parts / "summarizer")
        self.processor = CrossTaskProcessor(tokenizer, max_source_length=256)

    def trained(self, system, rows, seed):
        """The folder of a trained model; trained if it is not there."""
        folder = self.models / f"{system} {rows} {seed}".replace(", ", "-").replace(" ", "-")
        if folder.exists():
            return folder
        rates = [None] if SYSTEMS[system].get("untrained") else self.rates(system, rows, seed)
        best, tried = None, {}
        for rate in rates:
            model, gates = self.train(SYSTEMS[system], rows, seed, rate)
            tried[str(rate)] = None
            if len(rates) > 1:
                tried[str(rate)] = written(model, self.processor, self.data["validation"].to_list())[1][
                    "answer_recall"
                ]
            if best is None or tried[str(rate)] > tried[str(best[0])]:
                best = rate, model, gates
        rate, model, gates = best
        self.models.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=self.models))
        model.save_pretrained(made)
        self.processor.save_pretrained(made)
        facts = {"learning rate": rate} | ({"gates": gates} if gates else {})
        facts |= {"validation_answer_recall": tried} if len(rates) > 1 else {}
        (made / "training.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(made)
        return folder

    def rates(self, system, rows, seed):
        """Those to try: all with the first seed, then the best of them, which variants take over."""
        if "rate" in SYSTEMS[system]:
            return [SYSTEMS[system]["rate"]]
        base = system.split(",")[0]
        if system == base and seed == 0:
            return RATES
        chosen = self.trained(base, rows, 0) / "training.json"
        return [json.loads(chosen.read_text(encoding="utf-8"))["learning rate"]]

    def train(self, options, rows, seed, rate):
        """A model, and how far its gates have opened."""
        set_seed(seed)
        if "fusion" in options:
            answerer = AutoModelForSeq2SeqLM.from_pretrained(self.parts / "question_answerer")
            if options.get("random"):
                answerer = AutoModelForSeq2SeqLM.from_config(answerer.config)
            model = CrossTaskForConditionalGeneration.from_tasks(
                self.parts / "summarizer",
                answerer,
                fusion=options["fusion"],
                answerability_weight=options.get("answerability_weight", 1.0),
                fusion_num_heads=4,
                fusion_dropout=0.0,
                summary_loss_on="answerable",
            )
        else:
            model = AutoModelForSeq2SeqLM.from_pretrained(self.parts / "summarizer")
        if options.get("untrained"):
            return model.eval(), None
        train = self.drawn(rows, seed, options.get("whole", False))
        if "fusion" not in options:  # a summary that leaves the answer out is no target for it either
            train = [row for row in train if row["answerable"] == 1]
        encoded = [self.encoded(row, options) for row in train]
        others = [] if options.get("whole") else self.others(train)
        contrasts = self.contrasts(train, encoded, others, seed) if options.get("contrast") else None
        warm = round(STEPS[rows] * options.get("warm_start", 0))
        if warm:
            self.fit(
                model,
                encoded,
                warm,
                seed,
                rate,
                options,
                contrasts,
                only={"answerability_head", "gated_cross_attention"},
            )
        self.fit(model, encoded, STEPS[rows] - warm, seed, rate, options, contrasts)
        gates = (
            model.gated_cross_attention.gates.detach().tanh().tolist()
            if options.get("fusion") == "gated"
            else None
        )
        return model.eval(), gates

    def drawn(self, rows, seed, whole):
        """Training rows: any, or all of some passages."""
        if not whole:
            return self.data["train"].shuffle(seed=seed).select(range(rows)).to_list()
        passages = dict.fromkeys(self.data["train"].shuffle(seed=seed)["passage"])
        of = {}
        for row in self.data["train"]:
            of.setdefault(row["passage"], []).append(row)
        return [row for passage in passages for row in of[passage]][:rows]

    def others(self, train):
        """All questions on the passages of these rows that are not among them, without their summaries."""
        own = {row["id"] for row in train}
        passages = {row["passage"] for row in train}
        return [
            row | {"summary": ""}
            for row in self.data["train"]
            if row["passage"] in passages and row["id"] not in own
        ]

    def encoded(self, row, options):
        columns = ("question", "passage", "summary") + (("answerable",) if "fusion" in options else ())
        return dict(self.processor(**{name: row[name] for name in columns}))

    def contrasts(self, train, encoded, others, seed):
        texts = ({name: row[name] for name in ("question", "passage")} for row in others)
        encoded = [*encoded, *(dict(self.processor(**each)) for each in texts)]
        for index, row in enumerate(encoded):
            row[ROW_INDEX_COLUMN] = index
        rows = {name: [row[name] for row in (*train, *others)] for name in ("passage", "question", "summary")}
        return Contrasts(rows, encoded, seed)

    def fit(self, model, encoded, steps, seed, rate, options, contrasts, only=None):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(only is None or bool(set(name.split(".")) & only))
        with tempfile.TemporaryDirectory() as folder:
            settings = Seq2SeqTrainingArguments(
                folder,
                per_device_train_batch_size=BATCH_SIZE,
                max_steps=steps,
                learning_rate=rate,
                warmup_steps=20,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                seed=seed,
            )
            CrossTaskTrainer(
                model=model,
                args=settings,
                train_dataset=encoded,
                data_collator=CrossTaskCollator(self.processor, contrasts=contrasts),
                processing_class=self.processor,
                fusion_learning_rate=FUSION_RATE if "fusion" in options else None,
                contrastive_weight=options.get("contrast", 0.0),
            ).train()


def loaded(folder):
    processor = CrossTaskProcessor.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fused = config["model_type"] == "crosstask"
    model = CrossTaskForConditionalGeneration if fused else AutoModelForSeq2SeqLM
    return model.from_pretrained(folder).eval(), processor


def measured(model, processor, rows):
    """Figures of greedy decoding, of beams, of ranked beams, and of the judgement of the references."""
    found = {"test": written(model, processor, rows)[1]}
    found["beams"] = written(model, processor, rows, num_beams=4)[1]
    if hasattr(model, "answerability_head"):
        found["judgement"] = judged(model, processor, rows)
        found["reranked"] = written(
            model, processor, rows, num_beams=4, num_return_sequences=4, answerability_rerank=1.0
        )[1]
    if getattr(model, "gated_cross_attention", None) is not None:
        found["zeroed"] = written(model, processor, rows, zeroed=True)[1]
    return found


def batches(model, processor, rows, size=50, **more):
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        texts = {name: [row[name] for row in part] for name in ("question", "passage", *more)}
        yield dict(processor(**texts, return_tensors="pt").to(model.device))


@torch.inference_mode()
def written(model, processor, rows, zeroed=False, **settings):
    """Summaries, and their figures."""
    summaries = []
    for inputs in batches(model, processor, rows):
        if zeroed:
            size = (*inputs["input_ids"].shape, model.question_encoder.config.hidden_size)
            inputs["question_encoder_outputs"] = (torch.zeros(size, device=model.device),)
        ids = model.generate(**inputs, max_new_tokens=48, **settings)
        ids = ids[:: settings.get("num_return_sequences", 1)]
        summaries += processor.batch_decode(ids, skip_special_tokens=True)
    return summaries, figures(summaries, rows)


def figures(summaries, rows):
    """Answer recall, ROUGE-L and mean length in words."""
    answered = [index for index, row in enumerate(rows) if row["answer"]]
    wanted = [index for index, row in enumerate(rows) if row["answerable"] == 1]
    recalls = answer_recall_rows([summaries[i] for i in answered], [rows[i]["answer"] for i in answered])
    rouge = rouge_rows([summaries[i] for i in wanted], [rows[i]["summary"] for i in wanted])
    return {
        "answer_recall": round(mean(recalls), 4),
        "rougeL": round(mean(rouge["rougeL"]), 4),
        "words": round(mean([len(summary.split()) for summary in summaries]), 2),
    }


@torch.inference_mode()
def judged(model, processor, rows):
    """AUROC and expected calibration error of the judgement of the references."""
    probabilities = []
    for inputs in batches(model, processor, rows, summary=True):
        logits = model(**inputs).answerability_logits
        probabilities += logits.float().softmax(-1)[:, 1].tolist()
    figures = answerability_figures(probabilities, [row["answerable"] for row in rows])
    return {name: round(figures[name], 4) for name in ("auroc", "ece")}


if __name__ == "__main__":
    main()
