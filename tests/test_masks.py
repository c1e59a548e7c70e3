"""Which positions of inputs and summaries count."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.generation_crosstask import (
    UNKNOWN_TOKEN,
    get_predicted_ids,
    get_summary_mask,
    infer_attention_mask,
    to_token_id_tensor,
)
from crosstask.modeling_crosstask import shift_tokens_right

EOS, PAD = 1, 0


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([5, 6, EOS, PAD], [1, 1, 1, 0]),
        ([5, 6, EOS, IGNORE_INDEX], [1, 1, 1, 0]),
        ([5, EOS, 7, EOS], [1, 1, 0, 0]),  # nothing after the first end
        ([5, 6, 7, 8], [1, 1, 1, 1]),  # never ends
        ([5, PAD, 7, EOS], [1, 0, 1, 1]),  # padding inside
        ([5, 6, 7, UNKNOWN_TOKEN], [1, 1, 1, 1]),
        ([EOS, PAD, PAD, PAD], [1, 0, 0, 0]),
        ([IGNORE_INDEX] * 4, [1, 0, 0, 0]),  # empty: the first position stays
        ([PAD] * 4, [1, 0, 0, 0]),
    ],
)
def test_positions_of_a_summary(make_config, targets, expected):
    assert get_summary_mask(torch.tensor([targets]), make_config()).int().tolist() == [expected]


def test_several_or_no_ends(make_config):
    targets = torch.tensor([[5, 7, 9, 1]])
    config = make_config()
    config.eos_token_id = [1, 7]
    assert get_summary_mask(targets, config).int().tolist() == [[1, 1, 0, 0]]
    config.eos_token_id = None
    assert get_summary_mask(targets, config).int().tolist() == [[1, 1, 1, 1]]
    config.eos_token_id, config.pad_token_id = 7, 7  # padded with the end: the first one counts
    assert get_summary_mask(torch.tensor([[5, 7, 7, 7]]), config).int().tolist() == [[1, 1, 0, 0]]


def test_targets_of_decoder_inputs():
    ids = torch.tensor([[0, 5, 6, 1], [0, 8, 1, 0]])
    assert get_predicted_ids(ids).tolist() == [[5, 6, 1, UNKNOWN_TOKEN], [8, 1, 0, UNKNOWN_TOKEN]]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert get_predicted_ids(ids, mask).tolist() == [
        [5, 6, 1, UNKNOWN_TOKEN],
        [8, 1, IGNORE_INDEX, IGNORE_INDEX],
    ]


def test_token_ids():
    assert [to_token_id_tensor(value, "cpu").tolist() for value in (None, 3, [4, 5])] == [[], [3], [4, 5]]


def test_attention_mask_of_inputs_without_one(make_config):
    config = make_config()
    ids = torch.tensor([[5, 6, PAD, EOS]])
    assert infer_attention_mask(ids, config).tolist() == [[1, 1, 0, 1]]
    config.pad_token_id = EOS  # then an end may be padding or not
    assert infer_attention_mask(ids, config).tolist() == [[1, 1, 1, 1]]


def test_labels_are_shifted_as_transformers_shifts_them(make_config, make_part):
    labels = torch.tensor([[5, 6, EOS, IGNORE_INDEX], [7, EOS, PAD, PAD]])
    expected = AutoModelForSeq2SeqLM.from_config(make_part("t5")).prepare_decoder_input_ids_from_labels(
        labels
    )
    assert torch.equal(shift_tokens_right(labels, make_config()), expected)
    with pytest.raises(ValueError, match="`labels` need `decoder_start_token_id` and `pad_token_id`"):
        shift_tokens_right(labels, make_config(pad_token_id=None))
