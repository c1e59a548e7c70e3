"""BERTScore by the `bert_score` package, for any checkpoint and reproducible to the last digit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from crosstask.configuration_crosstask import get_max_positions
from crosstask.data.answers import to_paired_lists
from crosstask.eval.scoring.text_scores import list_references
from crosstask.utils.errors import DataError, first_line

# The vectors of all tokens of this many pairs are in memory at once.
PAIRS_IN_MEMORY = 2048


def bertscore_rows(
    predictions: Iterable[str],
    references: Iterable[str | Sequence[str]],
    *,
    model: str,
    num_layers: int | None = None,
    rescale_with_baseline: bool = False,
    lang: str = "en",
    batch_size: int = 64,
    device: str | None = None,
) -> dict[str, list[float | None]]:
    """Compute BERTScore of each prediction.

    Each token of one text is matched with the most similar token of the other one, by the cosine of their
    contextual vectors. Source: Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT",
    https://arxiv.org/abs/1904.09675, equations 1 to 3, without idf weights.

    Args:
        predictions (`Iterable[str]`): One text per row; a blank one scores 0.
        references (`Iterable[str | Sequence[str]]`): One or several texts per row; of several, the one with
            the best F1 counts.
        model (`str`): Hub id or folder of any text encoder, or of an encoder-decoder, whose encoder is used.
        num_layers (`int`, *optional*): The layer whose output is compared; by default the one that
            `bert_score` recommends for this name, or the last one for other names and for folders.
        rescale_with_baseline (`bool`, *optional*, defaults to `False`): Whether to return (x - baseline) / (1
            - baseline) for x, which spreads the scores. The baseline is the score of random pairs of texts in
            `lang`; `bert_score` contains it for some model ids and languages.
        lang (`str`, *optional*, defaults to `"en"`): Language of the baseline.
        batch_size (`int`, *optional*, defaults to 64): Texts per batch.
        device (`str`, *optional*): A torch device; by default the first GPU, or the CPU.

    Returns:
        `dict[str, list]`: `precision`, `recall` and `f1` of each row, at most 1, or None if all references
        are blank. Values are rounded to 4 decimals, because the noise of float32, which depends on the batch,
        would look like a difference. Each distinct pair is scored once. Each call loads the model.

    Raises:
        ValueError: If the numbers of predictions and references differ.
        DataError: If the model cannot be loaded or has no such layer, if there is no baseline for it, or if
            `bert_score` is not installed.
    """
    predictions, references = to_paired_lists(predictions=predictions, references=references)
    references = [list_references(texts) for texts in references]
    num_layers = _get_layer(model, num_layers)
    baseline = _read_baseline(model, lang, num_layers) if rescale_with_baseline else None
    pairs = {
        (prediction, reference)
        for prediction, texts in zip(predictions, references, strict=True)
        for reference in texts
        if prediction.strip()
    }
    scores = _score_pairs(sorted(pairs), model, num_layers, batch_size, device) if pairs else {}

    def select_best(prediction, texts):
        if not texts:
            return (None, None, None)
        values = max(
            (scores.get((prediction, text), (0.0, 0.0, 0.0)) for text in texts), key=lambda values: values[2]
        )
        if baseline is not None:
            values = [(x - b) / (1 - b) for x, b in zip(values, baseline, strict=True)]
        return [round(value, 4) for value in values]

    rows = [select_best(*row) for row in zip(predictions, references, strict=True)]
    return {name: [row[index] for row in rows] for index, name in enumerate(("precision", "recall", "f1"))}


def _get_layer(model: str, num_layers: int | None) -> int:
    """Return the layer to use, after a check against the model's configuration."""
    try:
        from bert_score.utils import model2layers
    except ImportError:
        raise DataError("BERTScore needs the package bert-score: pip install 'crosstask[eval]'") from None
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _load_error(model, error) from error
    last = getattr(config.get_text_config(encoder=True), "num_hidden_layers", None)
    if last is None:
        raise DataError(f"BERTScore: got a {config.model_type} ({model}), expected a text encoder")
    num_layers = num_layers or model2layers.get(str(model), last)
    if not 1 <= num_layers <= last:
        raise DataError(f"BERTScore: num_layers is {num_layers}, expected 1 to {last}, which {model} has")
    return num_layers


def _read_baseline(model: str, lang: str, num_layers: int) -> list[float]:
    """Return the scores (P, R, F1) of random pairs of texts from the tables of `bert_score`."""
    import bert_score

    path = Path(bert_score.__file__).parent / "rescale_baseline" / lang / f"{model}.tsv"
    if Path(model).is_dir() or not path.is_file():
        raise DataError(f"BERTScore: bert_score has no baseline of {model} for language {lang!r}")
    lines = path.read_text(encoding="utf-8").split()
    return [float(value) for value in lines[1 + num_layers].split(",")[1:]]


def _load_encoder(model: str, num_layers: int, device: str):
    """Load the text encoder with its first `num_layers` layers, and its tokenizer."""
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        # Do not build the layers above. `bert_score` removes them by lists of architectures, and treats every
        # path that contains "t5" as a T5.
        for name in ("num_hidden_layers", "encoder_layers"):
            if hasattr(config, name):
                setattr(config, name, num_layers)
        encoder, info = AutoModel.from_pretrained(
            model, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise _load_error(model, error) from error
    # The pooler is not used, and checkpoints of language models lack it.
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise DataError(f"BERTScore: {model} has no weights {missing[0]}, expected a complete text encoder")
    limit = get_max_positions(encoder, "encoder" if config.is_encoder_decoder else None)
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    # A tokenizer without a limit has 1e30, which overflows in the Rust code of fast tokenizers.
    tokenizer.model_max_length = int(min(tokenizer.model_max_length, limit, 2**20))
    return encoder.to(device).eval(), tokenizer


def _load_error(model: str, error: Exception) -> DataError:
    return DataError(f"BERTScore: {model} cannot be loaded: {first_line(error)}")


@torch.inference_mode()
def _score_pairs(
    pairs: list[tuple[str, str]], model: str, num_layers: int, batch_size: int, device: str | None
) -> dict[tuple[str, str], list[float]]:
    """Return (P, R, F1) of each distinct pair of a prediction and a reference.

    `bert_score.score` batches the texts in the order of a set, which differs between runs and changes the
    last digits; here the batches are sorted.
    """
    from bert_score.utils import get_bert_embedding, greedy_cos_idf

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder, tokenizer = _load_encoder(model, num_layers, device)
    weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0, tokenizer.cls_token_id: 0})
    scores = {}
    for start in range(0, len(pairs), PAIRS_IN_MEMORY):
        chunk = pairs[start : start + PAIRS_IN_MEMORY]
        texts = sorted({text for pair in chunk for text in pair}, key=lambda text: (len(text), text))
        vectors = {}
        for first in range(0, len(texts), batch_size):
            batch = texts[first : first + batch_size]
            embedded = get_bert_embedding(batch, encoder, tokenizer, weights, device=device)
            for text, vector, mask, weight in zip(batch, *embedded, strict=True):
                size = int(mask.sum())
                vectors[text] = [part[None, :size].cpu() for part in (vector.float(), mask, weight)]
        for prediction, reference in chunk:
            # Cloned, because greedy_cos_idf normalizes them in place.
            inputs = [part.clone() for text in (reference, prediction) for part in vectors[text]]
            scores[prediction, reference] = [float(value) for value in greedy_cos_idf(*inputs)]
    return scores
