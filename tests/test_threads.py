"""Work shared out to threads."""

import pytest
import torch

from lowlight.core.threads import at_once


def test_what_one_of_several_threads_raises_is_raised_and_their_number_stands_again() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            at_once(lambda number: 1 // number, [1, 0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
