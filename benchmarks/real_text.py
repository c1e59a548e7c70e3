"""Compare the fusions on real text: ACLSum, QMSum and SQuALITY, with one seed, in one hour on two cores.

    pip install aclsum
    python benchmarks/real_text.py prepare --folder runs/real \\
        --qmsum QMSUM --squality SQUALITY --encoder ENCODER
    python benchmarks/real_text.py pretrain --folder runs/real
    python benchmarks/real_text.py study --folder runs/real --output benchmarks/results/real_text.jsonl

The folder QMSUM contains `train.jsonl` and `val.jsonl`, and SQUALITY `train.jsonl` and `dev.jsonl`. ENCODER
is a pretrained text encoder, such as all-MiniLM-L6-v2.

- Passages: the sentences of a document that are closest to the question by the encoder's mean-pooled
states, as
  many as fit, in their original order. All systems read the same passages.
- Summarizer: a T5 from scratch, trained first on gap sentences (Zhang et al., 2020,
  https://arxiv.org/abs/1912.08777) of the training documents, then on their generic summaries (three aspects,
  general queries, plots).
- Question encoder: ENCODER, frozen, so that its states are computed only once.
- Joint rows: all questions about the training documents with label 1, and the same number with a summary that
  answers another question about the document and label 0.

Besides ROUGE, the benchmark measures the loss of the references, and how often a reference is more likely
under its question than under another question about the document, which shows first whether a model uses
the question.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Seq2SeqTrainingArguments,
    T5Config,
    set_seed,
)

from crosstask import (
    AdapterRouter,
    CrossTaskForConditionalGeneration,
    CrossTaskProcessor,
    CrossTaskTrainer,
    read_rows,
)
from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import mean
from crosstask.data.collator import CrossTaskCollator
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.text_scores import rouge_rows
from crosstask.fusion_crosstask import sum_log_probs
from crosstask.sentences_crosstask import split_sentences

SOURCE_LENGTH, QUESTION_LENGTH = 384, 256  # maximum input tokens of the summarizer and the question encoder
SUMMARY_LENGTH = 96
VOCAB_SIZE = 8000
SHAPE = {"d_model": 256, "d_kv": 64, "d_ff": 768, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.1}
SYSTEMS = {
    "summarizer": None,
    "fine-tuned": None,
    "classifier": {"fusion": "classifier"},
    "gated": {"fusion": "gated"},
    "gated, random question encoder": {"fusion": "gated"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="prepare the rows and the tokenizer")
    for name in ("qmsum", "squality", "encoder"):
        prepare.add_argument(f"--{name}", required=True)
    pretrain = commands.add_parser("pretrain", help="train the summarizer")
    pretrain.add_argument(
        "--minutes", type=float, default=25, help="minutes of training on gap sentences (default 25)"
    )
    study = commands.add_parser("study", help="train and evaluate the systems")
    study.add_argument("--output", type=Path, required=True, help="file of JSON lines to append to")
    study.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    study.add_argument("--steps", type=int, default=600, help="training steps of a system (default 600)")
    for command, run in ((prepare, prepare_rows), (pretrain, train_summarizer), (study, compare_systems)):
        command.add_argument("--folder", type=Path, required=True)
        command.add_argument("--threads", type=int, default=2)
        command.set_defaults(run=run)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_seed(0)
    arguments.run(arguments)


# Rows


def prepare_rows(arguments: argparse.Namespace) -> None:
    """
    Write a tokenizer and `rows.json`: the passages, rows with a summary that answers no question (`generic`),
    and joint rows (`train`, `test`).
    """
    select = SentenceSelector(arguments.encoder)
    prepared = {"encoder": arguments.encoder, "texts": [], "generic": [], "train": [], "test": []}
    for name, read in make_readers(Path(arguments.qmsum), Path(arguments.squality)).items():
        documents = read("train", "fuse")
        prepared["texts"] += sorted({row["passage"] for row in documents})
        for row in read("train", "summarize"):
            passage = select(row["passage"], "What is it about?")
            prepared["generic"].append({"passage": passage, "summary": row["summary"]})
        for split, rows in (("train", documents), ("test", read("test", "fuse"))):
            for row in pair_questions(rows):
                row |= {"source": name, "passage": select(row.pop("document"), row["question"])}
                prepared[split].append(row)
        print(name, {key: len(rows) for key, rows in prepared.items() if key != "encoder"}, flush=True)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "rows.json").write_text(json.dumps(prepared), encoding="utf-8")
    corpus = prepared["texts"] + [row[key] for row in prepared["train"] for key in ("question", "summary")]
    train_tokenizer(corpus, VOCAB_SIZE).save_pretrained(arguments.folder / "tokenizer")


def make_readers(qmsum: Path, squality: Path) -> dict[str, Callable[[str, str], list[dict]]]:
    """Return for each source a function `read(split, stage)` that returns its rows with label 1."""

    def make_file_reader(train, test):
        def read(split, stage):
            parts = read_rows(str(train if split == "train" else test), stage)
            return next(iter(parts.values())).to_list()

        return read

    def read_papers(split, stage):
        rows = read_rows("aclsum", stage)[split].to_list()
        return [row for row in rows if row.get("answerable", 1) == 1]

    return {
        "qmsum": make_file_reader(qmsum / "train.jsonl", qmsum / "val.jsonl"),
        "squality": make_file_reader(squality / "train.jsonl", squality / "dev.jsonl"),
        "aclsum": read_papers,
    }


def pair_questions(rows: list[dict]) -> list[dict]:
    """Return one row per question of a document, with its first reference and with another question."""
    documents = {}
    for row in rows:
        documents.setdefault(row["passage"], {}).setdefault(row["question"], row["summary"])
    pairs = []
    for document, summaries in documents.items():
        questions = list(summaries)
        for index, question in enumerate(questions):
            if len(questions) > 1:
                other = questions[(index + 1) % len(questions)]
                pairs.append(
                    {
                        "document": document,
                        "question": question,
                        "summary": summaries[question],
                        "other question": other,
                        "other summary": summaries[other],
                    }
                )
    return pairs


class SentenceSelector:
    """Select the sentences of a document that are closest to a question, up to a number of words."""

    def __init__(self, encoder: str):
        self.embed = AdapterRouter(encoder, max_length=64).embed
        self.documents = {}

    def __call__(self, document: str, question: str, words: int = 230) -> str:
        if document not in self.documents:
            sentences = split_sentences(document)
            self.documents[document] = sentences, self.embed(sentences)
        sentences, vectors = self.documents[document]
        scores = vectors @ self.embed([question])[0]
        selected = []
        for index in scores.argsort(descending=True).tolist():
            words -= len(sentences[index].split())
            if words < 0:
                break
            selected.append(index)
        return " ".join(sentences[index] for index in sorted(selected or [0]))


# The summarizer


def train_summarizer(arguments: argparse.Namespace) -> None:
    """Write `summarizer/`, trained on gap sentences for some minutes, and then on generic summaries."""
    prepared = json.loads((arguments.folder / "rows.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "tokenizer")
    processor = CrossTaskProcessor(tokenizer, max_source_length=SOURCE_LENGTH)
    model = AutoModelForSeq2SeqLM.from_config(
        T5Config(**SHAPE, vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    )
    gaps = list(make_gap_rows(prepared["texts"]))
    random.Random(0).shuffle(gaps)
    print(len(gaps), "gap sentences", flush=True)
    encoded = [encode_row(processor, row["passage"], row["summary"]) for row in gaps]
    start = time.monotonic()
    fit(model, processor, encoded, 1e-3, arguments.folder, minutes=arguments.minutes)
    print("gap sentences took", round(time.monotonic() - start), "s", flush=True)
    encoded = [encode_row(processor, row["passage"], row["summary"]) for row in prepared["generic"]]
    fit(model, processor, encoded, 3e-4, arguments.folder, steps=150)
    model.save_pretrained(arguments.folder / "summarizer")


def make_gap_rows(texts: list[str], window: int = 14, gap: int = 2) -> Iterator[dict[str, str]]:
    """Yield windows of sentences; the ones that share most words with the others are the target."""
    for text in texts:
        sentences = split_sentences(text)
        for start in range(0, max(len(sentences) - window, 1), window // 2):
            part = sentences[start : start + window]
            words = [set(sentence.lower().split()) for sentence in part]
            overlaps = []
            for index, sentence in enumerate(words):
                other_words = set().union(*words[:index], *words[index + 1 :])
                overlaps.append(len(sentence & other_words) / (len(sentence) + 3))
            gaps = sorted(range(len(part)), key=lambda index: -overlaps[index])[:gap]
            rest = " ".join(sentence for index, sentence in enumerate(part) if index not in gaps)
            if rest:
                yield {"passage": rest, "summary": " ".join(part[index] for index in sorted(gaps))}


def encode_row(
    processor: CrossTaskProcessor, passage: str, summary: str, question: str | None = None
) -> dict:
    row = dict(processor(question=question, passage=passage, summary=summary))
    row["labels"] = row["labels"][:SUMMARY_LENGTH]
    return row


def fit(
    model, processor, encoded, rate, folder, steps=None, minutes=None, collate=None, **trainer_arguments
) -> None:
    """Train for a number of steps or of minutes."""
    settings = Seq2SeqTrainingArguments(
        str(folder / "trainer"),
        per_device_train_batch_size=16,
        max_steps=steps or 10**6,
        learning_rate=rate,
        lr_scheduler_type="linear" if steps else "constant_with_warmup",
        warmup_steps=30,
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        seed=0,
    )
    trainer = CrossTaskTrainer(
        model=model,
        args=settings,
        train_dataset=encoded,
        data_collator=collate or CrossTaskCollator(processor),
        processing_class=processor,
        **trainer_arguments,
    )
    if minutes:
        end = time.monotonic() + 60 * minutes
        training_step = trainer.training_step

        def stop_in_time(*args, **kwargs):
            trainer.control.should_training_stop = time.monotonic() > end
            return training_step(*args, **kwargs)

        trainer.training_step = stop_in_time
    trainer.train()
    model.eval()


# The systems


def compare_systems(arguments: argparse.Namespace) -> None:
    prepared = json.loads((arguments.folder / "rows.json").read_text(encoding="utf-8"))
    finished = set()
    if arguments.output.exists():
        lines = arguments.output.read_text(encoding="utf-8").splitlines()
        finished = {json.loads(line)["system"] for line in lines}
    for name in arguments.systems:
        if name in finished:
            continue
        set_seed(0)
        start = time.monotonic()
        system = System(name, arguments.folder, prepared)
        if name != "summarizer":
            system.train(prepared["train"], arguments.steps)
        result = {"system": name, "steps": arguments.steps, "train": len(prepared["train"])}
        result |= {"training seconds": round(time.monotonic() - start)}
        for source in sorted({row["source"] for row in prepared["test"]}):
            result[source] = system.evaluate([row for row in prepared["test"] if row["source"] == source])
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


class System:
    """A system with its tokenizers, and with the states of the frozen question encoder."""

    def __init__(self, name: str, folder: Path, prepared: dict):
        self.name, self.folder = name, folder
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder_tokenizer = AutoTokenizer.from_pretrained(prepared["encoder"])
        # The question encoder has a separate processor, because its states are computed in advance.
        self.processor = CrossTaskProcessor(tokenizer, max_source_length=SOURCE_LENGTH)
        self.question_processor = CrossTaskProcessor(
            self.encoder_tokenizer, max_source_length=QUESTION_LENGTH
        )
        self.is_fused = SYSTEMS[name] is not None
        self.states = {}
        if not self.is_fused:
            self.model = AutoModelForSeq2SeqLM.from_pretrained(folder / "summarizer")
            return
        if "random" in name:
            encoder = AutoModel.from_config(AutoConfig.from_pretrained(prepared["encoder"]))
        else:
            encoder = prepared["encoder"]
        self.model = CrossTaskForConditionalGeneration.from_tasks(
            folder / "summarizer",
            encoder,
            fusion_num_heads=4,
            summary_loss_on="answerable",
            **SYSTEMS[name],
        )
        self.model.question_encoder.requires_grad_(False)

    def train(self, rows: list[dict], steps: int) -> None:
        encoded = [self.encode(row) for row in rows]
        if self.is_fused:
            encoded = [row | {"answerable": 1} for row in encoded]
            encoded += [self.encode(row, summary="other summary") | {"answerable": 0} for row in rows]
            self.compute_states([(row["question"], row["passage"]) for row in rows])
        rates = {"fusion_learning_rate": 1e-3} if self.is_fused else {}
        fit(self.model, self.processor, encoded, 3e-4, self.folder, steps, collate=self.collate, **rates)

    def encode(self, row: dict, question: str = "question", summary: str = "summary") -> dict:
        encoded = encode_row(self.processor, row["passage"], row[summary], row[question])
        return encoded | {"texts": (row[question], row["passage"])}

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = CrossTaskCollator(self.processor)(
            [{name: value for name, value in row.items() if name != "texts"} for row in rows]
        )
        if self.is_fused:
            states = [self.states[row["texts"]] for row in rows]
            batch["question_encoder_outputs"] = (pad_sequence(states, batch_first=True).float(),)
            lengths = torch.tensor([len(state) for state in states])
            batch["question_attention_mask"] = (torch.arange(lengths.max()) < lengths[:, None]).long()
        return batch

    @torch.inference_mode()
    def compute_states(self, pairs: list[tuple[str, str]]) -> None:
        """Store the encoder's states for questions and passages, in half precision to save memory."""
        pairs = sorted({*pairs} - self.states.keys(), key=lambda pair: len(pair[1]))
        self.model.question_encoder.eval()
        for start in range(0, len(pairs), 32):
            part = pairs[start : start + 32]
            questions, passages = (list(texts) for texts in zip(*part, strict=True))
            inputs = self.question_processor(question=questions, passage=passages, return_tensors="pt")
            states = self.model.question_encoder(**inputs)[0].half()
            for pair, state, mask in zip(part, states, inputs["attention_mask"].bool(), strict=True):
                self.states[pair] = state[mask].clone()

    @torch.inference_mode()
    def evaluate(self, rows: list[dict], size: int = 16) -> dict:
        if self.is_fused:
            names = ("question", "other question")
            self.compute_states([(row[name], row["passage"]) for row in rows for name in names])
        summaries, log_probs, tokens, gains, probabilities, labels = [], [], [], [], [], []
        rows = sorted(rows, key=lambda row: len(row["passage"]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = self.collate([self.encode(row) for row in part])
            references = batch.pop("labels")
            ids = self.model.generate(
                **batch, max_new_tokens=SUMMARY_LENGTH, no_repeat_ngram_size=3, num_beams=1
            )
            summaries += self.processor.batch_decode(ids, skip_special_tokens=True)
            log_prob = self.compute_log_prob(batch, references)
            log_probs += log_prob.tolist()
            tokens += (references != IGNORE_INDEX).sum(-1).tolist()
            swapped = self.collate([self.encode(row, question="other question") for row in part])
            gains += (log_prob - self.compute_log_prob(swapped, swapped.pop("labels"))).tolist()
            if self.is_fused:
                for summary, label in (("summary", 1), ("other summary", 0)):
                    batch = self.collate([self.encode(row, summary=summary) for row in part])
                    logits = self.model(**batch).answerability_logits
                    probabilities += logits.softmax(-1)[:, 1].tolist()
                    labels += [label] * len(part)
        rouge = rouge_rows(summaries, [row["summary"] for row in rows])
        metrics = {name: mean(rouge[name]) for name in ("rouge1", "rouge2", "rougeL")}
        metrics["loss per token"] = -sum(log_probs) / sum(tokens)
        metrics["question preferred"] = mean([(gain > 0) + (gain == 0) / 2 for gain in gains])
        metrics["gain in nats"] = mean(gains)
        if probabilities:
            judgment = answerability_figures(probabilities, labels)
            metrics |= {name: judgment[name] for name in ("auroc", "ece")}
        metrics = {name: round(value, 4) for name, value in metrics.items()}
        return metrics | {"rows": len(rows), "examples": [summaries[0], summaries[-1]]}

    def compute_log_prob(self, batch, labels):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return sum_log_probs(self.model(**inputs, labels=labels).logits, labels)


if __name__ == "__main__":
    main()
