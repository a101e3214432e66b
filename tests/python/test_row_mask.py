"""_draw_row_mask: the rows that a round of boosting draws, by the definition of Philox."""

import numpy as np
import pytest
import torch
from checks import NoSynchronisation, opcheck
from reference_attention import philox

pytestmark = pytest.mark.kernels
draw = torch.ops.tilewright._draw_row_mask


@pytest.mark.parametrize("rows", [1, 3, 8, 1025])
@pytest.mark.parametrize(("share", "round_", "seed"), [(0.3, 0, 0), (0.8, 2**31, -5), (0.5, 7, 9)])
def test_a_row_draws_a_word_of_its_four(device, rows, share, round_, seed):
    codes = torch.zeros(rows, 2, dtype=torch.uint8, device=device)
    found = draw(codes, share, round_, seed)
    words = philox((np.arange((rows + 3) // 4), 0, 0, round_), seed).T.reshape(-1)[:rows]
    assert found.dtype == torch.bool and found.device == codes.device
    assert found.cpu().tolist() == (words < share * 2.0**32).tolist()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(device, share):
    codes = torch.zeros(101, 1, dtype=torch.int16, device=device)
    with NoSynchronisation():
        found = draw(codes, share, 1, 2)
    assert (found == bool(share)).all()


@pytest.mark.no_launch
def test_no_rows(device):
    assert draw(torch.zeros(0, 2, device=device), 0.5, 0, 0).shape == (0,)


@pytest.mark.no_launch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), 0.5, 0, 0), r"codes must have shape \(N, F\), got \(3,\)"),
        ((torch.zeros(3, 1), 1.5, 0, 0), r"share must lie in \[0, 1\], got 1.5"),
        ((torch.zeros(3, 1), float("nan"), 0, 0), r"share must lie in \[0, 1\], got nan"),
        ((torch.zeros(3, 1), 0.5, -1, 0), r"round must lie in \[0, 2\^32\), got -1"),
    ],
)
def test_bad_arguments_are_named(device, arguments, message):
    codes, *others = arguments
    with pytest.raises(RuntimeError, match=message):
        draw(codes.to(device), *others)


def test_opcheck(device):
    opcheck(draw.default, (torch.zeros(30, 2, device=device), 0.5, 3, 4))
