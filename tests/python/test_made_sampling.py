"""MADE.sample computes each hidden unit once, and draws what the whole network draws when it is run
for every pixel."""

import pytest
import torch
from reference_density import made_sample
from torch.utils.flop_counter import FlopCounterMode

from tilewright.models import MADE

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {
    "one layer": lambda d: MADE(d, (31,)),
    "no straight weights": lambda d: MADE(d, (17,), direct=False),
    "three layers": lambda d: MADE(d, (9, 14, 8), seed=1),
    "few units": lambda d: MADE(d, (1, 2), direct=False),
    "an order": lambda d: MADE(d, (13, 9), random_order=True, seed=2),
    "connectivities": lambda d: MADE(d, (19,), num_masks=3),
    "orders": lambda d: MADE(d, (9, 16), num_masks=4, random_order=True, seed=5),
}


def model_of(name, pixels, dtype=torch.float64):
    model = MODELS[name](pixels).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pixels,known", [(1, 0), (1, 1), (2, 0), (12, 0), (12, 5), (12, 12)])
def test_draws_are_those_of_the_whole_network(name, dtype, pixels, known, device):
    model = model_of(name, pixels, dtype).to(device)
    given = (torch.rand(70, known, device=device) < 0.5).to(dtype)
    scripted = torch.jit.script(model)
    for sample in (model.sample, scripted.sample):
        torch.manual_seed(3)
        drawn = sample(70, given)
        torch.manual_seed(3)
        with torch.no_grad():
            expected = made_sample(model, given)
        assert drawn.dtype == dtype and torch.equal(drawn, expected)
        assert not drawn.requires_grad and drawn.is_contiguous()


@pytest.mark.parametrize("name", ["three layers", "orders"])
def test_work_is_that_of_one_forward_pass(name):
    model, x = model_of(name, 40), torch.ones(60, 40, dtype=torch.float64)

    def operations(function, *arguments):
        with FlopCounterMode(display=False) as counter:
            function(*arguments)
        return counter.get_total_flops()

    forward = operations(model.log_prob_of, x, 0)
    assert 0 < operations(model.sample, 60) < forward
