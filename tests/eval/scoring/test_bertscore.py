import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from crosstask.eval.scoring import bertscore
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.utils.errors import DataError

SUMMARIES = [
    "Ada Reed opened the bridge. It cost 1,200 dollars.",
    "",
    "Der Fluss stieg über die Ufer. 🌊🌊",
    "川が増水した。",
    "The bridges were opening!\nThe rivers rose.",
    "😀",
]
REFERENCES = [
    "Ada Reed opened the bridge in Dorn Harbor on May 3. It cost 1,200 dollars. The river rose.",
    "The river rose.",
    "Der Fluss stieg. 🌊",
    "川が増水した。",
    "The bridge opened. A river was rising.",
    " ",
]


@pytest.fixture(scope="module")
def model(minilm):
    """A pretrained text encoder."""
    pytest.importorskip("bert_score")
    return str(minilm)


def test_scores_agree_with_bert_score(model):
    import bert_score

    rows = bertscore_rows(SUMMARIES[2:5], REFERENCES[2:5], model=model)
    # One pair per batch: with padding, bert_score replaces negative cosines by 0.
    direct = bert_score.score(SUMMARIES[2:5], REFERENCES[2:5], model_type=model, num_layers=6, batch_size=1)
    for values, expected in zip(rows.values(), direct, strict=True):
        assert values == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_lower_layer_agrees_with_bert_score(model):
    import bert_score

    rows = bertscore_rows(["It rained."], ["Rain fell."], model=model, num_layers=2)
    direct = bert_score.score(["It rained."], ["Rain fell."], model_type=model, num_layers=2)
    assert [values[0] for values in rows.values()] == pytest.approx([float(v) for v in direct], abs=1e-4)
    assert rows != bertscore_rows(["It rained."], ["Rain fell."], model=model)


def test_scores_of_known_texts(model):
    rows = bertscore_rows(
        ["It rained.", "", " ", "It rained.", "x"], ["It rained."] * 3 + ["", " "], model=model
    )
    assert rows == {name: [1, 0, 0, None, None] for name in ("precision", "recall", "f1")}
    near, far = bertscore_rows(["Rain fell."] * 2, ["It rained.", "A cat sat."], model=model)["f1"]
    assert far < near < 1


def test_the_best_of_several_references_counts(model):
    texts = ["A cat sat.", "It rained.", ""]
    rows = bertscore_rows(["Rain fell."], [texts], model=model)
    assert rows == bertscore_rows(["Rain fell."], ["It rained."], model=model)
    assert bertscore_rows(["Rain fell."], [[]], model=model)["f1"] == [None]


def test_each_distinct_text_is_encoded_once(model, monkeypatch):
    import bert_score.utils

    seen = []
    embed = bert_score.utils.get_bert_embedding
    monkeypatch.setattr(
        "bert_score.utils.get_bert_embedding",
        lambda texts, *a, **k: seen.extend(texts) or embed(texts, *a, **k),
    )
    rows = bertscore_rows(["Rain fell."] * 1000, ["It rained."] * 1000, model=model)
    assert sorted(seen) == ["It rained.", "Rain fell."] and len(set(rows["f1"])) == 1


def test_batches_and_order_do_not_change_the_scores(model):
    summaries, references = SUMMARIES + ["It rained. " * 40], REFERENCES + ["The river rose."]
    rows = bertscore_rows(summaries, references, model=model)
    for size in (1, 2):
        assert bertscore_rows(summaries, references, model=model, batch_size=size) == rows
    backwards = bertscore_rows(summaries[::-1], references[::-1], model=model, batch_size=3)
    assert {name: values[::-1] for name, values in backwards.items()} == rows


def test_long_texts_are_truncated(model):
    assert bertscore_rows(["rain " * 2000], ["rain " * 3000], model=model)["f1"] == [1]


@pytest.mark.parametrize("layers", [7, -1])
def test_a_missing_layer_is_refused(model, layers):
    with pytest.raises(DataError, match=f"num_layers is {layers}, expected 1 to 6"):
        bertscore_rows(["a"], ["a"], model=model, num_layers=layers)


def test_a_missing_baseline_or_model_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="no baseline of .* for language 'en'"):
        bertscore_rows(["a"], ["a"], model=model, rescale_with_baseline=True)
    with pytest.raises(DataError, match="cannot be loaded"):
        bertscore_rows(["a"], ["a"], model=str(tmp_path))


def test_scores_are_rescaled_with_the_table_of_bert_score(model, monkeypatch):
    import bert_score

    table = Path(bert_score.__file__).parent / "rescale_baseline/en/roberta-base.tsv"
    line = [float(value) for value in table.read_text().splitlines()[1 + 6].split(",")]
    assert line[0] == 6  # the first line belongs to the embeddings
    assert bertscore._read_baseline("roberta-base", "en", 6) == line[1:]
    plain = bertscore_rows(["Rain fell."], ["It rained."], model=model)
    monkeypatch.setattr(bertscore, "_read_baseline", lambda *args: line[1:])
    rescaled = bertscore_rows(["Rain fell."], ["It rained."], model=model, rescale_with_baseline=True)
    for base, x, y in zip(line[1:], plain.values(), rescaled.values(), strict=True):
        assert y[0] == pytest.approx((x[0] - base) / (1 - base), abs=1e-3)


@pytest.fixture
def save(tmp_path, make_part, tokenizer):
    """Return `save(family, **settings)`, which saves a tiny random model with its tokenizer."""

    def save(family, **settings):
        folder = tmp_path / "t5"  # bert_score treats a path with "t5" in it as a T5
        torch.manual_seed(0)
        AutoModel.from_config(make_part(family, len(tokenizer), **settings)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.mark.parametrize("family", ["bert", "roberta", "bart", "t5", "led"])
def test_encoders_of_other_architectures(save, family):
    rows = bertscore_rows(
        ["It rained."] * 2 + ["rain " * 99], ["It rained.", "A cat.", "x"], model=save(family)
    )
    assert rows["f1"][0] == 1 and max(rows["f1"][1:]) < 1


def test_an_encoder_decoder_agrees_with_bert_score(save, tmp_path, tokenizer):
    import bert_score

    plain = Path(save("bart")).rename(tmp_path / "bart")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 64  # without a limit, bert_score overflows
    tokenizer.save_pretrained(plain)
    for layers in (1, 2):
        rows = bertscore_rows(["It rained."], ["A cat sat."], model=str(plain), num_layers=layers)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)  # a relative path, because the absolute one may contain "t5"
            direct = bert_score.score(["It rained."], ["A cat sat."], model_type="bart", num_layers=layers)
        assert [values[0] for values in rows.values()] == pytest.approx([float(v) for v in direct], abs=1e-4)


def test_an_incomplete_encoder_is_refused(save):
    with pytest.raises(DataError, match="got a t5gemma .*, expected a text encoder"):
        bertscore_rows(["a"], ["a"], model=save("t5gemma"))
    folder = Path(save("bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match="has no weights encoder.layer.2.*, expected a complete text encoder"):
        bertscore_rows(["a"], ["a"], model=str(folder))
