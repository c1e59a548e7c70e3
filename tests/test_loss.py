"""The joint loss: what it is made of (in test_modeling.py, through the model), and what it refuses."""

import pytest
import torch

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.modeling_crosstask import check_answerable


@pytest.mark.parametrize("labels", [[0, 1, IGNORE_INDEX], [1, 1, 1], [True, False, True]])
def test_answerable_as_it_should_be(labels):
    check_answerable(torch.tensor(labels), 3)


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 0, 0], [0.0, 1.0, 1.0], [1, 0], [[1], [0], [1]], 1])
def test_answerable_as_it_should_not_be(labels):
    with pytest.raises(ValueError, match="`answerable` has to be 1, 0 or -100 for each of the 3 rows"):
        check_answerable(torch.tensor(labels), 3)
