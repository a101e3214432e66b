"""Reading JSON of others: what is not there or of another kind is an error with its path."""

import re

import torch

# Half a step beyond float32's greatest number, whose shortest decimals lie beyond it too: what is
# less rounds to it.
FLOAT32_END = 3.4028235677973366e38


class Reader:
    """Walks a parsed file; what is not there or of another kind is an error with its path."""

    def __init__(self, value, path):
        self.value, self.path = value, path

    def fail(self, what):
        raise ValueError(f"not a model of XGBoost: {self.path} {what}")

    def __getitem__(self, key):
        if not isinstance(self.value, dict) or key not in self.value:
            self.fail(f"has no {key!r}")
        return Reader(self.value[key], f"{self.path}.{key}")

    def items(self):
        if not isinstance(self.value, list):
            self.fail("must be a list")
        return [Reader(v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def text(self):
        if not isinstance(self.value, str):
            self.fail("must be a string")
        return self.value

    def whole(self, low=0, high=2**31 - 1):
        """An integer, or a string of one."""
        value = self.value
        if isinstance(value, str) and re.fullmatch("-?[0-9]{1,11}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(f"must be an integer in [{low}, {high}], got {str(value)[:40]!r}")
        return value

    def numbers(self, dtype, count, low=None):
        """A list of `count` finite numbers as a tensor."""
        values = self.value
        if not isinstance(values, list) or len(values) != count:
            self.fail(f"must be a list of {count} numbers")
        for i, v in enumerate(values):
            if not isinstance(v, (int, float)) or not abs(v) < FLOAT32_END:
                self.fail(f"must hold finite numbers, [{i}] is {str(v)[:40]!r}")
            if not dtype.is_floating_point and (v != int(v) or not -(2**31) <= v < 2**31):
                self.fail(f"must hold integers, [{i}] is {str(v)[:40]!r}")
            if low is not None and v < low:
                self.fail(f"must not be less than {low}, [{i}] is {v}")
        return torch.tensor(values, dtype=torch.float64).to(dtype)


def read_floats(reader, counts):
    """Finite numbers in a string: one, or since 3.1 a list; there must be one of `counts`."""
    try:
        values = [float(v) for v in reader.text().strip("[]").split(",")]
    except ValueError:
        reader.fail("must be a number or a list of numbers")
    if len(values) not in counts:
        reader.fail(f"must hold {counts[-1]} numbers, got {len(values)}")
    found = torch.tensor(values, dtype=torch.float64)
    if not found.isfinite().all():
        reader.fail("must be finite")
    return found
