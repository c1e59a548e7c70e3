"""Use what check_hub.py has published, without this library: `read_hub.py MERGED`.

MERGED is the model's folder of Bob's LoRA run, with the adapter merged. His published adapter on Alice's
model has to give the same outputs.
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

assert importlib.util.find_spec("crosstask") is None, "expected an environment without this library"
REMOTE = {"trust_remote_code": True}


def load_model(name, **kwargs):
    return AutoModelForSeq2SeqLM.from_pretrained(name, **REMOTE, **kwargs)


# The code of the cards gives the summary that they show as comments.
for repo_id in ("alice/quickstart", "bob/whole"):
    with open(hf_hub_download(repo_id, "README.md"), encoding="utf-8") as file:
        code = file.read().split("```python\n")[1].split("```")[0]
    variables = {}
    exec(code, variables)
    summary = variables["result"]["summary"]
    shown = " ".join(line[2:] for line in code.splitlines() if line.startswith("# "))
    assert " ".join(summary.split()) == " ".join(shown.split()), (summary, shown)

# The pipeline writes what the model generates, and the weights match their published checksums.
summarize = pipeline("question-summarization", model="alice/quickstart", **REMOTE)
question, passage = variables["result"]["question"], variables["passage"]
questions = [question, "When?"]
results = summarize(question=questions, passage=passage, return_evidence=True)
assert [result["question"] for result in results] == questions and results[0]["evidence"]
judged = summarize(question=questions, passage=passage, return_evidence=True, min_answerability=0.5)
for result, judgment in zip(results, judged, strict=True):
    assert judgment["answered"] == (result["answerability"] >= 0.5), judgment
    assert judgment["evidence"] == (result["evidence"] if judgment["answered"] else []), judgment
processor = AutoProcessor.from_pretrained("alice/quickstart", **REMOTE)
model = load_model("alice/quickstart", verify_weights=True)
inputs = processor(question=question, passage=passage, return_tensors="pt")
summary = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0].strip()
assert summary == results[0]["summary"], (summary, results)

# Data sets have their types, and the published metric gives the published scores.
rows = load_dataset("bob/bridges")
assert set(rows) == {"train", "validation", "test"}
assert isinstance(rows["train"].features["answerable"], ClassLabel)
rows = load_dataset("alice/briefs-evaluation", "rows", split="test")
outputs = load_dataset("alice/briefs-evaluation", "cross-task", split="test")
assert isinstance(rows.features["answerable"], ClassLabel) and rows["id"][:] == outputs["id"][:]
pairs = [pair for pair in zip(outputs["summary"][:], rows["answer"][:], strict=True) if pair[1]]
computed = evaluate.load("alice/answer_recall").compute(
    predictions=[summary for summary, _ in pairs], references=[answer for _, answer in pairs]
)
published = [value for value in outputs["answer_recall"] if value is not None]
assert abs(computed["answer_recall"] - sum(published) / len(published)) < 1e-9, computed

# Bob's adapter on Alice's model gives the outputs of his merged model.
merged, base = load_model(sys.argv[1]).eval(), load_model("alice/quickstart").eval()
with_peft = PeftModel.from_pretrained(load_model("alice/quickstart"), "bob/adapter").eval()
with_transformers = load_model("alice/quickstart").eval()
with_transformers.load_adapter("bob/adapter")
labeled = processor(question=question, passage=passage, summary=summary, answerable=1, return_tensors="pt")
with torch.no_grad():
    expected = merged(**labeled)
    for name, adapted in (("PeftModel", with_peft), ("load_adapter", with_transformers)):
        output = adapted(**labeled)
        for key in ("logits", "answerability_logits"):
            torch.testing.assert_close(output[key], expected[key], rtol=1e-3, atol=1e-3)
        # The same length for both, since an adapter has no generation settings and uses those of its base.
        ids, expected_ids = (m.generate(**inputs, max_new_tokens=48).tolist() for m in (adapted, merged))
        assert ids == expected_ids, (name, processor.batch_decode(ids + expected_ids))
    assert not torch.allclose(base(**labeled).answerability_logits, expected.answerability_logits, atol=1e-3)
print(f"transformers {transformers.__version__}: card, pipeline, data sets, metric, adapter, second model")
