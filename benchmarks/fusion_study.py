"""Compare the fusions on briefs, after training on few and many joint rows.

    python benchmarks/fusion_study.py --parts runs/quickstart --models runs/study \\
        --output benchmarks/results/fusion_study.jsonl
    python benchmarks/fusion_report.py

The parts come from the quickstart (`python train.py configs/quickstart.yaml`): a summarizer that was
trained only on generic summaries, and a question answerer. Each system of `SYSTEMS` is trained further on N
joint rows; systems with a fusion learn their judgment as recipes do, also from `wrong_values` and from the
model's own summaries.
The learning rates in `RATES` were the best of 1e-4, 3e-4, 1e-3 and 3e-3 on the validation rows, with the
first seed and without own summaries; variants of a system use its rate. All systems are tested on the same
rows.

The models are saved in `--models`, a folder for one number of `--own_summary_steps`. A line of the output
has the results of one system, N and seed. Existing models and lines are not computed again, so that an
interrupted study can be continued, and several processes can share the work by `--rows`, `--seeds` and
`--systems`.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from datasets import DatasetDict
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainingArguments, set_seed
from transformers.utils import logging

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, CrossTaskTrainer, read_rows
from crosstask.data.answers import answer_recall, answer_recall_rows, mean
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.data.wrong_values import make_wrong_rows
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.text_scores import rouge_rows

SYSTEMS = {
    "summarizer": {"untrained": True},
    # The baseline to beat: trained on the same rows, with the question in its prompt.
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
    # The same number of rows from fewer passages, with all questions of each: they are contrasts of each
    # other.
    "gated, whole passages": {"fusion": "gated", "whole": True},
    "gated, whole passages, contrastive 0.3": {"fusion": "gated", "whole": True, "contrast": 0.3},
}
RATES = {
    "fine-tuned": {50: 1e-4, 200: 1e-3, 1000: 3e-3, 5000: 3e-3},
    "classifier": {50: 1e-4, 200: 1e-3, 1000: 3e-3, 5000: 1e-3},
    "gated": {50: 3e-4, 200: 1e-4, 1000: 1e-3, 5000: 1e-3},
}
FUSION_LEARNING_RATE = 3e-3  # of the new weights
WRONG_VALUES = 0.25  # as in recipes by default
STEPS = {50: 200, 200: 300, 1000: 500, 5000: 1000}
BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="a finished quickstart run")
    parser.add_argument("--models", type=Path, required=True, help="folder for the trained models")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines to append to")
    parser.add_argument("--rows", type=int, nargs="+", default=[200], choices=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument(
        "--own_summary_steps", type=int, default=4, help="as in recipes (default 4, as there)"
    )
    parser.add_argument("--test", type=int, default=400, help="test rows (default 400)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train-only", action="store_true", help="train the models, and evaluate them later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = load_briefs()
    study = Study(arguments.parts, arguments.models, data, arguments.own_summary_steps)
    test = data["test"].to_list()[: arguments.test]
    for seed in arguments.seeds:
        for rows in arguments.rows:
            for system in arguments.systems:
                key = {"system": system, "rows": rows, "seed": seed}
                if SYSTEMS[system].get("untrained"):
                    key |= {"rows": 0, "seed": 0}
                if "fusion" in SYSTEMS[system]:
                    key |= {"own_summary_steps": arguments.own_summary_steps}
                start = time.monotonic()
                folder = study.get_model(*(key[name] for name in ("system", "rows", "seed")))
                if arguments.train_only or key in read_keys(arguments.output):
                    continue
                result = key | json.loads((folder / "training.json").read_text(encoding="utf-8"))
                result |= evaluate(*load_model(folder), test)
                result["seconds"] = round(time.monotonic() - start)
                result["machine"] = (
                    f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
                    f"transformers {transformers.__version__}"
                )
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)


def load_briefs() -> DatasetDict:
    return read_rows(
        "briefs", "fuse", options={"passages": {"train": 3000, "validation": 50, "test": 200}, "seed": 11}
    )


def read_keys(output: Path) -> list[dict]:
    """Return system, number of rows, seed and steps of the existing results."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    names = ("system", "rows", "seed", "own_summary_steps")
    return [{name: line[name] for name in names if name in line} for line in map(json.loads, lines)]


class Study:
    """Train the systems, and save them in a folder."""

    def __init__(self, parts: Path, models: Path, data: DatasetDict, own_summary_steps: int):
        self.parts = parts
        self.own_summary_steps = own_summary_steps
        self.models = models
        self.data = data
        tokenizer = AutoTokenizer.from_pretrained(parts / "summarizer")
        self.processor = CrossTaskProcessor(tokenizer, max_source_length=256)

    def get_model(self, system: str, rows: int, seed: int) -> Path:
        """Return the folder of a model, and train it if it does not exist."""
        folder = self.models / f"{system} {rows} {seed}".replace(", ", "-").replace(" ", "-")
        if folder.exists():
            return folder
        rate = None if SYSTEMS[system].get("untrained") else get_rate(system, rows)
        model, gates = self.train(SYSTEMS[system], rows, seed, rate)
        self.models.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.models))
        model.save_pretrained(temporary)
        self.processor.save_pretrained(temporary)
        record = {"learning rate": rate} | ({"gates": gates} if gates else {})
        (temporary / "training.json").write_text(json.dumps(record), encoding="utf-8")
        try:
            temporary.rename(folder)
        except OSError:  # another process has saved the same model
            shutil.rmtree(temporary)
        return folder

    def train(self, options: dict, rows: int, seed: int, rate: float) -> tuple[torch.nn.Module, list | None]:
        """Return a trained model, and the values of its gates if it has any."""
        set_seed(seed)
        model = self.make_model(options)
        if options.get("untrained"):
            return model.eval(), None
        train = self.select_rows(rows, seed, options.get("whole", False))
        if "fusion" not in options:  # a summary without the answer is not a target for a plain summarizer
            train = [row for row in train if row["answerable"] == 1]
        labeler = None
        if "fusion" in options:
            train = train + make_wrong_rows(train, WRONG_VALUES, seed)
            labeler = SummaryLabeler(train)
        encoded = [self.encode(row, options) for row in train]
        if labeler is not None:
            for index, row in enumerate(encoded):
                row[ROW_INDEX_COLUMN] = index
        contrasts = None
        if options.get("contrast"):
            other_rows = [] if options.get("whole") else self.get_other_questions(train)
            contrasts = self.make_contrasts(train, encoded, other_rows, seed)
        warmup = round(STEPS[rows] * options.get("warm_start", 0))
        if warmup:  # train only the fusion first
            fusion = {"answerability_head", "gated_cross_attention"}
            self.fit(model, encoded, warmup, seed, rate, options, contrasts, labeler, fusion)
        self.fit(model, encoded, STEPS[rows] - warmup, seed, rate, options, contrasts, labeler)
        gated = options.get("fusion") == "gated"
        gates = model.gated_cross_attention.gates.detach().tanh().tolist() if gated else None
        return model.eval(), gates

    def make_model(self, options):
        if "fusion" in options:
            answerer = AutoModelForSeq2SeqLM.from_pretrained(self.parts / "question_answerer")
            if options.get("random"):
                answerer = AutoModelForSeq2SeqLM.from_config(answerer.config)
            return CrossTaskForConditionalGeneration.from_tasks(
                self.parts / "summarizer",
                answerer,
                fusion=options["fusion"],
                answerability_weight=options.get("answerability_weight", 1.0),
                fusion_num_heads=4,
                fusion_dropout=0.0,
                summary_loss_on="answerable",
            )
        return AutoModelForSeq2SeqLM.from_pretrained(self.parts / "summarizer")

    def select_rows(self, rows, seed, whole_passages):
        """Return random training rows, or all rows of random passages."""
        if not whole_passages:
            return self.data["train"].shuffle(seed=seed).select(range(rows)).to_list()
        passages = dict.fromkeys(self.data["train"].shuffle(seed=seed)["passage"])
        rows_by_passage = {}
        for row in self.data["train"]:
            rows_by_passage.setdefault(row["passage"], []).append(row)
        return [row for passage in passages for row in rows_by_passage[passage]][:rows]

    def get_other_questions(self, train):
        """Return the other rows of the same passages, without their summaries."""
        ids = {row["id"] for row in train}
        passages = {row["passage"] for row in train}
        return [
            row | {"summary": ""}
            for row in self.data["train"]
            if row["passage"] in passages and row["id"] not in ids
        ]

    def encode(self, row, options):
        columns = ("question", "passage", "summary") + (("answerable",) if "fusion" in options else ())
        return dict(self.processor(**{name: row[name] for name in columns}))

    def make_contrasts(self, train, encoded, other_rows, seed):
        texts = ({name: row[name] for name in ("question", "passage")} for row in other_rows)
        encoded = [*encoded, *(dict(self.processor(**inputs)) for inputs in texts)]
        for index, row in enumerate(encoded):
            row[ROW_INDEX_COLUMN] = index
        rows = {
            name: [row[name] for row in (*train, *other_rows)] for name in ("passage", "question", "summary")
        }
        return Contrasts(rows, encoded, seed)

    def fit(self, model, encoded, steps, seed, rate, options, contrasts, labeler, only=None):
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
                generation_max_length=48,
            )
            CrossTaskTrainer(
                model=model,
                args=settings,
                train_dataset=encoded,
                data_collator=CrossTaskCollator(self.processor, contrasts=contrasts),
                processing_class=self.processor,
                fusion_learning_rate=FUSION_LEARNING_RATE if "fusion" in options else None,
                contrastive_weight=options.get("contrast", 0.0),
                summary_labeler=labeler,
                own_summary_steps=self.own_summary_steps,
            ).train()


def get_rate(system: str, rows: int) -> float:
    """Return the learning rate of a system for a number of rows."""
    return SYSTEMS[system].get("rate", RATES[system.split(",")[0]][rows])


def load_model(folder: Path) -> tuple[torch.nn.Module, CrossTaskProcessor]:
    processor = CrossTaskProcessor.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_crosstask = config["model_type"] == "crosstask"
    model_class = CrossTaskForConditionalGeneration if is_crosstask else AutoModelForSeq2SeqLM
    return model_class.from_pretrained(folder).eval(), processor


def evaluate(model, processor, rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return the metrics of greedy decoding, of beams, of ranked beams, and of judging the references."""
    results = {"test": generate(model, processor, rows)[1]}
    results["beams"] = generate(model, processor, rows, num_beams=4)[1]
    if hasattr(model, "answerability_head"):
        results["judgment"] = judge_references(model, processor, rows)
        beams = {"num_beams": 4, "num_return_sequences": 4}
        results["reranked"] = generate(model, processor, rows, answerability_rerank=1.0, **beams)[1]
        results["oracle"] = generate(model, processor, rows, choose_best=True, **beams)[1]
    if getattr(model, "gated_cross_attention", None) is not None:
        results["zeroed"] = generate(model, processor, rows, zeroed=True)[1]
    return results


def iter_batches(
    model, processor, rows: list[dict], columns: Sequence[str] = ("question", "passage"), size: int = 50
) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(rows), size):
        texts = {name: [row[name] for row in rows[start : start + size]] for name in columns}
        yield dict(processor(**texts, return_tensors="pt").to(model.device))


@torch.inference_mode()
def generate(
    model, processor, rows: list[dict], zeroed: bool = False, choose_best: bool = False, **settings
) -> tuple[list[str], dict[str, float]]:
    """
    Return summaries and their metrics. `zeroed` replaces the states of the question encoder by zeros, and
    `choose_best` takes of several sequences the first one with the highest answer recall.
    """
    summaries = []
    count = settings.get("num_return_sequences", 1)
    for inputs in iter_batches(model, processor, rows):
        if zeroed:
            size = (*inputs["input_ids"].shape, model.question_encoder.config.hidden_size)
            inputs["question_encoder_outputs"] = (torch.zeros(size, device=model.device),)
        ids = model.generate(**inputs, max_new_tokens=48, **settings)
        texts = processor.batch_decode(ids, skip_special_tokens=True)
        for start in range(0, len(texts), count):
            candidates = texts[start : start + count]
            answer = rows[len(summaries)]["answer"]
            recalls = answer_recall_rows(candidates, [answer] * count) if choose_best and answer else [0.0]
            summaries.append(candidates[recalls.index(max(recalls))])
    return summaries, compute_metrics(summaries, rows)


def compute_metrics(summaries: list[str], rows: list[dict]) -> dict[str, float]:
    """Return answer recall, ROUGE-L and the mean length in words."""
    answerable = [index for index, row in enumerate(rows) if row["answerable"] == 1]
    rouge = rouge_rows([summaries[i] for i in answerable], [rows[i]["summary"] for i in answerable])
    return {
        "answer_recall": round(answer_recall(summaries, [row["answer"] for row in rows]), 4),
        "rougeL": round(mean(rouge["rougeL"]), 4),
        "words": round(mean([len(summary.split()) for summary in summaries]), 2),
    }


@torch.inference_mode()
def judge_references(model, processor, rows: list[dict]) -> dict[str, float]:
    """Return AUROC and expected calibration error of the answerability of the references."""
    probabilities = []
    for inputs in iter_batches(model, processor, rows, ("question", "passage", "summary")):
        logits = model(**inputs).answerability_logits
        probabilities += logits.float().softmax(-1)[:, 1].tolist()
    metrics = answerability_figures(probabilities, [row["answerable"] for row in rows])
    return {name: round(metrics[name], 4) for name in ("auroc", "ece")}


if __name__ == "__main__":
    main()
