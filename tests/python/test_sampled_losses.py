"""Noise contrastive estimation, sampled softmax and alias tables: against their formulas, word by
word, and against the whole softmax."""

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from checks import EPS, compile_and_run, export_and_run, script_round_trip
from torch.autograd import gradcheck

import tilewright

ops = torch.ops.tilewright
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
N, D, V, K = 7, 5, 11, 23


def problem(dtype, biased=True):
    tensors = [torch.randn(N, D), torch.randn(V, D)] + ([torch.randn(V)] if biased else [])
    tensors = [t.to(dtype).requires_grad_() for t in tensors]
    weights = torch.rand(V) + 0.1
    noise = torch.multinomial(weights, K, replacement=True)
    target = torch.randint(V, (N,))
    target[0] = noise[0]
    return tensors, target, noise, (weights / weights.sum()).log()


def nce(x, weight, target, noise, log_noise, bias, log_partition):
    """One row and one word at a time."""
    total = 0

    def logit(row, word):
        score = row @ weight[word] + (0 if bias is None else bias[word])
        return score - log_partition - math.log(len(noise)) - log_noise[word].double()

    for row, word in zip(x, target, strict=True):
        total = total - F.logsigmoid(logit(row, word))
        for other in noise:
            total = total - F.logsigmoid(-logit(row, other))
    return total / len(x)


def sampled_softmax(x, weight, target, noise, log_noise, bias):
    total = 0
    for row, word in zip(x, target, strict=True):
        scores = weight @ row + (0 if bias is None else bias)
        others = noise[noise != word]
        estimates = scores[others] - log_noise[others].double() - math.log(len(noise))
        total = total + torch.cat([scores[word][None], estimates]).logsumexp(0) - scores[word]
    return total / len(x)


def both(tensors, target, noise, log_noise):
    bias = tensors[2] if len(tensors) == 3 else None
    given = (*tensors[:2], target, noise, log_noise, bias)
    return {
        "nce": tilewright.nce_loss(*given, 0.3),
        "softmax": tilewright.sampled_softmax_loss(*given),
    }


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients(dtype, biased):
    tensors, target, noise, log_noise = problem(dtype, biased)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    bias = exact[2] if biased else None
    right = {
        "nce": nce(*exact[:2], target, noise, log_noise, bias, 0.3),
        "softmax": sampled_softmax(*exact[:2], target, noise, log_noise, bias),
    }
    for name, loss in both(tensors, target, noise, log_noise).items():
        assert loss.dtype == torch.promote_types(dtype, torch.float32)
        # log_noise is float32, and so its logarithm of K samples.
        limit = {torch.float64: 1e-7, torch.float32: 1e-5}.get(dtype, 10 * EPS[dtype])
        torch.testing.assert_close(loss.double(), right[name], rtol=limit, atol=limit)
        found = torch.autograd.grad(loss, tensors)
        wanted = torch.autograd.grad(right[name], exact)
        for ours, expected in zip(found, wanted, strict=True):
            assert ours.dtype == dtype
            most = expected.abs().max().item()
            torch.testing.assert_close(ours.double(), expected, rtol=limit, atol=2 * limit * most)


@pytest.mark.parametrize("name", ["nce", "softmax"])
def test_gradients_by_differences(name):
    tensors, target, noise, log_noise = problem(torch.float64)
    assert gradcheck(lambda *t: both(t, target, noise, log_noise.double())[name], tensors)


def test_scores_of_16_bits_keep_the_digits_of_log_noise():
    """Words of large vocabularies have log probabilities that 16 bits would round by 0.03."""
    hidden, weight = (
        torch.zeros(4, 8, dtype=torch.bfloat16),
        torch.zeros(9, 8, dtype=torch.bfloat16),
    )
    log_noise = torch.linspace(-12.0, -11.0, 9)
    noise, target = torch.arange(1, 9), torch.zeros(4, dtype=torch.int64)
    loss = tilewright.sampled_softmax_loss(hidden, weight, target, noise, log_noise)
    exact = math.log(1 + sum(math.exp(-x) / 8 for x in log_noise[1:].double().tolist()))
    assert loss.item() == pytest.approx(exact, rel=1e-6)


def test_all_words_as_noise_give_the_whole_softmax():
    """Each word once, and q uniform: every sum is exact."""
    (x, weight, bias), target, _, _ = problem(torch.float64)
    log_noise = torch.full((V,), -math.log(V), dtype=torch.float64)
    ours = tilewright.sampled_softmax_loss(x, weight, target, torch.arange(V), log_noise, bias)
    whole = F.cross_entropy(F.linear(x, weight, bias), target)
    torch.testing.assert_close(ours, whole)
    grads = zip(*(torch.autograd.grad(y, (x, weight, bias)) for y in (ours, whole)), strict=True)
    for a, b in grads:
        torch.testing.assert_close(a, b)


def test_many_samples_come_near_the_whole_softmax():
    (x, weight, bias), target, _, log_noise = problem(torch.float32)
    noise = tilewright.NoiseDistribution(log_noise.exp())
    words = noise.sample(200_000, torch.Generator().manual_seed(0))
    ours = tilewright.sampled_softmax_loss(x, weight, target, words, noise.log_prob, bias)
    whole = F.cross_entropy(F.linear(x, weight, bias), target)
    assert ours.item() == pytest.approx(whole.item(), rel=0.01)


def test_nce_learns_normalised_probabilities():
    """A free score for each word: what it learns are the data's log probabilities."""
    truth = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    log_noise = torch.full((5,), math.log(0.2))
    target, noise = torch.multinomial(truth, 4000, True), torch.arange(5).repeat(40)
    hidden, bias = torch.ones(4000, 1), torch.zeros(5, requires_grad=True)
    weight = torch.zeros(5, 1)
    optimizer = torch.optim.LBFGS([bias], max_iter=50, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = tilewright.nce_loss(hidden, weight, target, noise, log_noise, bias)
        value.backward()
        return value

    optimizer.step(loss)
    share = torch.bincount(target, minlength=5) / 4000
    torch.testing.assert_close(bias.detach().exp(), share, rtol=1e-3, atol=1e-3)


def test_sparse_gradients_are_the_dense_ones():
    tensors, target, noise, log_noise = problem(torch.float32)
    x, weight, bias = tensors
    for function in (tilewright.nce_loss, tilewright.sampled_softmax_loss):
        dense, sparse = (
            torch.autograd.grad(
                function(x, weight, target, noise, log_noise, bias, sparse=s), (weight, bias)
            )
            for s in (False, True)
        )
        assert sparse[0].is_sparse and not dense[0].is_sparse
        torch.testing.assert_close(sparse[0].to_dense(), dense[0])
        torch.testing.assert_close(sparse[1], dense[1])


@pytest.mark.parametrize(
    "weights", [[1.0], [1, 0, 3], [0, 0, 2, 0], [5, 1, 1, 1, 0.001], [1e-300, 1, 1]]
)
def test_alias_tables_hold_the_distribution(weights):
    """Each word's probability, summed over the places that mean it."""
    weights = torch.tensor(weights, dtype=torch.float64)
    threshold, alias = ops.alias_table(weights)
    found = torch.zeros_like(weights)
    found += threshold
    found.index_add_(0, alias, 1 - threshold)
    torch.testing.assert_close(found / len(weights), weights / weights.sum(), rtol=0, atol=1e-15)
    assert (found[weights == 0] == 0).all()


def test_large_alias_table_and_its_samples():
    weights = torch.rand(100_000, dtype=torch.float64) ** 4
    threshold, alias = ops.alias_table(weights)
    found = threshold.clone().index_add_(0, alias, 1 - threshold) / len(weights)
    torch.testing.assert_close(found, weights / weights.sum(), rtol=0, atol=1e-12)
    noise = tilewright.NoiseDistribution(torch.tensor([1.0, 2.0, 0.0, 5.0]))
    drawn = torch.bincount(noise.sample(80_000, torch.Generator().manual_seed(3)), minlength=4)
    expected = torch.tensor([10_000.0, 20_000.0, 0.0, 50_000.0])
    assert ((drawn - expected).abs() <= 4 * expected.sqrt()).all()
    first, second = (noise.sample(50, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second) and noise.sample(0).shape == (0,)
    assert noise.log_prob[2] == -math.inf
    torch.testing.assert_close(noise.log_prob.exp(), expected / 80_000)


def call(
    x: torch.Tensor,
    w: torch.Tensor,
    b: torch.Tensor,
    t: torch.Tensor,
    n: torch.Tensor,
    q: torch.Tensor,
):
    return tilewright.nce_loss(x, w, t, n, q, b) + tilewright.sampled_softmax_loss(x, w, t, n, q, b)


def test_script_compile_export():
    tensors, target, noise, log_noise = problem(torch.float32)
    given = (*tensors, target, noise, log_noise)
    expected = call(*given)
    for run in (script_round_trip, compile_and_run, export_and_run):
        torch.testing.assert_close(run(call, *given), expected)
    scripted = torch.jit.script(tilewright.NoiseDistribution(torch.tensor([1.0, 3.0])))
    torch.manual_seed(0)
    assert set(scripted.sample(50).tolist()) == {0, 1}


X, W = torch.ones(2, 3), torch.ones(4, 3)
WORDS, Q = torch.tensor([0, 3]), torch.zeros(4)
BAD = [
    ({"input": torch.ones(3)}, r"input must have shape \(N, D\), got \(3,\)"),
    ({"input": torch.ones(0, 3)}, r"input must have rows and features, got \(0, 3\)"),
    ({"weight": torch.ones(4, 2)}, r"weight must have shape \(V, 3\), got \(4, 2\)"),
    ({"weight": W.double()}, r"weight must have input's dtype \(Float\), got Double"),
    ({"target": torch.tensor([0])}, r"target must have shape \(N,\) = \(2,\), got \(1,\)"),
    ({"target": torch.tensor([0, 4])}, r"target must lie in \[0, 4\), .* got 0 to 4"),
    ({"noise": torch.tensor([-1, 4])}, r"noise must lie in \[0, 4\), .* got -1 to 4"),
    ({"noise": torch.ones(0).long()}, r"noise must have shape \(K,\), K > 0, got \(0,\)"),
    ({"noise": torch.ones(3)}, "noise must be int64, got Float"),
    ({"log_noise": torch.zeros(3)}, r"log_noise must have shape \(V,\) = \(4,\), got \(3,\)"),
    ({"log_noise": Q.half()}, "log_noise must be float32 or float64, got Half"),
    ({"log_noise": Q.log()}, "log_noise must be finite for every word that was drawn"),
    ({"log_noise": Q + 0.25}, "log_noise must hold logarithms of .* at most 0, got 0.25"),
    ({"bias": torch.ones(3)}, r"bias must have shape \(V,\) = \(4,\), got \(3,\)"),
]


@pytest.mark.parametrize("name", ["nce_loss", "sampled_softmax_loss"])
@pytest.mark.parametrize("wrong,message", BAD)
def test_bad_input(name, wrong, message):
    given = {"input": X, "weight": W, "target": WORDS, "noise": WORDS, "log_noise": Q} | wrong
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: {message}"):
        getattr(tilewright, name)(**given)


@pytest.mark.parametrize("function", [tilewright.nce_loss, tilewright.sampled_softmax_loss])
def test_log_probabilities_that_rounding_left_above_zero(function):
    """Of a word that is almost certain; and words that were not drawn are not looked at."""
    log_noise = torch.tensor([1e-6, 3.0, -14.0, 1e-6])
    assert function(X, W, WORDS, WORDS, log_noise).isfinite()


@pytest.mark.parametrize("weights", [[1.0, 2.0], numpy.ones(2), None])
def test_weights_that_are_no_tensor(weights):
    kind = type(weights).__name__
    message = rf"NoiseDistribution: weights must be a tensor of shape \(V,\), got {kind}"
    with pytest.raises(ValueError, match=message):
        tilewright.NoiseDistribution(weights)


@pytest.mark.parametrize(
    "weights,message",
    [
        (torch.ones(0), r"weights must have shape \(V,\), V > 0, got \(0,\)"),
        (torch.tensor([1.0, -1.0]), r"weights\[1\] must be finite and not negative, got -1"),
        (torch.tensor([1.0, math.nan]), r"weights\[1\] must be finite and not negative, got nan"),
        (torch.zeros(3), "weights must have a finite sum above 0, got 0"),
        (torch.ones(3).half(), "weights must be float32 or float64, got Half"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(RuntimeError, match=f"tilewright::alias_table: {message}"):
        tilewright.NoiseDistribution(weights)


def test_autocast():
    """Hidden units of 16 bits beside parameters of 32, as layers under autocast leave them; the
    digits of log_noise stay."""
    tensors, target, noise, log_noise = problem(torch.float32)
    for name, exact in both(tensors, target, noise, log_noise).items():
        for hidden in (tensors[0], tensors[0].bfloat16()):
            with torch.autocast("cpu", torch.bfloat16):
                loss = both([hidden, *tensors[1:]], target, noise, log_noise)[name]
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, exact, rtol=0.01, atol=0.01)
            grads = torch.autograd.grad(loss, tensors[1:])
            assert all(g.dtype == torch.float32 for g in grads)
    hidden, weight = torch.zeros(4, 8), torch.zeros(9, 8)
    log_noise = torch.linspace(-12.0, -11.0, 9)
    words, target = torch.arange(1, 9), torch.zeros(4, dtype=torch.int64)
    exact = tilewright.sampled_softmax_loss(hidden, weight, target, words, log_noise)
    with torch.autocast("cpu", torch.bfloat16):
        loss = tilewright.sampled_softmax_loss(hidden, weight, target, words, log_noise)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_tables_are_not_cast():
    noise = tilewright.NoiseDistribution(torch.tensor([1.0, 2.0]))
    before = noise.threshold.clone()
    noise.half()
    assert torch.equal(noise.threshold, before) and noise.log_prob.dtype == torch.float32
    assert set(noise.sample(60).tolist()) == {0, 1}
    assert noise.to("meta").threshold.is_meta
    with pytest.raises(RuntimeError, match="threshold must be float64, as alias_table makes it"):
        ops.alias_sample(before.half(), noise.alias.new_zeros(2, device="cpu"), 3)


@pytest.mark.parametrize("name", ["nce_loss", "sampled_softmax_loss"])
def test_sparse_gradients_of_16_bits_are_refused(name):
    words, log_noise = torch.tensor([1, 2]), torch.full((5,), 0.2).log()
    for dtype in (torch.bfloat16, torch.float16):
        given = torch.ones(2, 3, dtype=dtype), torch.ones(5, 3, dtype=dtype)
        with pytest.raises(RuntimeError, match=f"{name}: sparse needs a weight of float64 or flo"):
            getattr(tilewright, name)(*given, words, words, log_noise, sparse=True)


def test_a_learnt_partition_is_told_where_it_belongs():
    words, log_noise = torch.tensor([1, 2]), torch.full((5,), 0.2).log()
    learnt = torch.zeros((), requires_grad=True)
    with pytest.raises(ValueError, match="nce_loss: log_partition must be a number, got a tensor"):
        tilewright.nce_loss(
            torch.ones(2, 3), torch.ones(5, 3), words, words, log_noise, log_partition=learnt
        )


def test_counts_are_weights():
    counts = torch.tensor([3, 0, 1])
    by_counts, by_weights = (tilewright.NoiseDistribution(w) for w in (counts, counts.double()))
    for name, buffer in by_counts.named_buffers():
        torch.testing.assert_close(buffer, getattr(by_weights, name))
    assert by_counts.log_prob.exp().tolist() == pytest.approx([0.75, 0, 0.25])


def test_a_target_that_noise_never_is():
    noise = tilewright.NoiseDistribution(torch.tensor([0.0, 1.0, 3.0]))
    given = (torch.ones(1, 2), torch.ones(3, 2), torch.tensor([0]), torch.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="log_noise must be finite for every target"):
        tilewright.nce_loss(*given, noise.log_prob)
    # Of the other loss no probability of the target is asked for.
    assert tilewright.sampled_softmax_loss(*given, noise.log_prob).isfinite()
