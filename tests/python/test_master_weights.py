"""stochastic_round_ and master weights."""

import copy
import math

import pytest
import torch
from checks import NoSynchronisation, assert_same_bits, opcheck
from conftest import MACHINE
from torch import nn

from tilewright.amp import LossScaler, MasterWeights

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def state_of(device, seed=5, offset=0):
    return torch.tensor([seed, offset], device=device)


@pytest.mark.smoke
@kernels
def test_rounding_by_chance_keeps_the_mean(device):
    torch.manual_seed(2)
    values = torch.randn(40, device=device)
    inputs = values.repeat(2000 if MACHINE == "cpu" else 500, 1)
    found = torch.empty_like(inputs, dtype=torch.bfloat16)
    ops.stochastic_round_([found], [inputs], state_of(device))
    down = (inputs.view(torch.int32) & ~0xFFFF).view(torch.float32)
    up = ((inputs.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    wide = found.float()
    assert ((wide == down) | (wide == up)).all()
    step = (up - down)[0]
    # Ups are a share of the way; their counts are binomial: five standard deviations.
    share = ((inputs - down) / (up - down))[0]
    limit = 5 * (share * (1 - share) / len(inputs)).sqrt() + 1e-3
    assert (((wide - down) / step).mean(0) - share).abs().le(limit).all()


@kernels
def test_what_stays_as_it_is(device):
    exact = torch.tensor(
        [0.0, -0.0, 1.5, -(2.0**-130), math.inf, -math.inf, 2.0**-133], device=device
    )
    found = torch.empty_like(exact, dtype=torch.bfloat16)
    for offset in range(3):
        ops.stochastic_round_([found], [exact], state_of(device, 1, offset))
        assert torch.equal(found.float(), exact)
        assert torch.signbit(found[1])
    largest = torch.full((1000,), torch.finfo(torch.float32).max, device=device)
    found = torch.empty_like(largest, dtype=torch.bfloat16)
    ops.stochastic_round_([found], [largest], state_of(device))
    assert found.isfinite().all()  # though the nearest is infinite
    nan = torch.tensor([0x7F800001], dtype=torch.int32, device=device).view(torch.float32)
    found = torch.empty(1, dtype=torch.bfloat16, device=device)
    ops.stochastic_round_([found], [nan], state_of(device))
    assert found.isnan().all()


@kernels
def test_chance_is_by_place_alone(device, another_order):
    """Of several tensors, any layout and number of threads; seeds, offsets and tensors differ."""
    inputs = [torch.randn(7, 30, device=device), torch.randn(3000, device=device), torch.randn(0)]
    inputs[2] = inputs[2].to(device)

    def run(seed=5, offset=0, given=inputs):
        found = [torch.empty_like(x, dtype=torch.bfloat16) for x in given]
        ops.stochastic_round_(found, given, state_of(device, seed, offset))
        return found

    assert_same_bits(run, (2, 3), another_order)
    expected = run()
    apart = torch.empty(30, 7, dtype=torch.bfloat16, device=device).t()
    ops.stochastic_round_([apart], [inputs[0].t().contiguous().t()], state_of(device))
    assert torch.equal(apart, expected[0])
    for other in (run(seed=6), run(offset=1)):
        assert not torch.equal(other[1], expected[1])
    assert not torch.equal(run(given=inputs[1:])[0], expected[1])


@kernels
def test_rounding_refuses(device):
    x, y = torch.ones(4, device=device), torch.empty(4, dtype=torch.bfloat16, device=device)
    state = state_of(device)
    for arguments, message in (
        (([y], [x, x], state), "as many outputs as inputs, got 1 and 2"),
        (([x], [x], state), r"outputs\[0\] must be of BFloat16, got Float"),
        (([y], [y], state), r"inputs\[0\] must be of Float, got BFloat16"),
        (([y], [x[:3]], state), r"outputs\[0\] must have the shape of inputs\[0\], \(3,\), got"),
        (([y, y], [x, x], state), r"outputs\[0\] and outputs\[1\] share memory"),
        (([y], [x], state[:1]), r"rng_state must be int64 of shape \(2,\)"),
    ):
        with pytest.raises(RuntimeError, match="tilewright::stochastic_round_: " + message):
            ops.stochastic_round_(*arguments)
    with pytest.raises(RuntimeError, match=r"outputs\[0\] requires grad"):
        ops.stochastic_round_([y.requires_grad_()], [x], state)
    opcheck(ops.stochastic_round_.default, ([y.detach()], [x], state))
    if MACHINE != "cpu":
        with NoSynchronisation():
            ops.stochastic_round_([y.detach()], [x], state)


@pytest.mark.parametrize("stochastic", [False, pytest.param(True, marks=kernels)])
def test_masters_learn_what_16_bits_round_away(device, stochastic):
    """A thousand steps of 2^-12: bfloat16 beside 1 has steps of 2^-8 upwards, 2^-9 downwards."""
    model = nn.Linear(64, 1, bias=False).to(device, torch.bfloat16)
    nn.init.ones_(model.weight)
    plain = copy.deepcopy(model)
    masters = MasterWeights(model.parameters(), stochastic=stochastic, seed=3)
    optimizer = torch.optim.SGD(masters.parameters(), 2.0**-12)
    without = torch.optim.SGD(plain.parameters(), 2.0**-12)
    means = []
    for _ in range(200):
        for one, of in ((model, masters), (plain, None)):
            one.weight.grad = torch.ones_like(one.weight)
            if of is not None:
                of.take_gradients_()
                assert one.weight.grad is None
        optimizer.step(), optimizer.zero_grad(), without.step()
        masters.give_back_()
        means.append(model.weight.float().mean().item())
    assert (plain.weight == 1).all()
    expected = 1 - 200 * 2.0**-12
    assert torch.equal(masters.parameters()[0], torch.full_like(masters.parameters()[0], expected))
    # To the nearest all weights are alike; by chance their mean follows.
    error = max(abs(mean - 1 + (i + 1) * 2.0**-12) for i, mean in enumerate(means))
    if stochastic:
        assert error < 2.0**-9 / 2 and len(model.weight.unique()) == 2
    else:
        assert error <= 2.0**-9 and len(model.weight.unique()) == 1


def test_masters_of_several_dtypes():
    parameters = [
        nn.Parameter(torch.ones(2, dtype=torch.float16)),
        nn.Parameter(torch.ones(2)),
        nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    ]
    masters = MasterWeights(parameters)
    of = masters.parameters()
    assert of[1] is parameters[1] and [p.dtype for p in of] == [torch.float32] * 3
    for _ in range(2):  # accumulation
        sum(p.float().sum() for p in parameters).backward()
        masters.take_gradients_()
    assert all(p.grad.tolist() == [2.0, 2.0] for p in of)
    scaler, optimizer = LossScaler(init_scale=2.0), torch.optim.SGD(of, 0.5)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()
    masters.give_back_()
    assert all(p.tolist() == [0.5, 0.5] for p in parameters)
    saved = copy.deepcopy(masters.state_dict())
    with torch.no_grad():
        parameters[0].fill_(3)
    masters.read_model_()
    assert of[0].tolist() == [3.0, 3.0]
    masters.load_state_dict(saved)
    assert parameters[0].tolist() == of[0].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"expected masters of shapes \[\(2,\), .* got \[\(2,\)\]"):
        masters.load_state_dict(saved | {"masters": saved["masters"][:1]})
    with pytest.raises(ValueError, match=r"parameter 0 must be a floating .* torch\.int64"):
        MasterWeights([torch.ones(2, dtype=torch.long)])


@pytest.mark.parametrize("masters_first", [False, True])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(masters_first):
    """Whichever is loaded first: rounding by chance is done again as it was."""
    model = nn.Linear(64, 3, bias=False).to(torch.bfloat16)
    masters = MasterWeights(model.parameters(), stochastic=True)
    for _ in range(3):
        with torch.no_grad():
            masters.parameters()[0].mul_(1.001)
        masters.give_back_()
    saved = copy.deepcopy([model.state_dict(), masters.state_dict()])
    other = nn.Linear(64, 3, bias=False).to(torch.bfloat16)
    resumed = MasterWeights(other.parameters(), stochastic=True)
    loads = [lambda: other.load_state_dict(saved[0]), lambda: resumed.load_state_dict(saved[1])]
    for load in reversed(loads) if masters_first else loads:
        load()
    for _ in range(2):
        assert torch.equal(other.weight, model.weight)
        masters.give_back_(), resumed.give_back_()


def test_parameters_that_cannot_be():
    p = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    for wrong, message in (
        ([p, nn.Parameter(torch.ones(1)), p], "parameter 2 is parameter 0 again"),
        ([None], "parameter 0 must be a floating tensor, got NoneType"),
        ([("a", p), p], "all alone or all in pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            MasterWeights(wrong)
    for wrong in (p, nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="iterable of parameters, such as model"):
            MasterWeights(wrong)
    with pytest.raises(ValueError, match="seed must be an int of 64 bits, got '3'"):
        MasterWeights([p], seed="3")
    before = torch.get_rng_state()
    MasterWeights([p])  # no chance, so none is drawn
    assert torch.equal(torch.get_rng_state(), before)


def test_the_whole_offset_is_chance():
    x, y, z = torch.full((64,), 1 + 2.0**-9), *torch.empty(2, 64, dtype=torch.bfloat16)
    ops.stochastic_round_([y], [x], torch.tensor([1, 0]))
    ops.stochastic_round_([z], [x], torch.tensor([1, 2**32]))
    assert not torch.equal(y, z)
