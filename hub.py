"""What a reader of the Hub sees of a model: its card."""

import platform
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from crosstask.eval.scores import table
from crosstask.storage import write_text


def write_model_card(folder, recipe, metrics, history, results=None):
    """
    Write `README.md` into a model's folder, from what the run really did.

    Args:
        folder (`Path`): The model's folder.
        recipe ([`Recipe`]): What was trained.
        metrics (`dict`): As [`evaluate`] makes them.
        history (`dict`): Seconds and log of each stage that ran.
        results (`list[EvalResult]`, *optional*): The evaluation, for the card's metadata.
    """
    bases = [name for name in (recipe.run.summarizer, recipe.run.question_answerer) if name]
    bases = [name for name in bases if on_hub(name)]  # the Hub refuses a card that names a folder
    data = ModelCardData(
        library_name="transformers",
        tags=["crosstask", "question-prompted-summarization", "summarization"],
        base_model=list(dict.fromkeys(bases)) or None,
        model_name=recipe.output_dir.resolve().name,
        eval_results=results,
    )
    stages = "\n".join(
        f"| {name} | {public_name(recipe.stages[name].stage.data)} | {entry['seconds']:.0f} s | "
        f"{entry['log'][-1].get('step', '-')} |"
        for name, entry in history.items()
    )
    example = metrics["examples"][0] if metrics["examples"] else {"question": "...", "passage": "..."}
    card = f"""---
{data.to_yaml()}
---

# {recipe.output_dir.resolve().name}

A question-prompted summarizer: its summary of a passage carries the answer to a question, and it says how
probable it is that it does. A summarizer and a question encoder, joined by cross-attention
(`fusion="{recipe.run.fusion}"`), trained with `crosstask`.

## Use

```python
from transformers import AutoModelForSeq2SeqLM, AutoProcessor

model = AutoModelForSeq2SeqLM.from_pretrained("path/or/id", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("path/or/id", trust_remote_code=True)
inputs = processor(question={example["question"]!r}, passage="...", return_tensors="pt")
output = model.generate(**inputs, return_dict_in_generate=True)
print(processor.batch_decode(output.sequences, skip_special_tokens=True), output.answerability)
```

## Training

| stage | rows from | time | steps |
|---|---|---|---|
{stages}

transformers {transformers.__version__}, torch {torch.__version__}, Python {platform.python_version()}.

![Learning curves](learning_curve.png)

## Evaluation

{metrics["rows"]} test rows on {metrics["passages"]} passages. ROUGE is over the rows whose reference carries
the answer, answer recall over the rows with an answer, answerability over the rows' own summaries.

{table(metrics["systems"], markdown=True)}
"""
    ModelCard(card)  # fails on metadata that the Hub would not read
    write_text(folder / "README.md", card)


def on_hub(name):
    """Whether a name is an id of the Hub rather than a folder or file."""
    if Path(name).expanduser().exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def public_name(name):
    """A source of rows without the folders that it lies in, which are nobody's business."""
    return name if on_hub(name) else Path(name).name
