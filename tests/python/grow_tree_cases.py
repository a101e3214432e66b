"""Tables that grow_tree is called with, for tests that compare machines; run as a program, it saves
the CPU's trees to the file that it is given."""

import sys

import torch

import tilewright  # noqa: F401  the operators

OUTPUTS = ("feature", "code", "default_left", "weight", "gain", "cover", "leaf")


def table(rows, features, max_bin=255, missing=0.1, dtype=torch.float32, seed=0):
    """codes, bins, gradients, hessians: of a regression; some rows weigh nothing."""
    g = torch.Generator().manual_seed(seed + rows)
    x = torch.randn(rows, features, generator=g)
    signal = torch.zeros(rows)
    for f in range(features):
        signal += torch.sin((f + 1) * x[:, f]) / (f + 1)
    gradients = signal + 0.3 * torch.randn(rows, generator=g)
    hessians = torch.rand(rows, generator=g) * (torch.rand(rows, generator=g) < 0.9)
    x[torch.rand(x.shape, generator=g) < missing] = float("nan")
    cuts, count = feature_bins(x, max_bin)
    codes = torch.full(x.shape, 255 if max_bin <= 255 else max_bin)
    for f in range(features):
        of = torch.searchsorted(cuts[f], x[:, f].contiguous(), right=True)
        codes[:, f] = torch.where(x[:, f].isnan(), codes[:, f], of)
    codes = codes.to(torch.uint8 if max_bin <= 255 else torch.int16)
    return codes, count + 1, gradients.to(dtype), hessians.to(dtype)


def feature_bins(x, max_bin):
    """Plain quantiles, so that the operators on trial do not make their own input."""
    cuts, count = [], []
    for column in x.T:
        there = column[~column.isnan()]
        if there.numel() == 0:
            cuts.append(there)
        else:
            of = torch.linspace(0, 1, max_bin + 1)[1:-1]
            cuts.append(torch.quantile(there[:5000].sort().values, of).unique())
        count.append(cuts[-1].numel())
    return cuts, torch.tensor(count, dtype=torch.int32)


def cases():
    """{name: (positional arguments, keyword arguments)}, on the CPU."""
    found = {
        "few rows": (table(1000, 5), {}),
        "float64": (table(777, 3, dtype=torch.float64), {"max_depth": 3}),
        "nothing missing": (table(515, 4, missing=0.0), {"max_depth": 4}),
        "narrow bins": (table(1300, 9, max_bin=16), {"max_depth": 7}),
        "wide codes": (table(900, 6, max_bin=300), {"num_codes": 301, "max_depth": 4}),
        "codes beyond shared memory": (
            table(900, 3, max_bin=3500),
            {"num_codes": 3501, "max_depth": 3},
        ),
        "many rows": (table(33001, 3, max_bin=40), {"max_depth": 4}),
        "many rows, wide codes": (
            table(32771, 2, max_bin=260),
            {"num_codes": 261, "max_depth": 2, "reg_alpha": 1.0},
        ),
        "depth of single rows": (
            table(150, 3, max_bin=60),
            {"max_depth": 8, "min_child_weight": 0.0},
        ),
        "rules": (
            table(1200, 4),
            {"reg_lambda": 0.5, "reg_alpha": 2.0, "gamma": 1.5, "min_child_weight": 7.0},
        ),
        "largest step": (table(1200, 4), {"max_delta_step": 0.2, "reg_lambda": 0.0}),
        "one split": (table(33, 2), {"max_depth": 1}),
        "one row": (table(1, 2), {"max_depth": 2}),
        "no row": (table(0, 2), {"max_depth": 2}),
        "no feature": (table(40, 0), {"max_depth": 2}),
    }
    signs = torch.tensor([1, -1, 0, 1], dtype=torch.int8)
    found["monotone"] = (table(1500, 4), {"monotone": signs})
    rows = torch.arange(1111) % 3 != 0
    columns = torch.tensor([True, False, False, True])
    found["some rows"] = (table(1111, 4), {"rows": rows})
    found["some rows of many"] = (
        table(40001, 2, max_bin=30),
        {"rows": torch.arange(40001) % 5 != 0, "max_depth": 3},
    )
    found["no row takes part"] = (table(20, 4), {"rows": torch.zeros(20, dtype=torch.bool)})
    found["some columns"] = (table(1111, 4), {"columns": columns, "monotone": signs * ~columns})
    found["no column"] = (table(50, 4), {"columns": torch.zeros(4, dtype=torch.bool)})
    codes, bins, gradients, hessians = table(600, 4)
    codes[:, 1], bins[1] = 0, 1
    codes[:, 2], bins[2] = 255, 1
    found["constant features"] = ((codes, bins, gradients, hessians), {})
    codes, bins, gradients, hessians = table(600, 4)
    codes[:, 3], bins[3] = codes[:, 1], bins[1]
    found["equal features"] = ((codes, bins, gradients, hessians), {})
    codes, bins, gradients, hessians = table(600, 3)
    found["equal rows"] = ((codes, bins, torch.ones_like(gradients), torch.ones_like(hessians)), {})
    found["tiny values"] = ((codes, bins, gradients * 1e-30, hessians * 1e-20), {})
    spread = 10 ** (-12 * torch.rand(hessians.shape, generator=torch.Generator().manual_seed(1)))
    loose = {"min_child_weight": 0.0, "reg_lambda": 0.0}
    found["hessians of many magnitudes"] = (
        (codes, bins, gradients * spread.sqrt(), hessians * spread),
        loose,
    )
    codes, bins, gradients, hessians = table(33002, 5, max_bin=50)
    spread = 10 ** (-4 * torch.rand(hessians.shape, generator=torch.Generator().manual_seed(1)))
    found["many rows, hessians of many magnitudes"] = (
        (codes, bins, gradients * spread, hessians * spread),
        {**loose, "max_depth": 4},
    )
    # Nodes enough for threads that make the last level's histograms each by themselves.
    found["many rows, deep"] = (
        table(33003, 2, max_bin=40),
        {"max_depth": 5, "min_child_weight": 0.0},
    )
    codes, bins, gradients, hessians = table(600, 3)
    found["strides"] = ((codes.t().contiguous().t(), bins, gradients, hessians), {})
    return found


def grow(arguments, options, device="cpu"):
    there = [a.to(device) for a in arguments]
    options = {k: v.to(device) if torch.is_tensor(v) else v for k, v in options.items()}
    return torch.ops.tilewright.grow_tree(*there, **options)


if __name__ == "__main__":
    torch.save({name: grow(*case) for name, case in cases().items()}, sys.argv[1])
