"""A representative launch of every kernel, for the memory report of benchmarks/cuda_static.py.

One function per operator, registered with the name that its rows get; small, since the emulated
device runs them, but with more than one block, tile and warp. Needs TILEWRIGHT_DEVICE=simt.
"""

import torch

import tilewright

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAUNCHES = {}


def representative(name):
    def register(function):
        LAUNCHES[name] = function
        return function

    return register


def random_boxes(count, size, generator):
    """(count, 4), sides up to half of `size`, within it."""
    centre, side = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    first = centre * size * 0.75
    return torch.cat([first, first + side * size * 0.25 + 1], 1)


def random_rois(count, images, size, generator):
    images = torch.arange(count, dtype=torch.float64)[:, None] % images
    return torch.cat([images, random_boxes(count, size, generator)], 1)


def _forward_backward(generator, layout, pools):
    for dtype in DTYPES:
        x = torch.randn(2, 40, 30, 46, generator=generator, dtype=torch.float64)
        x = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        rois = random_rois(24, 2, 100, generator).to(dtype)
        pooled = pools(x, rois)
        torch.autograd.backward(pooled, [torch.ones_like(p) for p in pooled])  # in their layout


def _pools(x, rois):
    """One of each; the position-sensitive ones have a channel per bin of 4 x 5."""
    ops = torch.ops.tilewright
    angle = torch.linspace(-3, 3, len(rois), dtype=rois.dtype)[:, None]
    centre, size = (rois[:, 1:3] + rois[:, 3:]) / 2, rois[:, 3:] - rois[:, 1:3]
    turned = torch.cat([rois[:, :1], centre, size, angle], 1)
    return (
        ops.roi_align(x, rois, 0.25, 7, 7, 2),
        ops.roi_align_rotated(x, turned, 0.25, 7, 7, 2),
        ops.roi_pool(x, rois, 0.25, 7, 7)[0],
        ops.ps_roi_align(x, rois, 0.25, 4, 5, 2)[0],
        ops.ps_roi_pool(x, rois, 0.25, 4, 5)[0],
    )


@representative("contiguous")
def contiguous(generator):
    _forward_backward(generator, torch.contiguous_format, _pools)


@representative("channels last")
def channels_last(generator):
    _forward_backward(generator, torch.channels_last, _pools)


@representative("deformable convolution")
def deformable_convolution(generator):
    """Channels that travel in packs, and such that do not; the input's gradient both ways."""
    for dtype in DTYPES:
        for channels, layout in ((32, torch.channels_last), (19, torch.contiguous_format)):
            sizes = [(2, channels, 12, 11), (70, channels, 3, 3), (2, 18, 12, 11), (2, 9, 12, 11)]
            x, weight, offset, mask = (
                torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
                for size in sizes
            )
            x = x.contiguous(memory_format=layout)
            given = [t.requires_grad_() for t in (x, weight, offset, mask)]
            for fixed in (False, True):
                torch.use_deterministic_algorithms(fixed)
                out = torch.ops.tilewright.deform_conv2d(*given, padding=[1, 1])
                out.backward(torch.ones_like(out))
            torch.use_deterministic_algorithms(False)


@representative("deformable pooling")
def deformable_pooling(generator):
    """The RoIAlign form and R-FCN's, both layouts; the input's gradient both ways."""
    rois = random_rois(6, 2, 40, generator).float()
    for dtype in DTYPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(2, 36, 12, 11, generator=generator, dtype=torch.float64).to(dtype)
            x = x.contiguous(memory_format=layout).requires_grad_()
            moves = torch.randn(6, 2, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
            moves.requires_grad_()
            for fixed in (False, True):
                torch.use_deterministic_algorithms(fixed)
                ops = torch.ops.tilewright
                aligned = ops.deform_roi_pool(x, rois, moves, 0.25, 3, 3, 2)
                sensitive = ops.deform_ps_roi_pool(x, rois, moves, 0.25, 4, 3, 3, 3)
                (aligned.sum() + sensitive.sum()).backward()
            torch.use_deterministic_algorithms(False)


@representative("deformable aggregation")
def deformable_aggregation(generator):
    """Groups of 16 channels, and of 5; the input's gradient both ways."""
    for dtype in DTYPES:
        for channels, groups in ((32, 2), (15, 3)):
            last = (channels, groups * 18, groups * 9)
            given = [
                torch.randn(2, 9, 11, size, generator=generator, dtype=torch.float64)
                .to(dtype)
                .requires_grad_()
                for size in last
            ]
            for fixed in (False, True):
                torch.use_deterministic_algorithms(fixed)
                out = torch.ops.tilewright.deform_aggregate(*given, 3, 1, 1, 1, groups)
                out.backward(torch.ones_like(out))
            torch.use_deterministic_algorithms(False)


@representative("boxes")
def boxes(generator):
    for dtype in (torch.float64, torch.float32):
        candidates = random_boxes(400, 200, generator).to(dtype)
        scores = torch.rand(400, generator=generator, dtype=torch.float64).to(dtype)
        classes = torch.randint(0, 5, (400,), generator=generator)
        tilewright.batched_nms(candidates, scores, classes, 0.5)
        for method in ("gaussian", "linear", "hard"):
            places, values = candidates.clone().requires_grad_(), scores.clone().requires_grad_()
            tilewright.soft_nms(places, values, method=method)[1].sum().backward()
        middle, side = (
            (candidates[:, :2] + candidates[:, 2:]) / 2,
            candidates[:, 2:] - candidates[:, :2],
        )
        turned = torch.cat([middle, side, scores[:, None] * 6], 1)
        tilewright.batched_nms_rotated(turned, scores, classes, 0.5)


def _attend(generator, dtype, dim, query_len=160, **options):
    """Two heads of queries on one of keys, causal, forward and backward."""
    q, k, v = (
        torch.randn(1, heads, length, dim, generator=generator).to(dtype).requires_grad_()
        for heads, length in ((2, query_len), (1, 160), (1, 160))
    )
    torch.ops.tilewright.flash_attention(q, k, v, causal=True, **options)[0].sum().backward()


@representative("contrastive")
def contrastive(generator):
    """All forms of sums, and depths for each kernel: columns of 64, 128, 256 and beyond."""
    for dtype in DTYPES:
        for depth in (40, 100, 200, 300):
            if dtype.itemsize > 2 and depth != 100:
                continue
            rows = (
                torch.randn(size, depth, generator=generator, dtype=torch.float64).to(dtype)
                for size in (150, 200)
            )
            query, key = (r.requires_grad_() for r in rows)
            exclude = torch.arange(150)
            for sums in (
                tilewright.contrastive_lse(query, key, exclude, scale=0.1),
                torch.ops.tilewright._contrastive_lse(query, None, None, 0.1, False, 2)[0],
            ):
                sums.sum().backward()


@representative("contrastive, TF32")
def contrastive_tf32(generator):
    query, key = (torch.randn(n, 100, generator=generator).requires_grad_() for n in (150, 200))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        tilewright.contrastive_lse(query, key, scale=0.1).sum().backward()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@representative("attention")
def attention(generator):
    for dtype in DTYPES:
        for dim in (64, 128, 256) if dtype.itemsize == 2 else (64,):
            _attend(generator, dtype, dim)


@representative("attention, TF32")
def attention_tf32(generator):
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        _attend(generator, torch.float32, 64)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


@representative("attention, other GPUs")
def attention_tiles(generator):
    """Tiles that the table has for GPUs beside the first: 9.0 at 128 columns, 8.6 at 256."""
    for dtype in (torch.bfloat16, torch.float16):
        for capability, dim in ((90, 128), (86, 256)):
            torch.ops.tilewright_simt.set_capability(capability)
            try:
                _attend(generator, dtype, dim)
            finally:
                torch.ops.tilewright_simt.set_capability(80)


@representative("attention, softcap")
def attention_softcap(generator):
    for dtype in (torch.bfloat16, torch.float16):
        for dim in (64, 128, 256):
            _attend(generator, dtype, dim, softcap=30.0)


@representative("attention, bias")
def attention_bias(generator):
    for dtype in DTYPES:
        bias = torch.randn(160, 160, generator=generator).to(dtype).requires_grad_()
        _attend(generator, dtype, 64, bias=bias)


@representative("decoding")
def decoding(generator):
    ops = torch.ops.tilewright
    for dtype in DTYPES:
        caches = [torch.randn(40, 16, 1, 64, generator=generator).to(dtype) for _ in "kv"]
        q, k, v = (
            torch.randn(1, heads, 1, 64, generator=generator).to(dtype) for heads in (4, 1, 1)
        )
        table = torch.randperm(40, generator=generator).to(torch.int32)[None]
        lengths = torch.tensor([600], dtype=torch.int32)
        ops.append_kv_(*caches, k, v, table, lengths)
        ops.flash_attention_paged(q, *caches, table, lengths + 1)


@representative("trees")
def trees(generator):
    """Few rows (pairs) and many (words), narrow codes and wide ones."""
    ops = torch.ops.tilewright
    for dtype in DTYPES:
        x = torch.randn(300, 12, generator=generator, dtype=torch.float64).to(dtype)
        for max_bin in (255, 300):
            cuts, count = ops.feature_cuts(x, None, max_bin)
            codes = ops.quantize_features(x, cuts, count)
        value, tree_ptr = torch.ones(3), torch.tensor([0, 3])
        ints = [torch.tensor(t, dtype=torch.int32) for t in ([0, 0, 0], [1, -1, -1], [2, -1, -1])]
        feature, left, right = ints
        ops.predict_trees(
            x, feature, value * 0, left, right, value > 0, value, tree_ptr, feature[:1], 1
        )
    for rows in (2000, 32770):
        for codes in (256, 300):
            table = torch.randint(0, codes, (rows, 4), generator=generator)
            table = table.to(torch.uint8 if codes == 256 else torch.int16)
            gradients = torch.randn(rows, generator=generator, dtype=torch.float64)
            if codes == 256:
                gradients = gradients.float()
            bins = torch.full((4,), codes - 1, dtype=torch.int32)
            hessians = torch.ones_like(gradients)
            ops.grow_tree(table, bins, gradients, hessians, num_codes=codes, max_depth=2)
        ops._draw_row_mask(table, 0.5, 0, 0)


@representative("gradients")
def gradients(generator):
    """Several of each dtype, aligned and not; with and without the norm."""
    ops = torch.ops.tilewright
    grads = [
        torch.randn(size + 1, generator=generator).to(dtype)[at : size + at]
        for dtype in DTYPES
        for size, at in ((40000, 0), (300, 1))
    ]
    found, inv_scale = torch.zeros(1), torch.tensor(0.5)
    ops.unscale_(grads, found, inv_scale)
    ops.unscale_and_norm_(grads, found, inv_scale)
    ops.unscale_and_norm_(grads[2:4], found, inv_scale)
    ops.gradient_exponents(grads)
    ops.update_scale_(torch.ones(1), torch.zeros(1, dtype=torch.int32), found, 2.0, 0.5, 10)
    wide = torch.randn(3000, generator=generator)
    ops.stochastic_round_([wide.bfloat16()], [wide], torch.tensor([1, 2]))


@representative("nade")
def nade(generator):
    """Two warps of units and a part of one: likelihoods, gradients, samples."""
    for dtype in DTYPES:
        x = (torch.rand(9, 20, generator=generator) < 0.5).to(dtype)
        w = [
            torch.randn(size, generator=generator).to(dtype).requires_grad_()
            for size in ((70, 20), (70,), (20, 70), (20,))
        ]
        tilewright.nade(x, *w).sum().backward()
        tilewright.nade_sample(4, *w, given=x[:4, :5], generator=generator)


# Of tilewright_simt::memory_report.
FIELDS = (
    "block_threads",
    "shared_bytes",
    "global_requests",
    "sectors",
    "fewest_sectors",
    "shared_requests",
    "wavefronts",
    "fewest_wavefronts",
)


def trace():
    """{full name of the kernel: {name of the launch: {field: figure}}}."""
    device = torch.ops.tilewright_simt
    checked = device.is_checked()
    report = {}
    for name, function in LAUNCHES.items():
        device.set_checked(True)
        device.set_tracing(True)
        try:
            function(torch.Generator().manual_seed(0))
            figures = device.memory_report()
        finally:
            device.set_tracing(False)
            device.set_checked(checked)
        for kernel, values in figures.items():
            row = dict(zip(FIELDS, values, strict=True))
            row["sectors_per_request"] = _ratio(row["sectors"], row["global_requests"])
            row["fewest_per_request"] = _ratio(row["fewest_sectors"], row["global_requests"])
            row["wavefronts_over_fewest"] = _ratio(row["wavefronts"], row["fewest_wavefronts"])
            report.setdefault(kernel, {})[name] = row
    return report


def _ratio(value, by):
    return round(value / by, 3) if by else 0.0
