"""Mixtures of Bernoullis are fitted, from any seed, and on data of few rows that come often."""

from itertools import pairwise

import pytest
import torch

from tilewright.models import BernoulliMixture, FactorisedBernoulli

pytestmark = pytest.mark.usefixtures("one_thread")


def test_expectation_maximisation():
    component = torch.randint(0, 2, (500,))
    p = torch.tensor([[0.9] * 3 + [0.1] * 5, [0.1] * 3 + [0.9] * 5])
    x = (torch.rand(500, 8) < p[component]).to(torch.uint8)
    mixture, factorised = BernoulliMixture(8, 2), FactorisedBernoulli(8)
    history = mixture.fit(x, smoothing=1e-3)
    assert all(b >= a - 1e-6 for a, b in pairwise(history))
    factorised.fit(x, smoothing=1e-9)
    torch.testing.assert_close(factorised.logits[0].sigmoid(), x.float().mean(0))
    assert mixture.log_prob(x).mean() > factorised.log_prob(x).mean() + 0.5
    learnt = mixture.logits.sigmoid().sort(0).values
    torch.testing.assert_close(learnt, p.sort(0).values, rtol=0, atol=0.1)
    with pytest.raises(ValueError, match="fit needs rows and a positive smoothing, got 0 rows"):
        mixture.fit(x[:0])


@pytest.mark.parametrize("often", [50, 95])
def test_rows_that_come_often(often):
    """Components begin at rows that differ, whatever is drawn."""
    x = torch.tensor([[1, 1, 0, 0]] * often + [[0, 0, 1, 1]] * (100 - often))
    share = torch.tensor([often, 100 - often]) / 100
    best = (share * share.log()).sum()
    for seed in range(50):
        mixture = BernoulliMixture(4, 2)
        mixture.fit(x, steps=1000, smoothing=1e-3, seed=seed)
        torch.testing.assert_close(mixture.log_prob(x).mean(), best, rtol=0, atol=1e-3)


def test_more_components_than_rows():
    """Those that begin at equal rows differ by a little noise."""
    x = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]] * 20)
    for seed in range(20):
        mixture = BernoulliMixture(4, 5)
        mixture.fit(x, steps=1, seed=seed)
        assert len(mixture.logits.unique(dim=0)) == 5
        mixture.fit(x, steps=1000, seed=seed)
        assert mixture.log_prob(x).mean() > -1.1
    assert BernoulliMixture(4, 5).fit(x, seed=3) == BernoulliMixture(4, 5).fit(x, seed=3)


def test_likelihoods_of_16_bits_are_float32():
    x = torch.randint(2, (5, 300)).float()
    model = BernoulliMixture(300, 3)
    model.fit(x)
    right = model.log_prob(x)
    found = model.half().log_prob(x.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, right, rtol=1e-3, atol=0)
    assert model.sample(4, x[:4, :3].half()).dtype == torch.float16
