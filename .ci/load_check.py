"""Compare a checkpoint's outputs between two environments: `load_check.py save|load FOLDER FILE`.

`save`, with this library, writes the outputs for fixed inputs to FILE; `load`, without it, compares with
them.
"""

import importlib.util
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor

mode, folder, file = sys.argv[1:]
if mode == "load":
    assert importlib.util.find_spec("crosstask") is None, "expected an environment without this library"
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
tensors = {
    **inputs,
    "logits": output.logits,
    "answerability_logits": output.answerability_logits,
    "sequences": generated.sequences,
    "answerability": generated.answerability,
}
if mode == "save":
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
else:
    expected = load_file(file)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            tensors[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda message, name=name: f"{name}: {message}"
        )
    print(f"transformers {transformers.__version__}: {config.model_type}, equal to the saved outputs")
