"""A checkpoint gives the same numbers in another environment: `load_check.py save|load FOLDER FILE`."""

import importlib.util
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor

mode, folder, file = sys.argv[1:]
if mode == "load":
    assert importlib.util.find_spec("crosstask") is None, "the package is installed, so nothing is proved"
    remote = {"trust_remote_code": True}
else:
    import crosstask  # noqa: F401  (registers the classes)

    remote = {}
config = AutoConfig.from_pretrained(folder, **remote)
processor = AutoProcessor.from_pretrained(folder, **remote)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, **remote).eval()
inputs = processor(
    question=["Who opened the bridge?", "When was it?"],
    passage=["The mayor opened the old bridge on May 3.", "It rained. The mayor opened the bridge on May 3."],
    summary=["The mayor opened the bridge.", "The bridge was opened on May 3."],
    answerable=[1, 1],
    return_tensors="pt",
)
with torch.no_grad():
    output = model(**inputs)
    generated = model.generate(**inputs, num_beams=2, return_dict_in_generate=True)
found = {
    **inputs,
    "logits": output.logits,
    "answerability_logits": output.answerability_logits,
    "sequences": generated.sequences,
    "answerability": generated.answerability,
}
if mode == "save":
    save_file({name: value.contiguous() for name, value in found.items()}, file)
else:
    expected = load_file(file)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    print(f"transformers {transformers.__version__}: {config.model_type}, equal to where it was saved")
