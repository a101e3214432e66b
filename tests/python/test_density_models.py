"""NADE, MADE, FVSBN and their baselines: densities that add up to 1, samples that follow them,
completion, training, Bayes' rule, files."""

import io
import math

import pytest
import torch
from checks import export_and_run
from reference_density import all_states

import tilewright
from tilewright.density import MaskedLinear
from tilewright.models import (
    FVSBN,
    MADE,
    NADE,
    BernoulliMixture,
    FactorisedBernoulli,
    GenerativeClassifier,
    LabelledDensity,
)
from tilewright.models.made import made_masks

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {
    "nade": lambda d: NADE(d, 7),
    "fvsbn": lambda d: FVSBN(d),
    "made": lambda d: MADE(d, (11,)),
    "deep made": lambda d: MADE(d, (9, 8), direct=False, seed=1),
    "connectivities": lambda d: MADE(d, (9,), num_masks=4),
    "orders": lambda d: MADE(d, (9, 6), num_masks=3, random_order=True, seed=5),
    "mixture": lambda d: BernoulliMixture(d, 3),
    "factorised": lambda d: FactorisedBernoulli(d),
}
ALL = pytest.mark.parametrize("name", MODELS)


def model_of(name, pixels, spread=1.0):
    """In float64, with parameters that say something."""
    model = MODELS[name](pixels).double()
    with torch.no_grad():
        fitted = [model.log_weight, model.logits] if hasattr(model, "fit") else []
        for tensor in [*model.parameters(), *fitted]:
            tensor.normal_(0, spread)
    return model.requires_grad_(False)


@ALL
@pytest.mark.parametrize("pixels", [1, 10])
def test_probabilities_of_all_states_add_up_to_one(name, pixels):
    log_prob = model_of(name, pixels).log_prob(all_states(pixels))
    assert log_prob.shape == (2**pixels,) and log_prob.std() > 0.01
    assert abs(log_prob.exp().sum().item() - 1) < 1e-12


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum().item()


@ALL
def test_samples_follow_the_density(name):
    model, states, n = model_of(name, 4), all_states(4), 8000
    probability = model.log_prob(states).exp()
    place = model.sample(n).long() @ torch.tensor([8, 4, 2, 1])
    assert chi_square(torch.bincount(place, minlength=16), n * probability) < 37.7  # 15: 1 in 1000
    given = torch.tensor([[1.0, 0.0]]).expand(n, 2)
    drawn = model.sample(n, given)
    assert torch.equal(drawn[:, :2], given.double())
    if name == "orders":  # members whose orders were changed: another ensemble
        return
    expected = n * probability[8:12] / probability[8:12].sum()
    place = drawn[:, 2:].long() @ torch.tensor([2, 1])
    assert chi_square(torch.bincount(place, minlength=4), expected) < 16.3


def test_a_member_of_another_order_completes_what_is_given():
    """With one member the changed order is a density of its own, and is what completes."""
    model = MADE(4, (9,), random_order=True, seed=2).double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_()
    assert model.rank[0].tolist() != [1, 2, 3, 4]
    twin = MADE(4, (9,)).double().requires_grad_(False)
    twin.load_state_dict(model.state_dict())
    twin.rank[0] = model._rank_after(0, 2)
    twin.load_state_dict(twin.state_dict())  # masks of the new order
    assert sorted(twin.rank[0, :2].tolist()) == [1, 2]
    probability = twin.log_prob(all_states(4)).exp()[4:8]
    drawn = model.sample(8000, torch.tensor([[0.0, 1.0]]).expand(8000, 2))
    place = drawn[:, 2:].long() @ torch.tensor([2, 1])
    expected = 8000 * probability / probability.sum()
    assert chi_square(torch.bincount(place, minlength=4), expected) < 16.3


@ALL
def test_script_file_export_and_errors(name):
    model = model_of(name, 6)
    x, given = all_states(6)[::5], torch.ones(3, 4)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    assert torch.equal(loaded(x), model.log_prob(x))
    assert torch.equal(loaded.log_prob(x.to(torch.uint8)), model.log_prob(x))
    for arguments in ((5,), (3, given), (0,), (2, torch.zeros(2, 6))):
        torch.manual_seed(1)
        drawn = loaded.sample(*arguments)
        torch.manual_seed(1)
        assert torch.equal(drawn, model.sample(*arguments))
    torch.testing.assert_close(export_and_run(model, x), model.log_prob(x))
    for each in (model, loaded):
        with pytest.raises(Exception, match=r"given must have shape \(n, d\) = \(3, at most 6\)"):
            each.sample(3, torch.ones(3, 7))
        with pytest.raises(Exception, match="n must not be negative, got -1"):
            each.sample(-1)
        with pytest.raises(Exception, match="x must have shape"):
            each.log_prob(torch.ones(2, 5))
        with pytest.raises(Exception, match=r"pixels must be 0 or 1, got 0.5 in \w+\[0, 0\]"):
            each.log_prob(torch.full((2, 6), 0.5))
        with pytest.raises(Exception, match=r"pixels must be 0 or 1, got 0.5 in \w+\[0, 0\]"):
            each.sample(2, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("name", ["nade", "fvsbn"])
def test_samples_of_any_number_compile(name):
    model = MODELS[name](4)
    compiled = torch.compile(model.sample, fullgraph=True, backend="aot_eager")
    for n in (3, 4, 6):
        rows = compiled(n, torch.ones(n, 2))
        assert rows.shape == (n, 4) and (rows[:, :2] == 1).all()


@pytest.mark.parametrize("name", ["nade", "fvsbn", "made", "orders"])
def test_training_finds_dependencies(name):
    """Pixels in equal pairs: half of the entropy of independent ones."""
    half = (torch.rand(400, 4) < 0.5).float()
    x = half.repeat_interleave(2, 1)
    model = MODELS[name](8)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(150):
        optimizer.zero_grad()
        if isinstance(model, MADE):
            log_prob = model.log_prob_of(x, step % model.num_masks)
        else:
            log_prob = model(x)
        (-log_prob.mean()).backward()
        optimizer.step()
    baseline = FactorisedBernoulli(8)
    baseline.fit(x)
    assert baseline.log_prob(x).mean() < -7.9 * math.log(2)
    assert model.log_prob(x).mean() > -5 * math.log(2)  # four coins are 4 log 2
    completed = model.sample(200, x[:200, :7])
    if name != "orders":
        assert (completed[:, 7] == x[:200, 6]).float().mean() > 0.9


def test_masks_let_each_output_see_the_pixels_before_it():
    model = MADE(9, (20, 20), num_masks=5, random_order=True)
    for index in range(5):
        rank = model.rank[index]
        degrees = list(model.degrees[index].split(model.hidden))
        masks = [mask.long() for mask in made_masks(rank, degrees)]
        paths = masks[2] @ masks[1] @ masks[0] + masks[3]
        assert not (paths * (rank[:, None] <= rank[None, :])).any()
        assert (paths > 0).sum() == 9 * 8 // 2  # straight weights see all of them
        for layer, mask in zip([*model.layers, model.output, model.direct], masks, strict=True):
            assert torch.equal(layer.mask[index].long(), mask)
    again = MADE(9, (20, 20), num_masks=5, random_order=True)
    other = MADE(9, (20, 20), num_masks=5, random_order=True, seed=1)
    assert torch.equal(again.rank, model.rank) and torch.equal(again.degrees, model.degrees)
    assert not torch.equal(other.rank, model.rank)


def test_a_state_dict_holds_orders_and_masks():
    model, other = (MADE(6, (8,), num_masks=2, random_order=True, seed=s) for s in (0, 1))
    x = all_states(6, torch.float32)
    assert not torch.equal(model.log_prob(x), other.log_prob(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_prob(x), other.log_prob(x))


def test_an_ensemble_averages_probabilities():
    model, x = model_of("orders", 5), all_states(5)
    mean = sum(model.log_prob_of(x, i).exp() for i in range(3)) / 3
    torch.testing.assert_close(model.log_prob(x).exp(), mean, rtol=1e-12, atol=0)


def test_masked_linear():
    mask = torch.tensor([[1, 0, 1], [0, 1, 0]])
    layer, x = MaskedLinear(mask), torch.randn(4, 3)
    assert layer.weight.shape == (2, 3) and layer.bias.shape == (2,)
    expected = torch.nn.functional.linear(x, layer.weight * mask, layer.bias)
    assert torch.equal(layer(x), expected)
    layer(x).sum().backward()
    assert not layer.weight.grad[mask == 0].any() and layer.weight.grad[mask == 1].all()
    assert set(layer.state_dict()) == {"weight", "bias"}
    several = MaskedLinear(torch.stack([mask, 1 - mask]), bias=False)
    assert several.num_masks == 2 and several.bias is None
    assert torch.equal(several(x, 1), x @ (several.weight * (1 - mask)).t())
    assert "num_masks=2" in repr(several) and tilewright.MaskedLinear is MaskedLinear
    with pytest.raises(ValueError, match=r"mask must have shape \(out, in\) or \(M, out, in\)"):
        MaskedLinear(torch.ones(3))
    with pytest.raises(ValueError, match="mask must hold zeros and ones alone"):
        MaskedLinear(torch.full((2, 2), 0.5))


def test_bayes_rule():
    models = [model_of(name, 4) for name in ("nade", "made", "fvsbn")]
    prior = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    classifier = GenerativeClassifier(models, prior)
    x = all_states(4)
    joint = torch.stack([m.log_prob(x).exp() for m in models], 1) * prior / 8
    torch.testing.assert_close(classifier(x).exp(), joint / joint.sum(1, keepdim=True))
    assert abs(classifier.log_prob(x).exp().sum().item() - 1) < 1e-12
    scripted = torch.jit.script(classifier)
    assert torch.equal(scripted(x), classifier(x))
    with pytest.raises(ValueError, match="prior must hold a positive number for each of 3 models"):
        GenerativeClassifier(models, torch.ones(2))


@pytest.mark.parametrize("name", ["nade", "connectivities"])
def test_a_label_as_one_more_variable(name):
    model = LabelledDensity(model_of(name, 3 + 4), 3)
    x = all_states(4)
    assert model.pixels == 4
    labels = torch.eye(3).double().repeat(16, 1)
    whole = model.model.log_prob(torch.cat([labels, x.repeat_interleave(3, 0)], 1))
    expected = whole.view(16, 3).log_softmax(1)
    torch.testing.assert_close(model(x), expected)
    y = torch.arange(16) % 3
    assert torch.equal(model.log_prob_of(x, y), model.log_joint(x).gather(1, y[:, None])[:, 0])
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(x), model(x)) and scripted.sample(y).shape == (16, 4)
    with pytest.raises(ValueError, match="num_classes must be positive and less than the model"):
        LabelledDensity(model.model, 7)
    with pytest.raises(RuntimeError, match=r"LabelledDensity: x must have shape \(N, 4\)"):
        model(torch.ones(2, 5))


def test_a_classifier_learns():
    y = torch.randint(0, 2, (300,))
    x = (torch.rand(300, 6) < torch.where(y == 1, 0.8, 0.2)[:, None]).float()
    models = [FactorisedBernoulli(6) for _ in range(2)]
    for c, model in enumerate(models):
        model.fit(x[y == c])
    found = GenerativeClassifier(models, torch.bincount(y))(x).argmax(1)
    assert (found == y).float().mean() > 0.9


def test_arguments():
    for make in (
        lambda: NADE(0),
        lambda: NADE(4, 0),
        lambda: MADE(4, ()),
        lambda: MADE(4, (3, 0)),
        lambda: MADE(4, (3,), num_masks=0),
        lambda: FVSBN(0),
        lambda: BernoulliMixture(3, 0),
    ):
        with pytest.raises(ValueError, match="must be positive, got"):
            make()


def test_rare_pixels_of_16_bits():
    """Numbers that decide are of more digits than the model's: a pixel of 1 in a thousand."""
    chance, rows = 0.001, 40_000
    for model in (FVSBN(2), MADE(2, (3,)), FactorisedBernoulli(2)):
        with torch.no_grad():
            for tensor in [*model.parameters(), getattr(model, "logits", torch.zeros(1))]:
                tensor.zero_()
            rare = model.linear if isinstance(model, FVSBN) else getattr(model, "output", None)
            place = model.logits if rare is None else rare.bias
            place.fill_(math.log(chance / (1 - chance)))
        drawn = model.bfloat16().requires_grad_(False).sample(rows)
        share = drawn.float().mean().item()
        assert abs(share - chance) < 5 * math.sqrt(chance / (2 * rows)), type(model)


@ALL
def test_sampling_under_autocast(name):
    model = model_of(name, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        rows = model.sample(5, torch.ones(5, 2))
    assert ((rows == 0) | (rows == 1)).all() and (rows[:, :2] == 1).all()


def test_seeds_of_made():
    for seed in (0, 2**63 - 1):
        assert torch.equal(
            MADE(4, num_masks=2, seed=seed).degrees, MADE(4, num_masks=2, seed=seed).degrees
        )
    assert not torch.equal(MADE(4, seed=1).degrees, MADE(4, seed=2).degrees)


def test_certain_pixels():
    logits = torch.tensor([math.inf, -math.inf, 0.0], requires_grad=True)
    x = torch.tensor([1.0, 0.0, 1.0])
    found = tilewright.binary_log_prob(logits, x)
    assert found.item() == pytest.approx(math.log(0.5))
    assert tilewright.binary_log_prob(-logits, x).item() == -math.inf


@pytest.mark.parametrize(
    "y,message",
    [
        (torch.tensor([0.9, 1.0]), r"y must be \(N,\) int64, got torch.float32"),
        (torch.tensor([0, 2]), r"y must lie in \[0, 2\), got 0 to 2"),
    ],
)
def test_labels_that_are_none(y, message):
    model = LabelledDensity(FVSBN(5), 2)
    with pytest.raises(RuntimeError, match=message):
        model.log_prob_of(torch.ones(2, 3), y)
