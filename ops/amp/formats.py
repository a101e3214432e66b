"""Floating formats by their bits: what is the largest number, the smallest, the step."""

import dataclasses
import math

import torch


@dataclasses.dataclass(frozen=True)
class FloatFormat:
    """A binary floating format: a sign, an exponent with a bias, a mantissa with a leading bit that
    is not stored.

    Attributes:
        name: as torch spells it, where torch has it.
        exponent_bits, mantissa_bits: stored bits; one more is the sign.
        infinities: whether the largest exponent is kept for infinities and NaN. float8_e4m3fn has
            no infinities, and NaN where all bits are set.
        storage_bits: of memory; tf32 is stored as float32.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    infinities: bool = True
    storage_bits: int = 0

    @property
    def bits(self) -> int:
        """Of sign, exponent and mantissa."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is added to an exponent when it is stored."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def max_exponent(self) -> int:
        """Of the largest number, as a power of 2."""
        return 2**self.exponent_bits - 1 - self.bias - (1 if self.infinities else 0)

    @property
    def min_exponent(self) -> int:
        """Of the smallest normal number."""
        return 1 - self.bias

    @property
    def max(self) -> float:
        """The largest number."""
        # Without infinities only the mantissa of ones is NaN.
        last = 2.0**-self.mantissa_bits * (1 if self.infinities else 2)
        return math.ldexp(2.0 - last, self.max_exponent)

    @property
    def smallest_normal(self) -> float:
        """The smallest number with all its digits."""
        return math.ldexp(1.0, self.min_exponent)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number: what is less than half of it rounds to 0."""
        return math.ldexp(1.0, self.min_exponent - self.mantissa_bits)

    @property
    def eps(self) -> float:
        """From 1 to the next number."""
        return 2.0**-self.mantissa_bits

    def bits_of(self, value: float) -> str:
        """The number nearest to `value` (ties to even) as ``sign exponent mantissa``, in bits.

        >>> format_of("bfloat16").bits_of(-0.15625)
        '1 01111100 0100000'
        """
        sign = "1" if math.copysign(1.0, value) < 0 else "0"
        ones = 2**self.exponent_bits - 1
        if math.isnan(value):
            exponent, mantissa = ones, 2**self.mantissa_bits - 1
        else:
            exponent, mantissa = self._rounded(abs(value))
        return f"{sign} {exponent:0{self.exponent_bits}b} {mantissa:0{self.mantissa_bits}b}"

    def _rounded(self, value: float) -> tuple[int, int]:
        """The stored exponent and mantissa of a number that is not negative."""
        if value == 0:
            return 0, 0
        beyond = (2**self.exponent_bits - 1, 0 if self.infinities else 2**self.mantissa_bits - 1)
        if math.isinf(value):
            return beyond
        exponent = max(math.frexp(value)[1] - 1, self.min_exponent)
        # In units of the last place: an int, rounded to even by Python. Exact, but for numbers of
        # float64 so small that they have no such unit.
        steps = round(math.ldexp(value, self.mantissa_bits - exponent))
        stored = exponent + self.bias - 1  # a leading bit adds the missing 1
        place = (stored << self.mantissa_bits) + steps
        if place > self._largest_place():
            return beyond
        return place >> self.mantissa_bits, place % 2**self.mantissa_bits

    def _largest_place(self) -> int:
        """Of all numbers in order, the last finite one."""
        if self.infinities:
            return ((2**self.exponent_bits - 1) << self.mantissa_bits) - 1
        return 2 ** (self.exponent_bits + self.mantissa_bits) - 2


FORMATS = {
    one.name: one
    for one in (
        FloatFormat("float64", 11, 52, storage_bits=64),
        FloatFormat("float32", 8, 23, storage_bits=32),
        FloatFormat("tf32", 8, 10, storage_bits=32),
        FloatFormat("bfloat16", 8, 7, storage_bits=16),
        FloatFormat("float16", 5, 10, storage_bits=16),
        FloatFormat("float8_e4m3fn", 4, 3, infinities=False, storage_bits=8),
        FloatFormat("float8_e5m2", 5, 2, storage_bits=8),
    )
}
_SHORT = {
    "fp64": "float64",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
}


def format_of(dtype: torch.dtype | str) -> FloatFormat:
    """The format of a torch dtype, or by its name: ``torch.float16``, ``"float16"``, ``"fp16"``,
    ``"tf32"``, ``"e4m3"``.

    Raises:
        ValueError: where there is none of that name.
    """
    name = str(dtype).removeprefix("torch.")
    found = FORMATS.get(_SHORT.get(name, name))
    if found is None:
        known = ", ".join([*FORMATS, *_SHORT])
        raise ValueError(f"expected a floating format, one of {known}; got {name!r}")
    return found
