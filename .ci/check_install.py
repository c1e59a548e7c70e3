"""Check that an installed wheel works whole: `check_install.py QUICKSTART ADAPTED` (folders of two runs)."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, pipeline

import crosstask

quickstart, adapted = map(Path, sys.argv[1:])
package = Path(crosstask.__file__).parent
assert "site-packages" in package.parts, f"{package} is not the installed wheel"
assert (package / "py.typed").exists()

summarize = pipeline("question-summarization", model=str(quickstart / "crosstask"))
passage = "The brick arena hosted the cup final in Elm Harbor. The bill comes to $6 million."
summary = summarize(question="How much did organizers spend?", passage=passage)["summary"]
assert summary, "the pipeline wrote nothing"

model = AutoModelForSeq2SeqLM.from_pretrained(quickstart / "crosstask")
model.load_adapter(adapted / "adapter", adapter_name="farm")
assert model.active_adapters() == ["farm"], model.active_adapters()

flags = ["--output_dir", "plain_run", "--max_steps", "2"]
flags += ["--data_options", "{passages: {train: 50, validation: 8, test: 8}}"]
command = [Path(sys.executable).with_name("crosstask-train"), package / "configs" / "quickstart.yaml", *flags]
subprocess.run(command, check=True)
AutoModelForSeq2SeqLM.from_pretrained("plain_run/crosstask")
versions = ", ".join(
    f"{name} {version(name)}" for name in ("transformers", "peft", "datasets", "huggingface_hub")
)
print(f"{versions}: the pipeline wrote {summary!r}; training and load_adapter work")
