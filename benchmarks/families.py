"""
Try every text family of transformers' sequence-to-sequence models as the summarizer, and write a table.

The models are tiny and random: the table says what works, not how well. Run it after an upgrade of
transformers, or after a change of the model: `python benchmarks/families.py docs/families.md`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    PretrainedConfig,
    PreTrainedModel,
    Seq2SeqTrainingArguments,
)

from crosstask import CrossTaskForConditionalGeneration
from crosstask.training.trainer import CrossTaskTrainer
from crosstask.utils.errors import first_line
from crosstask.utils.files import write_text

START, END = "<!-- table: benchmarks/families.py -->", "<!-- end of the table -->"
VOCAB_SIZE = 99
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 0}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 64,
}
BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
GEMMA = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 16,
    "vocab_size": VOCAB_SIZE,
}
EXPERTS = {"num_experts": 4, "expert_capacity": 16}
# Settings of a tiny model of each family. Families that are missing here read audio.
FAMILIES: dict[str, dict] = {
    "bart": BART,
    "bigbird_pegasus": BART | {"attention_type": "original_full"},
    "blenderbot": BART,
    "blenderbot-small": BART,
    "encoder-decoder": {},
    "fsmt": BART | {"langs": ["en", "de"], "src_vocab_size": VOCAB_SIZE, "tgt_vocab_size": VOCAB_SIZE},
    "led": BART
    | {
        "attention_window": [4, 4],
        "max_encoder_position_embeddings": 64,
        "max_decoder_position_embeddings": 64,
    },
    "longt5": T5 | {"local_radius": 4, "global_block_size": 4},
    "m2m_100": BART,
    "marian": BART,
    "mbart": BART,
    "mt5": T5,
    "mvp": BART,
    "nllb-moe": BART | EXPERTS | {"encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "pegasus": BART,
    "pegasus_x": BART | {"block_size": 8, "num_global_tokens": 4},
    "plbart": BART,
    "prophetnet": {
        "hidden_size": 32,
        "encoder_ffn_dim": 37,
        "decoder_ffn_dim": 37,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "seamless_m4t": BART
    | {"hidden_size": 32, "t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "speech_encoder_layers": 1},
    "seamless_m4t_v2": BART
    | {"hidden_size": 32, "t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "speech_encoder_layers": 1},
    "switch_transformers": T5 | EXPERTS | {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "t5": T5,
    "t5gemma": {"encoder": dict(GEMMA), "decoder": dict(GEMMA)},
    "t5gemma2": {},
    "umt5": T5,
}


def make_config(family: str) -> PretrainedConfig:
    """Return the configuration of a tiny model of `family`."""
    if family == "encoder-decoder":
        parts = BertConfig(**BERT, vocab_size=VOCAB_SIZE), BertConfig(**BERT, vocab_size=VOCAB_SIZE)
        config = EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
        for name, token_id in SPECIAL.items():
            setattr(config, name, token_id)
        config.decoder_start_token_id = SPECIAL[
            "bos_token_id"
        ]  # it masks the padding token, also at the start
        return config
    if family == "t5gemma2":
        text = GEMMA | SPECIAL
        vision = BERT | {"image_size": 8, "patch_size": 4}
        encoder = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4}
        return AutoConfig.for_model(family, encoder=encoder, decoder=dict(text), image_token_index=98)
    return AutoConfig.for_model(family, **{"vocab_size": VOCAB_SIZE} | SPECIAL | FAMILIES[family])


COLUMNS = ("forward", "generate", "beams", "save/load", "train")


def make_inputs() -> dict[str, torch.Tensor]:
    """Return two rows of ids, the second one padded, with labels for the summary and for answerability."""
    random = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 90, (2, 10), generator=random)
    labels = torch.randint(3, 90, (2, 7), generator=random)
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 8:], attention_mask[1, 8:], labels[1, 5:] = 0, 0, -100
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "answerable": torch.tensor([1, 0]),
    }


def try_family(family: str) -> dict[str, str]:
    """
    Return the outcome of each of `COLUMNS` for a tiny model of `family`: "yes", "refused" if `from_tasks`
    refuses the family, or the first line of an error.
    """
    torch.manual_seed(0)
    summarizer = AutoModelForSeq2SeqLM.from_config(make_config(family)).eval()
    try:
        model = compose(summarizer)
    except ValueError:
        return dict.fromkeys(COLUMNS, "refused")
    inputs = make_inputs()
    sources = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    checks = {
        "forward": lambda: check_forward(model, inputs),
        "generate": lambda: check_generate(model, sources),
        "beams": lambda: check_generate(model, sources, num_beams=3, num_return_sequences=2),
        "save/load": lambda: check_loading(model, inputs),
        "train": lambda: check_training(model, inputs),
    }
    outcomes = {}
    for name, check in checks.items():
        try:
            check()
            outcomes[name] = "yes"
        except Exception as error:  # a family can fail in any way, and the table is to say so
            outcomes[name] = f"{type(error).__name__}: {first_line(error)}"
    return outcomes


def compose(summarizer: PreTrainedModel) -> CrossTaskForConditionalGeneration:
    """Return a model of `summarizer` and a tiny BERT, with the gated fusion, which uses every hook."""
    question_encoder = BertModel(BertConfig(**BERT, vocab_size=VOCAB_SIZE))
    return CrossTaskForConditionalGeneration.from_tasks(
        summarizer, question_encoder, fusion="gated", fusion_num_heads=4
    )


def check_forward(model: CrossTaskForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> None:
    """Compare logits and loss with those of the summarizer alone; the gates are closed."""
    with torch.no_grad():
        output = model(**inputs)
        expected = model.summarizer(**{k: v for k, v in inputs.items() if k != "answerable"})
    has_label = inputs["labels"] != -100  # T5Gemma's logits of padding depend on its mask
    torch.testing.assert_close(output.logits[has_label], expected.logits[has_label])
    torch.testing.assert_close(output.summary_loss, expected.loss)
    assert output.answerability_logits.isfinite().all(), "the answerability is not finite"


def check_generate(
    model: CrossTaskForConditionalGeneration, sources: dict[str, torch.Tensor], **settings: int
) -> None:
    """Compare the generated tokens with the summarizer's, and the answerability with a second pass."""
    settings = {"max_new_tokens": 6, "do_sample": False, **settings}
    output = model.generate(**sources, **settings, return_dict_in_generate=True)
    # The fused model does not inherit settings such as BART's `forced_eos_token_id`.
    model.summarizer.generation_config = model.generation_config
    expected = model.summarizer.generate(**sources, **settings)
    assert torch.equal(output.sequences, expected), "other tokens than the summarizer's"
    scored = model.score_answerability(**sources, summary_ids=output.sequences)
    torch.testing.assert_close(output.answerability, scored)


def check_loading(model: CrossTaskForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> None:
    """Compare the logits before saving with those after loading."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        loaded = CrossTaskForConditionalGeneration.from_pretrained(folder)
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits), "other logits"


def check_training(model: CrossTaskForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> None:
    """Take two steps of the trainer, which change every trainable part."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder, max_steps=2, learning_rate=1e-2, report_to="none", disable_tqdm=True, use_cpu=True
        )
        rows = Dataset.from_dict({name: value.tolist() for name, value in inputs.items()})
        trainer = CrossTaskTrainer(model, arguments, train_dataset=rows, data_collator=torch_columns)
        trainer.train()
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, _ in model.named_children()}, f"only {sorted(changed)} changed"


def torch_columns(rows: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def format_row(family: str, outcomes: dict[str, str]) -> str:
    """Return the row of the table for one family."""
    return "| " + " | ".join((f"`{family}`", *(outcomes[name] for name in COLUMNS))) + " |"


def replace_table(page: str, families: Iterable[str] = FAMILIES) -> str:
    """Return `page` with new rows for `families` in the place of those between the two comments."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    rows = [f"| `model_type` | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    rows += [format_row(family, try_family(family)) for family in families]
    return before + "\n".join([START, f"With transformers {transformers.__version__}:\n", *rows, END]) + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("page", type=Path, help="the page whose table is replaced: docs/families.md")
    path = parser.parse_args().page
    write_text(path, replace_table(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
