"""Runs attention, its reference and the plain composition on the same inputs, and compares results
and gradients by the project's error rule."""

import math

import reference_attention as reference
import torch
from checks import assert_close_to_fp64


def leaves(tensors, device="cpu", dtype=None):
    """Copies that keep their strides, with gradients where they can have them."""
    out = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            out[name] = tensor.to(device)
            continue
        repeated = [
            n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)
        ]
        if any(repeated):
            once = tensor[tuple(slice(1) if again else slice(None) for again in repeated)]
            copy = once.to(device, dtype or tensor.dtype).clone().expand(tensor.shape)
            out[name] = copy.requires_grad_()
            continue
        copy = tensor.to(device, dtype or tensor.dtype).detach()
        if copy.data_ptr() == tensor.data_ptr() and tensor.numel():
            copy = torch.empty_strided(
                *(tensor.shape, tensor.stride()), dtype=copy.dtype, device=copy.device
            )
            copy.copy_(tensor)
        out[name] = copy.requires_grad_()
    return out


def on(device, options):
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def run(function, inputs, options, grad_out=None, grad_lse=None):
    """(out, lse, gradients by name): through out, lse or both."""
    out, lse = function(**inputs, **options)
    wanted = {n: x for n, x in inputs.items() if x.requires_grad}
    given = [
        (y, g.to(y.device, y.dtype)) for y, g in ((out, grad_out), (lse, grad_lse)) if g is not None
    ]
    if not given:
        return out, lse, {}
    grads = torch.autograd.grad(
        [y for y, _ in given], list(wanted.values()), [g for _, g in given], allow_unused=True
    )
    zeros = [
        torch.zeros_like(x) if g is None else g for g, x in zip(grads, wanted.values(), strict=True)
    ]
    return out.detach(), lse.detach(), dict(zip(wanted, zeros, strict=True))


def assert_lse(ours, plain, expected):
    """By the error rule; infinities must be the same."""
    infinite = expected == -math.inf
    assert torch.equal(ours == -math.inf, infinite), "lse is -inf elsewhere than it should be"
    clean = [x.masked_fill(infinite, 0) if x is not None else None for x in (ours, plain, expected)]
    assert_close_to_fp64(*clean)


def assert_attention(function, tensors, options, gradient="out", device="cpu", plain=True):
    """Forward and all gradients of `function` against the reference, by the error rule."""
    dtype = tensors["query"].dtype
    ours = leaves(tensors, device)
    exact = leaves(tensors, dtype=torch.float64)
    shape = (*tensors["query"].shape[:3], tensors["value"].shape[3])
    grad_out = torch.randn(shape).to(dtype) if gradient != "lse" else None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    grad_lse = torch.randn(shape[:3], dtype=wide) if gradient != "out" else None
    grads = (grad_out, grad_lse)
    out, lse, found = run(function, ours, on(device, options), *grads)
    expected_out, expected_lse, expected = run(reference.attention, exact, options, *grads)
    plain_out, plain_lse, composed = None, None, {}
    if plain:
        same = leaves(tensors)
        plain_out, plain_lse, composed = run(reference.plain, same, options, *grads)
    assert out.dtype == dtype and lse.dtype == wide
    assert_close_to_fp64(out.cpu(), plain_out, expected_out)
    assert_lse(lse.cpu(), plain_lse, expected_lse)
    terms, part = reference.gradient_terms(*grads, tensors, options)
    for name, gradient_of in found.items():
        assert gradient_of.dtype == tensors[name].dtype, name
        assert gradient_of.isfinite().all(), name
        try:
            assert_close_to_fp64(
                gradient_of.cpu(),
                composed.get(name),
                expected[name],
                gradient=True,
                terms=terms.get(name, 0.0),
                part=part,
                term_dtype=dtype,
            )
        except AssertionError as error:
            raise AssertionError(f"gradient of {name}: {error}") from error
