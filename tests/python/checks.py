"""The checks that every operator passes, written once: error bounds, exports, scripts."""

import io

import torch

EPS = {
    torch.float64: 2.0**-52,
    torch.float32: 2.0**-23,
    torch.bfloat16: 2.0**-7,
    torch.float16: 2.0**-10,
}


def assert_close_to_fp64(
    ours, plain, reference, gradient=False, terms=0.0, part=0.0, term_dtype=None
):
    """The project's error rule (design, numerics).

    Args:
        ours: the operator's result.
        plain: the plain PyTorch composition in the same dtype, or None where there is none.
        reference: the fp64 result.
        gradient: gradients may err three times as much as the composition, results twice.
        terms: the largest term of the sums that the result is made of. Where they cancel to less
            than a hundredth of it, it stands for the largest value of the reference, and its dtype
            for that of the result.
        part: of `terms`, by which the result may err in any case.
        term_dtype: of the terms, where it is not the result's.
    """
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    if reference.numel() == 0:
        return
    largest, digits = reference.abs().max().item(), EPS[ours.dtype]
    if largest < 0.01 * terms:
        largest, digits = terms, max(digits, EPS[term_dtype or ours.dtype])
    error = (ours.double() - reference).abs().max().item()
    if ours.dtype == torch.float64:
        bound = 1e-12 * largest
    else:
        bound = part * terms + 2 * digits * largest
        if plain is not None:
            factor = 3 if gradient else 2
            bound += factor * (plain.double() - reference).abs().max().item()
    assert error <= bound, f"error {error:.3g} > {bound:.3g} ({ours.dtype})"


def assert_near(actual, expected, dtype, scale=1.0):
    """Of a box operator; 16-bit inputs are computed in float32, so they have its tolerance."""
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual.double().cpu(), expected, rtol=limit, atol=limit * scale)


def script_round_trip(function, *args):
    """Scripts a function, writes and reads it as a file would be, and runs it."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(function), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)(*args)


class _Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def export_and_run(function, *args, dynamic_shapes=None, other_args=None):
    """torch.export of a function; runs it on args, or on other sizes."""
    program = torch.export.export(_Module(function), args, dynamic_shapes=dynamic_shapes)
    return program.module()(*(other_args or args))


def compile_and_run(function, *args, fullgraph=True):
    return torch.compile(function, fullgraph=fullgraph, backend="aot_eager")(*args)


def opcheck(op, args, kwargs=None):
    """torch.library.opcheck, all of its tests."""
    torch.library.opcheck(op, args, kwargs or {})


def threads(count, function):
    """Runs a function with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return function()
    finally:
        torch.set_num_threads(before)


def assert_same_bits(run, counts, before_each=lambda: None):
    """Under deterministic algorithms `run`, a function to tensors, gives the same bits with one
    thread and with each of `counts`."""
    torch.use_deterministic_algorithms(True)
    try:
        one = threads(1, run)
        for count in counts:
            before_each()
            for first, other in zip(one, threads(count, run), strict=True):
                assert torch.equal(first, other)
    finally:
        torch.use_deterministic_algorithms(False)


class NoSynchronisation(torch.profiler.profile):
    """Fails where an operator inside asks the device for data."""

    def __init__(self, **options):
        super().__init__(
            activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True, **options
        )

    def __exit__(self, *error):
        super().__exit__(*error)
        called = {event.key for event in self.key_averages()}
        assert any(name.startswith("tilewright::") for name in called)
        asking = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}
        assert not called & asking, called & asking
