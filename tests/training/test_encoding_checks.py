"""Test the checks of labels and tokenizers before the first stage trains."""

import pytest
from datasets import Dataset
from transformers import BertTokenizer, Seq2SeqTrainingArguments

from crosstask import CrossTaskProcessor
from crosstask.training.encoding import check_labels, check_tokenizer, describe_single_label
from crosstask.utils.errors import DataError


def make_rows(labels):
    return Dataset.from_dict({"answerable": labels})


def test_summary_loss_on_answerable_rows_needs_one(tmp_path):
    arguments = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True)
    rows = {"train": make_rows([0, None, 0]), "validation": make_rows([1])}
    with pytest.raises(DataError, match="x.csv: expected training rows with answerable 1, as summary"):
        check_labels(rows, "answerable", arguments, "x.csv")
    check_labels(rows, "all", arguments, "x.csv")
    check_labels({"train": make_rows([0, None, 1])}, "answerable", arguments, "x.csv")


def test_auroc_that_chooses_the_best_checkpoint_needs_labels_of_both_kinds(tmp_path):
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), metric_for_best_model="answerability_auroc", use_cpu=True
    )
    rows = {"train": make_rows([0, 1]), "validation": make_rows([1, None])}
    with pytest.raises(DataError, match="expected validation rows with answerable 0 and with 1"):
        check_labels(rows, "all", arguments, "x.csv")
    check_labels(rows | {"validation": make_rows([1, 0])}, "all", arguments, "x.csv")


@pytest.mark.parametrize(("known", "outcome"), [(19, ""), (16, "no token for 20%"), (2, "error")])
def test_unknown_tokens_are_said_or_refused(tmp_path, capsys, known, outcome):
    words = "a b c d e f g h i j k l m n o p q r s t".split()
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words[:known]]))
    processor = CrossTaskProcessor(BertTokenizer.from_pretrained(tmp_path))
    rows = Dataset.from_dict({"passage": [" ".join(words)] * 3, "summary": [" ".join(words)] * 3})
    if outcome == "error":
        with pytest.raises(DataError, match="no token for 90% of the training texts, expected 80% at most"):
            check_tokenizer(rows, processor, "fuse")
    else:
        check_tokenizer(rows, processor, "fuse")
        text = capsys.readouterr().out
        assert outcome in text and bool(text) == bool(outcome)


@pytest.mark.parametrize(
    ("labels", "has_own_summaries", "label"),
    [
        ([1, 1, None], False, 1),
        ([0, 0], False, 0),
        ([0, 1], False, None),
        ([None, None], False, None),
        ([1, 1], True, None),
    ],
)
def test_labels_that_are_all_the_same_are_said(labels, has_own_summaries, label):
    line = describe_single_label(make_rows(labels), has_own_summaries)
    if label is None:
        assert line is None
    else:
        assert f"have the label {label}: the answerability of every summary will be close to {label}" in line
        assert f"expected rows with the label {1 - label}, too" in line
