"""The study's opponents on real text: ACLSum, QMSum and SQuALITY, one seed, one hour on two cores.

    pip install aclsum
    python benchmarks/real_text.py prepare --folder runs/real \\
        --qmsum QMSUM --squality SQUALITY --encoder ENCODER
    python benchmarks/real_text.py pretrain --folder runs/real
    python benchmarks/real_text.py study --folder runs/real --output benchmarks/results/real_text.jsonl

QMSUM has `train.jsonl` and `val.jsonl`, SQUALITY `train.jsonl` and `dev.jsonl`; ENCODER is a text encoder
that was trained before, such as all-MiniLM-L6-v2.

- Passages: of each document the sentences closest to the question by the encoder's mean-pooled states, as
  many as fit, in their order. All systems read the same.
- Summarizer: a T5 from scratch. First gap sentences (Zhang et al., 2020, https://arxiv.org/abs/1912.08777) of
  the training documents, then their generic summaries: three aspects, general queries, plots.
- Question encoder: ENCODER as it is, frozen, so that its states are computed once.
- Joint rows: every question of the training documents, and as many with a summary that answers another
  question on the document, labelled 0.

Besides ROUGE, the loss of the references, and how often a reference is more likely under its own question
than under another one on the document: what is learned from the question shows there first.
"""

import argparse
import json
import random
import time
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
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import rouge_rows
from crosstask.generation_crosstask import sum_log_probs
from crosstask.sentences_crosstask import split_sentences

LENGTH, QUESTION_LENGTH = 384, 256  # tokens that the summarizer and the question encoder read
SUMMARY_LENGTH = 96
VOCABULARY = 8000
SHAPE = {"d_model": 256, "d_kv": 64, "d_ff": 768, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.1}
SYSTEMS = {
    "summarizer": None,
    "fine-tuned": None,
    "classifier": {"fusion": "classifier"},
    "gated": {"fusion": "gated"},
    "gated, random question encoder": {"fusion": "gated"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    prepare_ = commands.add_parser("prepare", help="rows and the tokenizer")
    for name in ("qmsum", "squality", "encoder"):
        prepare_.add_argument(f"--{name}", required=True)
    pretrain_ = commands.add_parser("pretrain", help="the summarizer")
    pretrain_.add_argument("--minutes", type=float, default=25, help="of gap sentences (default 25)")
    study_ = commands.add_parser("study", help="the systems")
    study_.add_argument("--output", type=Path, required=True, help="JSON lines, which are added to")
    study_.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    study_.add_argument("--steps", type=int, default=600, help="of each (default 600)")
    for command, run in ((prepare_, prepare), (pretrain_, pretrain), (study_, study)):
        command.add_argument("--folder", type=Path, required=True)
        command.add_argument("--threads", type=int, default=2)
        command.set_defaults(run=run)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_seed(0)
    arguments.run(arguments)


# Rows


def prepare(arguments):
    """`rows.json`: documents' texts, generic rows, and joint rows for training and test, and a tokenizer."""
    closest = Closest(arguments.encoder)
    prepared = {"encoder": arguments.encoder, "texts": [], "generic": [], "train": [], "test": []}
    for name, read in readers(Path(arguments.qmsum), Path(arguments.squality)).items():
        documents = read("train", "fuse")
        prepared["texts"] += sorted({row["passage"] for row in documents})
        for row in read("train", "summarize"):
            passage = closest(row["passage"], "What is it about?")
            prepared["generic"].append({"passage": passage, "summary": row["summary"]})
        for split, rows in (("train", documents), ("test", read("test", "fuse"))):
            for row in asked(rows):
                row |= {"source": name, "passage": closest(row.pop("document"), row["question"])}
                prepared[split].append(row)
        print(name, {key: len(rows) for key, rows in prepared.items() if key != "encoder"}, flush=True)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "rows.json").write_text(json.dumps(prepared), encoding="utf-8")
    corpus = prepared["texts"] + [row[key] for row in prepared["train"] for key in ("question", "summary")]
    train_tokenizer(corpus, VOCABULARY).save_pretrained(arguments.folder / "tokenizer")


def readers(qmsum, squality):
    """`read(split, stage)` of each source: rows that are labelled 1."""

    def of_files(train, test):
        def read(split, stage):
            parts = read_rows(str(train if split == "train" else test), stage)
            return next(iter(parts.values())).to_list()

        return read

    def of_papers(split, stage):
        rows = read_rows("aclsum", stage)[split].to_list()
        return [row for row in rows if row.get("answerable", 1) == 1]

    return {
        "qmsum": of_files(qmsum / "train.jsonl", qmsum / "val.jsonl"),
        "squality": of_files(squality / "train.jsonl", squality / "dev.jsonl"),
        "aclsum": of_papers,
    }


def asked(rows):
    """Each question of a document once, with another question of it, and its first reference."""
    documents = {}
    for row in rows:
        documents.setdefault(row["passage"], {}).setdefault(row["question"], row["summary"])
    chosen = []
    for document, summaries in documents.items():
        questions = list(summaries)
        for index, question in enumerate(questions):
            if len(questions) > 1:
                other = questions[(index + 1) % len(questions)]
                chosen.append(
                    {
                        "document": document,
                        "question": question,
                        "summary": summaries[question],
                        "other question": other,
                        "other summary": summaries[other],
                    }
                )
    return chosen


class Closest:
    """The sentences of a document that are closest to a question, as many as a model reads."""

    def __init__(self, encoder):
        self.embed = AdapterRouter(encoder, max_length=64).embed
        self.documents = {}

    def __call__(self, document, question, words=230):
        if document not in self.documents:
            sentences = split_sentences(document)
            self.documents[document] = sentences, self.embed(sentences)
        sentences, vectors = self.documents[document]
        scores = vectors @ self.embed([question])[0]
        kept = []
        for place in scores.argsort(descending=True).tolist():
            words -= len(sentences[place].split())
            if words < 0:
                break
            kept.append(place)
        return " ".join(sentences[place] for place in sorted(kept or [0]))


# The summarizer


def pretrain(arguments):
    """`summarizer/`: gap sentences for so many minutes, then generic summaries."""
    prepared = json.loads((arguments.folder / "rows.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "tokenizer")
    processor = CrossTaskProcessor(tokenizer, max_source_length=LENGTH)
    model = AutoModelForSeq2SeqLM.from_config(
        T5Config(**SHAPE, vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    )
    gaps = list(gap_rows(prepared["texts"]))
    random.Random(0).shuffle(gaps)
    print(len(gaps), "gap sentences", flush=True)
    encoded = [row_of(processor, row["passage"], row["summary"]) for row in gaps]
    start = time.monotonic()
    fit(model, processor, encoded, 1e-3, arguments.folder, minutes=arguments.minutes)
    print("gap sentences took", round(time.monotonic() - start), "s", flush=True)
    encoded = [row_of(processor, row["passage"], row["summary"]) for row in prepared["generic"]]
    fit(model, processor, encoded, 3e-4, arguments.folder, steps=150)
    model.save_pretrained(arguments.folder / "summarizer")


def gap_rows(texts, window=14, gap=2):
    """Windows of a text without the sentences that share most words with the rest, which are the target."""
    for text in texts:
        sentences = split_sentences(text)
        for start in range(0, max(len(sentences) - window, 1), window // 2):
            part = sentences[start : start + window]
            words = [set(sentence.lower().split()) for sentence in part]
            shared = [
                len(own & set().union(*(other for at, other in enumerate(words) if at != place)))
                / (len(own) + 3)
                for place, own in enumerate(words)
            ]
            taken = sorted(range(len(part)), key=lambda place: -shared[place])[:gap]
            rest = " ".join(sentence for place, sentence in enumerate(part) if place not in taken)
            if rest:
                yield {"passage": rest, "summary": " ".join(part[place] for place in sorted(taken))}


def row_of(processor, passage, summary, question=None):
    row = dict(processor(question=question, passage=passage, summary=summary))
    row["labels"] = row["labels"][:SUMMARY_LENGTH]
    return row


def fit(model, processor, encoded, rate, folder, steps=None, minutes=None, collate=None, **more):
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
        **more,
    )
    if minutes:
        end = time.monotonic() + 60 * minutes
        step = trainer.training_step

        def timed(*args, **kwargs):
            trainer.control.should_training_stop = time.monotonic() > end
            return step(*args, **kwargs)

        trainer.training_step = timed
    trainer.train()
    model.eval()


# The systems


def study(arguments):
    prepared = json.loads((arguments.folder / "rows.json").read_text(encoding="utf-8"))
    known = set()
    if arguments.output.exists():
        lines = arguments.output.read_text(encoding="utf-8").splitlines()
        known = {json.loads(line)["system"] for line in lines}
    for name in arguments.systems:
        if name in known:
            continue
        set_seed(0)
        start = time.monotonic()
        system = System(name, arguments.folder, prepared)
        if name != "summarizer":
            system.train(prepared["train"], arguments.steps)
        line = {"system": name, "steps": arguments.steps, "train": len(prepared["train"])}
        line |= {"training seconds": round(time.monotonic() - start)}
        line |= {source: system.measured(rows) for source, rows in by_source(prepared["test"]).items()}
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def by_source(rows):
    return {
        name: [row for row in rows if row["source"] == name] for name in sorted({r["source"] for r in rows})
    }


class System:
    def __init__(self, name, folder, prepared):
        self.name, self.folder = name, folder
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder_tokenizer = AutoTokenizer.from_pretrained(prepared["encoder"])
        # The question encoder reads on its own, once, so that the model's processor has one tokenizer.
        self.processor = CrossTaskProcessor(tokenizer, max_source_length=LENGTH)
        self.reader = CrossTaskProcessor(self.encoder_tokenizer, max_source_length=QUESTION_LENGTH)
        self.fused = SYSTEMS[name] is not None
        self.states = {}
        if not self.fused:
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

    def train(self, rows, steps):
        encoded = [self.encoded(row) for row in rows]
        if self.fused:
            encoded = [row | {"answerable": 1} for row in encoded]
            encoded += [self.encoded(row, summary="other summary") | {"answerable": 0} for row in rows]
            self.read([(row["question"], row["passage"]) for row in rows])
        rates = {"fusion_learning_rate": 1e-3} if self.fused else {}
        fit(self.model, self.processor, encoded, 3e-4, self.folder, steps, collate=self.collate, **rates)

    def encoded(self, row, question="question", summary="summary"):
        encoded = row_of(self.processor, row["passage"], row[summary], row[question])
        return encoded | {"read": (row[question], row["passage"])}

    def collate(self, rows):
        batch = CrossTaskCollator(self.processor)(
            [{k: v for k, v in row.items() if k != "read"} for row in rows]
        )
        if self.fused:
            states = [self.states[row["read"]] for row in rows]
            batch["question_encoder_outputs"] = (pad_sequence(states, batch_first=True).float(),)
            lengths = torch.tensor([len(state) for state in states])
            batch["question_attention_mask"] = (torch.arange(lengths.max()) < lengths[:, None]).long()
        return batch

    @torch.inference_mode()
    def read(self, pairs):
        """What the frozen encoder makes of questions and passages, in half the memory."""
        pairs = sorted({*pairs} - self.states.keys(), key=lambda pair: len(pair[1]))
        self.model.question_encoder.eval()
        for start in range(0, len(pairs), 32):
            part = pairs[start : start + 32]
            questions, passages = (list(texts) for texts in zip(*part, strict=True))
            inputs = self.reader(question=questions, passage=passages, return_tensors="pt")
            states = self.model.question_encoder(**inputs)[0].half()
            for pair, state, mask in zip(part, states, inputs["attention_mask"].bool(), strict=True):
                self.states[pair] = state[mask].clone()

    @torch.inference_mode()
    def measured(self, rows, size=16):
        if self.fused:
            names = ("question", "other question")
            self.read([(row[name], row["passage"]) for row in rows for name in names])
        summaries, likelihoods, tokens, other, probabilities, labels = [], [], [], [], [], []
        rows = sorted(rows, key=lambda row: len(row["passage"]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = self.collate([self.encoded(row) for row in part])
            wanted = batch.pop("labels")
            ids = self.model.generate(
                **batch, max_new_tokens=SUMMARY_LENGTH, no_repeat_ngram_size=3, num_beams=1
            )
            summaries += self.processor.batch_decode(ids, skip_special_tokens=True)
            likelihoods += (own := self.likelihood(batch, wanted)).tolist()
            tokens += (wanted != IGNORE_INDEX).sum(-1).tolist()
            swapped = self.collate([self.encoded(row, question="other question") for row in part])
            other += (own - self.likelihood(swapped, swapped.pop("labels"))).tolist()
            if self.fused:
                for summary, label in (("summary", 1), ("other summary", 0)):
                    judged = self.collate([self.encoded(row, summary=summary) for row in part])
                    logits = self.model(**judged).answerability_logits
                    probabilities += logits.softmax(-1)[:, 1].tolist()
                    labels += [label] * len(part)
        rouge = rouge_rows(summaries, [row["summary"] for row in rows])
        found = {name: mean(rouge[name]) for name in ("rouge1", "rouge2", "rougeL")}
        found["loss a token"] = -sum(likelihoods) / sum(tokens)
        found["own question likelier"] = mean([(gain > 0) + (gain == 0) / 2 for gain in other])
        found["nats for the own question"] = mean(other)
        if probabilities:
            judged = answerability_figures(probabilities, labels)
            found |= {name: judged[name] for name in ("auroc", "ece")}
        found = {name: round(value, 4) for name, value in found.items()}
        return found | {"rows": len(rows), "examples": [summaries[0], summaries[-1]]}

    def likelihood(self, batch, labels):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return sum_log_probs(self.model(**inputs, labels=labels).logits, labels)


if __name__ == "__main__":
    main()
