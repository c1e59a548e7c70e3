"""BERTScore by the `bert_score` package, for any checkpoint and with numbers that repeat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from crosstask.data.answers import to_paired_lists
from crosstask.eval.scoring.rows import written
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import get_max_positions

# Pairs at a time: so many texts' vectors, of every token, are held in memory.
_CHUNK = 2048


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
    """BERTScore of each prediction: how well each token of one text finds a like token, by the cosine
    of their vectors in context, in the other. Source: Zhang et al. 2020, "BERTScore: Evaluating Text
    Generation with BERT", https://arxiv.org/abs/1904.09675, equations 1 to 3, without idf weights.

    Args:
        predictions: One text a row; a blank one scores 0.
        references: A text a row, or several; of several the one with the best F1 counts.
        model: Hub id or folder of any text encoder, or of a model whose encoder is to be taken.
        num_layers: The layer whose output are the vectors. None is the layer that `bert_score`
            recommends for this name, and the last one for any other name and for folders.
        rescale_with_baseline: Whether (x - baseline) / (1 - baseline) is given for x, which spreads
            the scores; the baseline is of random pairs of texts in `lang`, and part of `bert_score`
            for some models (ids) and languages.
        lang: Language of the baseline, as "en"; nothing else depends on it.
        batch_size: Texts a batch.
        device: Where to compute, as torch names it; None is the first GPU, or the CPU.

    Returns:
        `precision`, `recall` and `f1`, each a value for each row, at most 1, rounded to 4 decimals (the
        noise of float32 grows with the batch; it would pass for a difference); None where all
        references are blank. Each distinct pair is scored once. The model is loaded anew by every call.

    Raises:
        ValueError: If there are not as many predictions as references.
        DataError: If the model cannot be loaded, has no such layer or has no baseline, or `bert_score`
            is not installed.
    """
    predictions, references = to_paired_lists(predictions=predictions, references=references)
    references = [written(texts) for texts in references]
    baseline = None
    num_layers = _layer(model, num_layers)
    if rescale_with_baseline:
        baseline = _baseline(model, lang, num_layers)
    pairs = {
        (prediction, reference)
        for prediction, texts in zip(predictions, references, strict=True)
        for reference in texts
        if prediction.strip()
    }
    scores = _score_pairs(sorted(pairs), model, num_layers, batch_size, device) if pairs else {}

    def best(prediction, texts):
        found = [scores.get((prediction, text), (0.0, 0.0, 0.0)) for text in texts]
        if not found:
            return (None, None, None)
        values = max(found, key=lambda values: values[2])
        if baseline is not None:
            values = [(x - b) / (1 - b) for x, b in zip(values, baseline, strict=True)]
        return [round(value, 4) for value in values]

    rows = [best(*row) for row in zip(predictions, references, strict=True)]
    return {name: [row[index] for row in rows] for index, name in enumerate(("precision", "recall", "f1"))}


def _layer(model, num_layers):
    """The layer to take, checked against the model's configuration."""
    try:
        from bert_score.utils import model2layers
    except ImportError:
        raise DataError("BERTScore needs the package bert-score: pip install 'crosstask[eval]'") from None
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from error
    last = getattr(config.get_text_config(encoder=True), "num_hidden_layers", None)
    if last is None:
        raise DataError(f"BERTScore: got a {config.model_type} ({model}), expected a text encoder")
    num_layers = num_layers or model2layers.get(str(model), last)
    if not 1 <= num_layers <= last:
        raise DataError(f"BERTScore: num_layers is {num_layers}, expected 1 to {last}, which {model} has")
    return num_layers


def _baseline(model, lang, num_layers):
    """The scores (P, R, F1) of random pairs of texts, from the tables of `bert_score`."""
    import bert_score

    path = Path(bert_score.__file__).parent / "rescale_baseline" / lang / f"{model}.tsv"
    if Path(model).is_dir() or not path.is_file():
        raise DataError(f"BERTScore: bert_score has no baseline of {model} for language {lang!r}")
    lines = path.read_text(encoding="utf-8").split()
    return [float(value) for value in lines[1 + num_layers].split(",")[1:]]


def _load(model, num_layers, device):
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        # Layers above the one that is asked for are not built. `bert_score` cuts them off, by lists of
        # architectures, and takes any path with "t5" in it for a T5.
        for name in ("num_hidden_layers", "encoder_layers"):
            if hasattr(config, name):
                setattr(config, name, num_layers)
        encoder, info = AutoModel.from_pretrained(
            model, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise _cannot_load(model, error) from error
    # The pooler is not used, and checkpoints of language models lack it.
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise DataError(f"BERTScore: {model} has no weights {missing[0]}, expected a whole text encoder")
    limit = get_max_positions(encoder, "encoder" if config.is_encoder_decoder else None)
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    # Some tokenizers have no limit, which is more than their own code can take.
    tokenizer.model_max_length = int(min(tokenizer.model_max_length, limit, 2**20))
    return encoder.to(device).eval(), tokenizer


def _cannot_load(model, error):
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"BERTScore: {model} cannot be loaded: {said}")


@torch.inference_mode()
def _score_pairs(pairs, model, num_layers, batch_size, device):
    """(P, R, F1) of each distinct pair. `bert_score.score` would batch the texts in the order of a set,
    which differs from one run to the next, and with it the last digits."""
    from bert_score.utils import get_bert_embedding, greedy_cos_idf

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder, tokenizer = _load(model, num_layers, device)
    weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0, tokenizer.cls_token_id: 0})
    scores = {}
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        texts = sorted({text for pair in chunk for text in pair}, key=lambda text: (len(text), text))
        vectors = {}
        for first in range(0, len(texts), batch_size):
            batch = texts[first : first + batch_size]
            embedded = get_bert_embedding(batch, encoder, tokenizer, weights, device=device)
            for text, vector, mask, weight in zip(batch, *embedded, strict=True):
                size = int(mask.sum())
                vectors[text] = [part[None, :size].cpu() for part in (vector.float(), mask, weight)]
        for prediction, reference in chunk:
            # Copies, for they are normalized in place.
            both = [part.clone() for text in (reference, prediction) for part in vectors[text]]
            scores[prediction, reference] = [float(value) for value in greedy_cos_idf(*both)]
    return scores
