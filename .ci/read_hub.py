"""What a stranger without this library gets from the Hub that check_hub.py serves: `read_hub.py MERGED`.

MERGED is the folder of bob's merged LoRA run, whose figures his adapter has to give on alice's model.
"""

import importlib.util
import sys

import evaluate
import torch
import transformers
from datasets import ClassLabel, load_dataset
from huggingface_hub import hf_hub_download
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline

assert importlib.util.find_spec("crosstask") is None, "the package is installed, so nothing is proved"
REMOTE = {"trust_remote_code": True}

# The card's code, as it stands.
for repo in ("alice/quickstart", "bob/whole"):
    card = open(hf_hub_download(repo, "README.md"), encoding="utf-8").read()
    code = card.split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    shown = " ".join(line[2:] for line in code.splitlines() if line.startswith("# "))
    assert " ".join(names["result"]["summary"].split()) == " ".join(shown.split()), (names["result"], shown)

summarize = pipeline("question-summarization", model="alice/quickstart", **REMOTE)
question, passage = names["result"]["question"], names["passage"]
several = summarize(
    question=[question, "When?"], passage=passage, return_evidence=True, min_answerability=0.5
)
assert [result["question"] for result in several] == [question, "When?"] and several[0]["evidence"]
processor = AutoProcessor.from_pretrained("alice/quickstart", **REMOTE)
model = AutoModelForSeq2SeqLM.from_pretrained("alice/quickstart", **REMOTE)
inputs = processor(question=question, passage=passage, return_tensors="pt")
written = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0].strip()
assert written == several[0]["summary"], (written, several)

rows = load_dataset("bob/bridges")
assert set(rows) == {"train", "validation", "test"}
assert isinstance(rows["train"].features["answerable"], ClassLabel)
published = load_dataset("alice/briefs-evaluation", "rows", split="test")
theirs = load_dataset("alice/briefs-evaluation", "cross-task", split="test")
assert isinstance(published.features["answerable"], ClassLabel) and published["id"][:] == theirs["id"][:]
answered = [row for row in zip(theirs["summary"][:], published["answer"][:], strict=True) if row[1]]
recall = evaluate.load("alice/answer_recall")
found = recall.compute(predictions=[s for s, _ in answered], references=[a for _, a in answered])
stored = [value for value in theirs["answer_recall"] if value is not None]
assert abs(found["answer_recall"] - sum(stored) / len(stored)) < 1e-9, found

# Bob's adapter on alice's model gives what his merged model gives.
merged = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], **REMOTE).eval()
base = AutoModelForSeq2SeqLM.from_pretrained("alice/quickstart", **REMOTE).eval()
adapted = PeftModel.from_pretrained(
    AutoModelForSeq2SeqLM.from_pretrained("alice/quickstart", **REMOTE), "bob/adapter"
)
on_top = AutoModelForSeq2SeqLM.from_pretrained("alice/quickstart", **REMOTE)
on_top.load_adapter("bob/adapter")
labelled = processor(question=question, passage=passage, summary=written, answerable=1, return_tensors="pt")
with torch.no_grad():
    wanted = merged(**labelled)
    for name, other in (("PeftModel", adapted.eval()), ("load_adapter", on_top.eval())):
        output = other(**labelled)
        for part in ("logits", "answerability_logits"):
            torch.testing.assert_close(output[part], wanted[part], rtol=1e-3, atol=1e-3)
        # One length for both: an adapter holds no generation settings, so it writes with its base's.
        got, expected = (one.generate(**inputs, max_new_tokens=48).tolist() for one in (other, merged))
        assert got == expected, (name, processor.batch_decode(got + expected))
    assert not torch.allclose(base(**labelled).answerability_logits, wanted.answerability_logits, atol=1e-3)
print(f"transformers {transformers.__version__}: card, pipeline, data sets, metric, adapter, second model")
