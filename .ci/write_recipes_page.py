"""Write the page of all keys of recipes: `python .ci/write_recipes_page.py docs/recipes.md`."""

import sys
from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from crosstask.data.build import BuildArguments
from crosstask.data.builder.normalize import Normalization
from crosstask.eval.run import EvalArguments
from crosstask.training.arguments import RunArguments, StageArguments

INTRODUCTION = """# The keys of a recipe

<!-- Written by `python .ci/write_recipes_page.py docs/recipes.md`; edit the dataclasses instead. -->

A recipe is a YAML file. Every key can be given on the command line as well, as `--key value`. An output
folder holds its recipe as `recipe.yaml`: `crosstask-train runs/mine/recipe.yaml --output_dir runs/again`
repeats a run.
"""
SECTIONS = {
    "`crosstask-train`, for the whole run": RunArguments,
    "`crosstask-train`, for all stages or one": StageArguments,
    "`crosstask-build`": BuildArguments,
    "`crosstask-eval`": EvalArguments,
}
TRAINING = """
Besides these, every argument of transformers'
[`Seq2SeqTrainingArguments`](https://huggingface.co/docs/transformers/main_classes/trainer) is a key. Those
that matter first are `max_steps` or `num_train_epochs`, `learning_rate`, `per_device_train_batch_size`,
`gradient_accumulation_steps`, `save_steps` (a number of steps, or a share of all steps such as 0.1),
`eval_strategy`, `generation_max_length` and `bf16`.
"""


def write_page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION]
    for title, arguments_class in SECTIONS.items():
        parts.append(f"\n## {title}\n\n{make_table(arguments_class)}")
        if arguments_class is StageArguments:
            parts.append(TRAINING)
        if arguments_class is BuildArguments:
            steps = ", ".join(f"`{field.name}` ({show_default(field)})" for field in fields(Normalization))
            parts.append(f"\nThe steps of `normalize` and their defaults: {steps}.\n")
    return "".join(parts)


def make_table(arguments_class: type) -> str:
    """Return a table of the keys, defaults and meanings of a dataclass."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for field in fields(arguments_class):
        text = field.metadata["help"].replace("|", "\\|")
        text = text if text.endswith("...") else text.removesuffix(".")
        lines.append(f"| `{field.name}` | {show_default(field)} | {text[0].upper()}{text[1:]} |")
    return "\n".join(lines) + "\n"


def show_default(field) -> str:
    """Return the default of a field as YAML."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if default is MISSING or default == "":
        return "required"
    if default is None:
        return ""
    return f"`{yaml.safe_dump(default, default_flow_style=True).partition(chr(10) + '...')[0].strip()}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(write_page(), encoding="utf-8")
