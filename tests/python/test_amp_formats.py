"""Formats by their bits, against torch.finfo and torch's conversions."""

import math
import struct

import pytest
import torch

from tilewright.amp import format_of

TORCHS = ["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("name", TORCHS)
def test_formats_are_those_of_torch(name):
    dtype, found = getattr(torch, name), format_of(getattr(torch, name))
    info = torch.finfo(dtype)
    assert (found.max, found.smallest_normal, found.eps) == (
        info.max,
        info.smallest_normal,
        info.eps,
    )
    assert found.bits == found.storage_bits == info.bits
    least = torch.tensor(found.smallest_subnormal, dtype=torch.float64).to(dtype)
    assert least.double().item() == found.smallest_subnormal
    half = torch.tensor(found.smallest_subnormal / 2, dtype=torch.float64)
    if name != "float64":
        assert half.to(dtype).double().item() == 0


@pytest.mark.parametrize("name", TORCHS)
def test_bits_are_those_of_torch(name):
    dtype, found = getattr(torch, name), format_of(name)
    size = found.storage_bits // 8
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    draw = torch.randn(300, dtype=torch.float64) * torch.exp2(
        torch.randint(-30, 20, (300,)).double()
    )
    special = [0.0, -0.0, 1.0, found.max, found.smallest_normal, found.smallest_subnormal]
    if found.infinities:
        special += [math.inf, -math.inf, found.max * 1.5 if name != "float64" else math.inf]
    for value in [*draw.tolist(), *special]:
        kept = torch.tensor([value], dtype=torch.float64).to(dtype)
        if kept.double().isnan().item():
            continue  # beyond float8_e4m3fn
        number = kept.view(whole).item() & (2**found.bits - 1)
        assert found.bits_of(value).replace(" ", "") == f"{number:0{found.bits}b}", value
    assert "1" in found.bits_of(math.nan).split()[2]


def test_other_formats():
    tf32 = format_of("tf32")
    assert (tf32.bits, tf32.storage_bits, tf32.eps) == (19, 32, 2.0**-10)
    # The nearest number of ten bits, by float32's own.
    word = struct.unpack(">I", struct.pack(">f", 1 / 3))[0]
    assert tf32.bits_of(1 / 3).replace(" ", "") == f"{(word + 0x1000) >> 13:019b}"
    assert format_of("bf16") is format_of(torch.bfloat16)
    with pytest.raises(
        ValueError, match=r"expected a floating format, one of float64, .* got 'int8'"
    ):
        format_of(torch.int8)
