"""Contrastive predictive coding: the C++ module and its scriptable twin agree, see no step ahead,
learn, are saved and name what is wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from self_supervised import (
    assert_exports,
    assert_twins_agree,
    loss_history,
    scripted,
    twins,
)

from tilewright import _C
from tilewright.models import CPC, CPCCpp

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = {"widths": [6, 10], "context_features": 8}
SEQUENCES = {
    "input": "sequences",
    "in_channels": 2,
    "widths": [6, 10],
    "kernel_sizes": [5, 3],
    "strides": [2, 1],
    "context_features": 8,
    "steps": 3,
}
ATTENTION = {"context": "attention", "context_heads": 2, "context_layers": 2}


def images(count=4, channels=1, height=8, width=10, dtype=torch.float64):
    return torch.rand(count, channels, height, width, dtype=dtype)


def sequences(count=4, channels=2, length=30, dtype=torch.float64):
    return torch.randn(count, channels, length, dtype=dtype)


@pytest.mark.smoke
@pytest.mark.parametrize("context", [{}, {"context_layers": 2}, ATTENTION])
@pytest.mark.parametrize("more", [{}, {"summary": "last", "normalize": False, "temperature": 1.0}])
def test_twins_agree(context, more):
    for options, x in (
        ({**IMAGES, **context, **more}, images()),
        ({**IMAGES, "in_channels": 3, "patch_size": 3, **context, **more}, images(3, 3, 9, 7)),
        ({**SEQUENCES, **context, **more}, sequences()),
    ):
        assert_twins_agree(*twins(CPC, CPCCpp, **options), (x,), x)


@pytest.mark.parametrize("options", [IMAGES, SEQUENCES])
def test_the_loss_by_its_definition(options):
    """Each prediction of z[t + k] among the features of all steps of the batch."""
    x = sequences() if options is SEQUENCES else images()
    model, twin = twins(CPC, CPCCpp, **options, normalize=False, temperature=0.7)
    z = model.encode(x)
    context = model.contexts(z)
    matrices = model.prediction.weight.unflatten(0, (model.steps, -1))  # (K, F, D)
    everything = z.flatten(0, 1)
    losses = []
    for s in range(z.shape[0]):
        for t in range(z.shape[1]):
            for k in range(1, model.steps + 1):
                if t + k < z.shape[1]:
                    scores = everything @ (matrices[k - 1] @ context[s, t]) / 0.7
                    losses.append(scores.logsumexp(0) - scores[s * z.shape[1] + t + k])
    right = torch.stack(losses).mean()
    torch.testing.assert_close(model(x), right)
    torch.testing.assert_close(twin(x), right)


def test_patches_are_where_they_should_be():
    """Columns of an image side by side, each from top to bottom."""
    model = CPC(**IMAGES, in_channels=2, patch_size=3, patch_stride=2).double()
    x = images(2, 2, 8, 9)
    z = model.encode(x)
    assert z.shape == (2 * 4, 3, 10)
    for n in range(2):
        for column in range(4):
            for row in range(3):
                patch = x[n, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                alone = model.encoder(patch.unsqueeze(0)).mean((2, 3))[0]
                torch.testing.assert_close(z[n * 4 + column, row], alone)
    context = model.contexts(z).view(2, 4, 3, -1)
    torch.testing.assert_close(model.represent(x), context.mean((1, 2)))
    last = CPC(**IMAGES, in_channels=2, patch_size=3, patch_stride=2, summary="last").double()
    last.load_state_dict(model.state_dict())
    torch.testing.assert_close(last.represent(x), context[:, :, -1].flatten(1))


@pytest.mark.parametrize("context", [{}, ATTENTION])
def test_no_context_sees_ahead(context):
    for options, x in ((IMAGES, images()), (SEQUENCES, sequences())):
        model, twin = twins(CPC, CPCCpp, **{**options, **context})
        other = x.clone()
        end = other[..., -3:] if options is SEQUENCES else other[:, :, -2:]
        end += 1.0
        for each in (model, twin):
            with torch.no_grad():
                z, changed = each.encode(x), each.encode(other)
                first, second = each.contexts(z), each.contexts(changed)
            same = (z == changed).all(2)
            ahead = same.cumprod(1).bool()  # all steps so far are the same
            assert ahead.any() and not same.all()
            torch.testing.assert_close(first[ahead], second[ahead], rtol=0, atol=1e-12)
            assert not torch.equal(first[~ahead], second[~ahead])


def waves(count):
    """Two channels that turn at a speed of the sequence's own, and noise: (count, 2, 64)."""
    speed = torch.rand(count, 1) * 0.5 + 0.1
    angle = torch.rand(count, 1) * 6.28 + speed * torch.arange(64)
    signal = torch.stack([angle.sin(), angle.cos()], 1)
    return signal + 0.1 * torch.randn_like(signal)


def bars(count):
    """A bar across the image at a slant of its own: what is above tells what is below."""
    place, slant = torch.rand(count, 1, 1) * 8, torch.rand(count, 1, 1) * 2 - 1
    row, column = torch.arange(12.0).view(12, 1), torch.arange(12.0)
    distance = column - place - slant * row
    return torch.exp(-(distance**2)).unsqueeze(1) + 0.05 * torch.rand(count, 1, 12, 12)


@pytest.mark.smoke
@pytest.mark.parametrize("face", [CPC, CPCCpp])
@pytest.mark.parametrize("context", [{}, {**ATTENTION, "context_layers": 1}])
def test_losses_fall(face, context):
    torch.manual_seed(0)
    for options, make in ((SEQUENCES, waves), (IMAGES, bars)):
        options = {**options, "widths": [16, 16], "context_features": 16, **context}
        losses = loss_history(face(**options), lambda make=make: (make(32),), steps=60, rate=5e-3)
        assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), losses


def test_what_is_represented_is_slow():
    """The speed of a wave, which no single step shows, is linear in the last context; in that of an
    untrained model it is less so."""
    torch.manual_seed(0)
    model = CPC(**{**SEQUENCES, "widths": [16, 16], "context_features": 32}, summary="last")
    x = waves(600)
    wave = torch.complex(x[:, 1], x[:, 0])
    speed = (wave[:, 1:] * wave[:, :-1].conj()).mean(1).angle()
    untrained = unexplained(model, x, speed)
    loss_history(model, lambda: (waves(32),), steps=150, rate=5e-3)
    trained = unexplained(model, x, speed)
    assert trained < 0.5 * untrained and trained < 0.1, (untrained, trained)


def unexplained(model, x, y):
    """Share of the variance of y that a linear function of the features leaves, on unseen x."""
    with torch.no_grad():
        features = F.pad(model.eval().represent(x), (0, 1), value=1.0)
    weight = torch.linalg.lstsq(features[:400], y[:400]).solution
    return ((features[400:] @ weight - y[400:]).var() / y[400:].var()).item()


@pytest.mark.parametrize("context", [{}, ATTENTION])
def test_nothing_is_represented_as_nothing(context):
    for options, x in ((IMAGES, images(0)), ({**SEQUENCES, "summary": "last"}, sequences(0))):
        for each in twins(CPC, CPCCpp, **options, **context):
            assert each.eval().represent(x).shape == (0, 8)


@pytest.mark.parametrize("context", [{}, ATTENTION])
def test_script_and_export(context):
    for options, x in ((IMAGES, images()), (SEQUENCES, sequences())):
        model, _ = twins(CPC, CPCCpp, **{**options, **context})
        loaded = scripted(model)
        loss = loaded(x)
        torch.testing.assert_close(loss, model(x))
        loss.backward()
        model.eval(), loaded.eval()
        torch.testing.assert_close(loaded.represent(x), model.represent(x))
        torch.testing.assert_close(loaded.encode(x), model.encode(x))
        assert_exports(model, x, dynamic=bool(context))  # torch's GRU fixes the batch


@pytest.mark.parametrize("context", [{}, ATTENTION])
def test_files_go_both_ways(tmp_path, context):
    options = {**IMAGES, **context}
    model, twin = twins(CPC, CPCCpp, torch.float32, **options)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01)
    twin.save(str(tmp_path / "cpp.pt"))
    model.load(tmp_path / "cpp.pt")
    torch.save(model.state_dict(), tmp_path / "python.pt")
    other = CPCCpp(**options).load(tmp_path / "python.pt")
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
        assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(RuntimeError, match=r"prediction\.weight must have shape \(30, 8\)"):
        CPC(**options, steps=3).load_state_dict(twin.state_dict())


@pytest.mark.parametrize("face", [CPC, CPCCpp])
@pytest.mark.parametrize("context", [{}, ATTENTION])
def test_autocast(face, context):
    model = face(**IMAGES, **context)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images(dtype=torch.float32))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_options():
    assert CPCCpp().options == _C.cpc_options()
    assert CPCCpp(steps=1).options == {**_C.cpc_options(), "steps": 1}


@pytest.mark.parametrize("face", [CPC, CPCCpp])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "text"}, "input must be images or sequences, got text"),
        ({"in_channels": 0}, "in_channels must be positive, got 0"),
        ({"patch_size": 0}, "patch_size must be positive, got 0"),
        ({"patch_stride": -1}, "patch_stride must be positive, got -1"),
        ({"widths": []}, r"widths must hold positive numbers, at least one, got \[\]"),
        (
            {"input": "sequences", "strides": [2]},
            "kernel_sizes and strides must have one number for each of the 2 widths, got 2 and 1",
        ),
        ({"context": "lstm"}, "context must be gru or attention, got lstm"),
        ({"context_layers": 0}, "context_layers must be positive, got 0"),
        (
            {"context": "attention", "context_features": 30},
            r"context_features must be a multiple of context_heads \(4\), got 30",
        ),
        (
            {"context": "attention", "context_features": 514, "context_heads": 2},
            "a head must have at most 256 of the context_features, got 257",
        ),
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"steps": 1.5}, "steps must be an integer, got 1.5"),
        ({"steps": np.float32(1.5)}, r"steps must be an integer, got np\.float32\(1\.5\)"),
        ({"normalize": "yes"}, "normalize must be True or False, got 'yes'"),
        ({"normalize": None}, "normalize must be True or False, got None"),
        ({"normalize": 0.5}, r"normalize must be True or False, got 0\.5"),
        ({"strides": 2}, "strides must be a list of integers, got 2"),
        ({"steps": True}, "steps must be an integer, got True"),
        ({"strides": [2.5, 2]}, r"strides must be a list of integers, got \[2\.5, 2\]"),
        ({"strides": np.array([2.5, 2])}, "strides must be a list of integers, got array"),
        ({"strides": [np.float32(2.5), 2]}, r"strides must be a list of integers, got \[np\.float"),
        (
            {"temperature": torch.nn.Parameter(torch.ones(()))},
            "temperature must be a number, got Par",
        ),
        ({"temperature": -1.0}, "temperature must be positive and finite, got -1"),
        ({"summary": "max"}, "summary must be mean or last, got max"),
        ({"hidden": 3}, "unknown options {'hidden'}, there are input, .*, steps, .*, summary"),
    ],
)
def test_bad_options_are_named(face, options, message):
    with pytest.raises((RuntimeError, TypeError), match=f"tilewright::CPC: {message}"):
        face(**options)


def test_bad_inputs_are_named():
    model, twin = twins(CPC, CPCCpp, torch.float32, **IMAGES)
    for each in (model, twin, torch.jit.script(model)):
        for bad, message in (
            (torch.rand(4, 8, 8), r"x must have shape \(N, C, H, W\), got \(4, 8, 8\)"),
            (torch.rand(4, 3, 8, 8), r"x must have 1 channels, got \(4, 3, 8, 8\)"),
            (torch.rand(4, 1, 8, 3), r"x must not be smaller than a patch, 4 x 4, got \(4, 1, 8"),
            (
                torch.rand(4, 1, 7, 8),
                r"x must have more than 2 rows of patches, .* got 2 \(the least height is 8\)",
            ),
        ):
            with pytest.raises(Exception, match=f"tilewright::CPC: {message}"):
                each(bad)
        assert each(torch.rand(4, 1, 8, 8)).isfinite()
    for wrong in (np.ones((4, 1, 8, 8)), [[1.0]], None):
        kind = type(wrong).__name__
        for call in (model, model.represent, model.encode):
            with pytest.raises(ValueError, match=rf"CPC: x must be a .*C, H, W\), got {kind}"):
                call(wrong)
        with pytest.raises(ValueError, match=rf"CPC: features must be .*\(S, T, F\), got {kind}"):
            model.contexts(wrong)
    model, twin = twins(CPC, CPCCpp, torch.float32, **SEQUENCES)
    with pytest.raises(ValueError, match=r"CPC: x must be a tensor of shape \(N, C, T\), got list"):
        model([[1.0]])
    for each in (model, twin, torch.jit.script(model)):
        with pytest.raises(Exception, match=r"CPC: x must have shape \(N, C, T\), got \(4, 30\)"):
            each(torch.rand(4, 30))
        told = r"CPC: x must have more than 3 steps, .* got 3 \(the least length is 15\)"
        with pytest.raises(Exception, match=told):
            each(torch.rand(4, 2, 14))
        assert each(torch.rand(4, 2, 15)).isfinite()
        told = r"CPC: x must have a length of at least 9, .* got \(4, 2, 8\)"
        for call in (each, each.represent):
            with pytest.raises(Exception, match=told):
                call(torch.rand(4, 2, 8))
        assert each.represent(torch.rand(4, 2, 9)).shape == (4, 8)
