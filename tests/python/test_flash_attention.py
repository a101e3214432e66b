"""flash_attention: results and gradients over a cover of all pairs of options."""

import attention_cases as cases
import pytest
import torch
from attention_checks import assert_attention
from conftest import MACHINE

flash_attention = torch.ops.tilewright.flash_attention
kernels = pytest.mark.kernels


def with_marks(case):
    launches = 0 not in cases.lengths_of(case)
    return pytest.param(
        case, id=cases.name_of(case), marks=[] if launches else [pytest.mark.no_launch]
    )


def check(case, device):
    tensors, options = cases.make(case)
    assert_attention(flash_attention, tensors, options, case["gradient"], device)


def test_every_pair_of_options_meets():
    met = set().union(*map(cases.pairs, cases.cover()))
    assert met == cases.all_pairs()
    assert len(cases.cover()) < 100


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("case", [with_marks(case) for case in cases.singles()])
def test_one_option(device, case):
    check(case, device)


@kernels
@pytest.mark.parametrize("case", [with_marks(case) for case in cases.cover()])
def test_pairs_of_options(device, case):
    check(case, device)


@pytest.mark.skipif(MACHINE != "cpu", reason="too long for the emulated device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", ["none", "causal", "both"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_many_tiles(device, head_dim, window, dtype):
    case = {name: values[0] for name, values in cases.OPTIONS.items()}
    case |= {"lengths": (700, 900), "dtype": dtype, "head_dim": head_dim, "window": window}
    case |= {"heads": (1, 4, 2), "bias": "own", "dropout": 0.3, "gradient": "both"}
    check(case, device)
    # Twice as many queries, so that some see no key where the window is limited.
    check({**case, "lengths": (1100, 550), "bias": "none", "dropout": 0.0}, device)
