import pytest
from transformers import BartConfig, LEDConfig, T5Config

from crosstask.training.evaluation import _limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (BartConfig(max_position_embeddings=32), 32),
        (LEDConfig(max_encoder_position_embeddings=48, max_decoder_position_embeddings=16), 48),
        (T5Config(), 64),
    ],
)
def test_the_summarizer_reads_no_more_than_it_has_positions_for(config, limit):
    assert _limit(config, 64) == limit
