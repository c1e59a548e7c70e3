"""Train a tokenizer for models that are trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "</s>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich et al. 2016) with the special tokens of T5.

    The id of `<pad>` is 0, the id of `</s>` is 1, and `</s>` ends each segment of a pair. Bytes are the
    smallest units, so every text can be encoded. If `vocab_size` is well above the number of distinct words,
    each frequent word is one token, and tiny models copy such words best.

    Args:
        texts (`Iterable[str]`):
            The texts to train on, in any order.
        vocab_size (`int`):
            The largest number of tokens, including the special ones. The 256 bytes are always there.

    Returns:
        `PreTrainedTokenizerFast`: The tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B {EOS}",
        special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        add_prefix_space=True,  # transformers 4 turns it off when it loads a tokenizer without this setting
    )
