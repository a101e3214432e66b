"""Densities name what they cannot take: what is no tensor, sizes, members, labels, priors, steps,
orders."""

import re

import numpy
import pytest
import torch

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

MODELS = {
    "NADE": NADE(4, 3),
    "MADE": MADE(4, (3,), num_masks=2),
    "FVSBN": FVSBN(4),
    "BernoulliMixture": BernoulliMixture(4, 2),
}
NO_TENSORS = pytest.mark.parametrize("wrong", [numpy.ones((2, 4)), [[1, 0, 1, 0]], None])
X = torch.ones(2, 3)


@NO_TENSORS
@pytest.mark.parametrize("name", MODELS)
def test_rows_that_are_no_tensor(name, wrong):
    model, kind = MODELS[name], type(wrong).__name__
    message = rf"tilewright::{name}: x must be a tensor of shape \(N, 4\), got {kind}"
    for function in (model, model.log_prob, getattr(model, "fit", model)):
        with pytest.raises(ValueError, match=message):
            function(wrong)
    if wrong is None:  # nothing is given, then
        return
    message = rf"tilewright::{name}: given must be a tensor of shape \(n, d\), got {kind}"
    with pytest.raises(ValueError, match=message):
        model.sample(2, wrong)


@NO_TENSORS
def test_other_arguments_that_are_no_tensor(wrong):
    labelled, kind = LabelledDensity(FVSBN(5), 2), type(wrong).__name__
    with pytest.raises(ValueError, match=rf"MADE: x must be .* got {kind}"):
        MODELS["MADE"].log_prob_of(wrong, 0)
    for function in (labelled, labelled.log_joint, lambda x: labelled.log_prob_of(x, X)):
        with pytest.raises(ValueError, match=rf"LabelledDensity: x must .* \(N, 3\), got {kind}"):
            function(wrong)
    for function in (labelled.sample, lambda y: labelled.log_prob_of(X, y)):
        with pytest.raises(ValueError, match=rf"LabelledDensity: y must be .* \(N,\), got {kind}"):
            function(wrong)
    with pytest.raises(ValueError, match=rf"MaskedLinear: mask must be a tensor .*, got {kind}"):
        MaskedLinear(wrong)
    if wrong is not None:
        message = rf"GenerativeClassifier: prior must be a tensor of shape \(2,\), got {kind}"
        with pytest.raises(ValueError, match=message):
            GenerativeClassifier([FVSBN(4), FVSBN(4)], wrong)


@pytest.mark.parametrize("index", [-1, 2])
def test_members_that_are_none(index):
    model, x = MODELS["MADE"], torch.ones(3, 4)
    for each in (model, torch.jit.script(model)):
        with pytest.raises(Exception, match=rf"MADE: a member must lie in \[0, 2\), got {index}"):
            each.log_prob_of(x, index)


def test_as_many_labels_as_rows():
    model = LabelledDensity(FVSBN(5), 2)
    for each in (model, torch.jit.script(model)):
        for y in (torch.tensor([0]), torch.tensor([0, 1, 1])):
            with pytest.raises(Exception, match=f"y must have x's 2 rows, got {len(y)}"):
                each.log_prob_of(X, y)


def test_counts_of_some_classes():
    """bincount ends at the largest label that it saw."""
    labels = torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"torch.bincount\(labels, minlength=3\) .*got tensor\(\["):
        GenerativeClassifier([FVSBN(4)] * 3, torch.bincount(labels))
    with pytest.raises(ValueError, match=r"where each class has rows, got tensor\(\[2, 2, 0\]\)"):
        GenerativeClassifier([FVSBN(4)] * 3, torch.bincount(labels, minlength=3))


@pytest.mark.parametrize("steps", [-1, 0])
@pytest.mark.parametrize("model", [BernoulliMixture(4, 2), FactorisedBernoulli(4)])
def test_steps_of_a_fit(model, steps):
    before = model.logits.clone()
    with pytest.raises(ValueError, match=f"BernoulliMixture: steps must be positive, got {steps}"):
        model.fit(torch.ones(2, 4), steps=steps)
    assert torch.equal(model.logits, before)


@NO_TENSORS
def test_operators_name_them_by_their_schema(wrong):
    with pytest.raises(RuntimeError, match=r"must be a tensor|Expected a value of type 'Tensor'"):
        tilewright.nade(wrong, *MODELS["NADE"].parameters())
    with pytest.raises(RuntimeError, match=r"must be a tensor|Expected a value of type 'Tensor'"):
        tilewright.binary_log_prob(X, wrong)


@pytest.mark.parametrize("wrong", [2.5, True, "4", None])
@pytest.mark.parametrize(
    "name,make",
    [
        ("NADE: pixels", lambda n: NADE(n)),
        ("NADE: hidden", lambda n: NADE(4, n)),
        ("MADE: pixels", lambda n: MADE(n)),
        ("MADE: each of hidden", lambda n: MADE(4, n)),
        ("MADE: each of hidden", lambda n: MADE(4, [3, n])),
        ("MADE: num_masks", lambda n: MADE(4, num_masks=n)),
        ("MADE: seed", lambda n: MADE(4, seed=n)),
        ("FVSBN: pixels", lambda n: FVSBN(n)),
        ("BernoulliMixture: pixels", lambda n: BernoulliMixture(n, 2)),
        ("BernoulliMixture: components", lambda n: BernoulliMixture(4, n)),
        ("BernoulliMixture: pixels", lambda n: FactorisedBernoulli(n)),
        ("BernoulliMixture: steps", lambda n: BernoulliMixture(3, 2).fit(X, steps=n)),
        ("BernoulliMixture: seed", lambda n: BernoulliMixture(3, 2).fit(X, seed=n)),
        ("LabelledDensity: num_classes", lambda n: LabelledDensity(FVSBN(5), n)),
    ],
)
def test_sizes_that_are_no_integers(name, make, wrong):
    with pytest.raises(ValueError, match=f"tilewright::{name} must be an integer, got {wrong!r}"):
        make(wrong)


def test_integers_of_numpy():
    n = numpy.int64(3)
    for model in (NADE(n, n), MADE(n, n, num_masks=n, seed=n), FVSBN(n), BernoulliMixture(n, n)):
        assert torch.jit.script(model).log_prob(X).shape == (2,)
    labelled = torch.jit.script(LabelledDensity(FVSBN(5), numpy.int64(2)))
    assert labelled(X).shape == (2, 2)


@pytest.mark.parametrize("wrong", [None, [1, 2], [], 3, [FVSBN(4), None], [torch.nn.ReLU()]])
def test_models_that_are_none(wrong):
    message = "models must be a list of modules with log_prob, one for each class, got "
    with pytest.raises(ValueError, match=message + re.escape(repr(wrong))):
        GenerativeClassifier(wrong)
    for wrong in (None, 5, torch.nn.Linear(5, 5)):
        kind = type(wrong).__name__
        with pytest.raises(ValueError, match=f"model must be a module with pixels, .* got {kind}"):
            LabelledDensity(wrong, 2)


def test_models_that_are_a_list_of_modules():
    models = torch.nn.ModuleList([FVSBN(3), FVSBN(3)])
    for given in (models, list(models), tuple(models)):
        assert GenerativeClassifier(given)(X).shape == (2, 2)


def test_pixels_beside_labels():
    """The place is that of x, not of the row that the inner model sees."""
    model, y = LabelledDensity(MADE(5, (3,)), 2), torch.tensor([0, 1])
    x = torch.tensor([[1.0, 0, 1], [0, 0.5, 1]])
    for each in (model, torch.jit.script(model)):
        for call, more in ((each, ()), (each.log_joint, ()), (each.log_prob_of, (y,))):
            with pytest.raises(Exception, match=r"LabelledDensity: .* got 0\.5 in x\[1, 1\]"):
                call(x, *more)


@pytest.mark.parametrize("row", [[1, 2, 2, 4], [0, 1, 2, 3], [2, 3, 4, 5]])
def test_orders_that_are_no_permutation(row):
    model = MADE(4, (3,), num_masks=2, random_order=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["rank"] = torch.stack([before["rank"][0], torch.tensor(row)])
    told = re.escape(
        f"rank must be a permutation of 1 to 4 for each member, got {row} for member 1"
    )
    with pytest.raises(RuntimeError, match=f"tilewright::MADE: {told}"):
        model.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    outer = torch.nn.Sequential(model)
    with pytest.raises(RuntimeError, match=told.replace("rank", r"0\.rank", 1)):
        outer.load_state_dict({f"0.{name}": value for name, value in state.items()})
    state["rank"] = before["rank"].flip(1)
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for rank"):
        model.load_state_dict({**state, "rank": torch.ones(2, 3)})


@pytest.mark.parametrize("name", MODELS)
def test_numbers_of_rows_that_are_none(name):
    for wrong in (2.5, True, None):
        with pytest.raises(ValueError, match=f"tilewright::{name}: n must be an integer, got"):
            MODELS[name].sample(wrong)
    with pytest.raises(RuntimeError, match="n must not be negative, got -1"):
        MODELS[name].sample(-1)
    assert MODELS[name].sample(numpy.int64(2)).shape == (2, 4)
