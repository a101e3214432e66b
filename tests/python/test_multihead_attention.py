"""MultiheadAttention: torch's results, state dicts, scripts; and the C++ module the same."""

import itertools

import pytest
import torch
from checks import compile_and_run, export_and_run
from conftest import MACHINE
from torch.nn import MultiheadAttention as Theirs

import tilewright
from tilewright import MultiheadAttention
from tilewright._C import MultiheadAttention as InCpp

kernels = pytest.mark.kernels
N, L, S, E, H = 3, 9, 13, 24, 4

SETTINGS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True, "batch_first": True},
    "all": {"add_bias_kv": True, "add_zero_attn": True},
    "kdim": {"kdim": 10, "vdim": 7},
    "kdim, no bias": {"kdim": 10, "bias": False, "batch_first": True},
}


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module


def three(setting, device, **options):
    """torch's module, ours and the C++ one, with the same weights."""
    theirs = randomise(Theirs(E, H, **SETTINGS[setting], **options).double())
    ours = MultiheadAttention(E, H, **SETTINGS[setting], **options).double().to(device)
    cpp = InCpp(E, H, **SETTINGS[setting], **options).to(torch.float64).to(device)
    ours.load_state_dict(theirs.state_dict())
    cpp.load_state_dict(theirs.state_dict())
    return theirs, ours, cpp


def inputs(setting, batched=True):
    options = SETTINGS[setting]
    shapes = [(L, N, E), (S, N, options.get("kdim", E)), (S, N, options.get("vdim", E))]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if not batched:
        return [x[:, 0] for x in tensors]
    return [x.transpose(0, 1) if options.get("batch_first") else x for x in tensors]


def masks(kind, batch=N):
    """(key_padding_mask, attn_mask): no query without a key, where torch answers NaN."""
    padding = torch.rand(batch, S) < 0.4
    padding[:, 0] = False
    pairs, each = torch.rand(L, S) < 0.4, torch.rand(batch * H, L, S) < 0.4
    pairs[:, 0] = each[..., 0] = False
    added = torch.randn(batch, S).double(), torch.randn(L, S).double()
    return {
        "none": (None, None),
        "padding": (padding, None),
        "pairs": (None, pairs),
        "each": (None, each),
        "both": (padding, pairs),
        "floating": added,
        "floating each": (None, torch.randn(batch * H, L, S).double()),
        "mixed": (padding, added[1]),
    }[kind]


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        if b is None:
            assert a is None
        else:
            torch.testing.assert_close(a.cpu(), b, rtol=1e-10, atol=1e-12)


def gradients(module, out, tensors):
    wanted = [*tensors, *(p for _, p in module.named_parameters())]
    return torch.autograd.grad(out.square().sum(), wanted)


def order(module):
    return [name for name, _ in module.named_parameters()]


@kernels
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("kind", ["none", "padding", "pairs", "each", "both", "floating", "mixed"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_as_torch(device, setting, kind):
    theirs, ours, cpp = three(setting, device)
    given = [x.requires_grad_() for x in inputs(setting)]
    padding, pairs = masks(kind)
    moved = [x.detach().to(device).requires_grad_() for x in given]
    moved_masks = [x if x is None else x.to(device) for x in (padding, pairs)]
    for weights, mean in ((False, True), (True, True), (True, False)):
        expected = theirs(*given, padding, weights, pairs, mean)
        found = gradients(theirs, expected[0], given)
        for module in (ours, cpp):
            result = module(*moved, moved_masks[0], weights, moved_masks[1], mean)
            same(result, expected)
            assert order(module) == order(theirs)
            same(gradients(module, result[0], moved), found)


@kernels
@pytest.mark.parametrize("setting", ["plain", "bias_kv"])
def test_self_attention_and_one_sequence(device, setting):
    theirs, ours, cpp = three(setting, device)
    x = torch.randn(L, N, E, dtype=torch.float64)
    one = inputs("plain", batched=False)
    hidden = torch.arange(S) > 5
    for module in (ours, cpp):
        same(module(*[x.to(device)] * 3, need_weights=False), theirs(x, x, x, need_weights=False))
        for weights in (True, False):
            result = module(
                *(y.to(device) for y in one),
                key_padding_mask=hidden.to(device),
                need_weights=weights,
            )
            same(result, theirs(*one, key_padding_mask=hidden, need_weights=weights))


@kernels
def test_causal(device):
    theirs, ours, cpp = three("all", device)
    theirs_plain, ours_plain, cpp_plain = three("plain", device)
    x = torch.randn(L, N, E, dtype=torch.float64)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(L).double()
    padding = torch.zeros(N, L, dtype=torch.bool)
    padding[1, 4:] = True
    moved, hidden = x.to(device), padding.to(device)
    for weights in (True, False):
        # torch's is_causal without weights hides the added keys too; with the mask it does not.
        expected = theirs(x, x, x, need_weights=weights, attn_mask=mask)
        plain = theirs_plain(x, x, x, padding.double() * -1e9, weights, mask, is_causal=True)
        for module in (ours, cpp):
            same(module(moved, moved, moved, need_weights=weights, is_causal=True), expected)
        for module in (ours_plain, cpp_plain):
            same(module(moved, moved, moved, hidden, weights, None, is_causal=True), plain)
        # A mask that holds more than the flag does counts too.
        bias = torch.randn(L, L, dtype=torch.float64)
        biased = theirs_plain(x, x, x, None, weights, mask + bias)
        for module in (ours_plain, cpp_plain):
            given = {"need_weights": weights, "attn_mask": bias.to(device), "is_causal": True}
            same(module(moved, moved, moved, **given), biased)


@kernels
def test_a_query_without_keys(device):
    _, ours, cpp = three("plain", device)
    given = [x.to(device) for x in inputs("plain")]
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[1] = True
    for module, weights in itertools.product((ours, cpp), (True, False)):
        leaf = given[0].clone().requires_grad_()
        out, _ = module(leaf, *given[1:], padding.to(device), weights)
        bias = dict(module.named_parameters())["out_proj.bias"]
        torch.testing.assert_close(out[:, 1], bias.expand(L, E))
        (grad,) = torch.autograd.grad(out.sum(), leaf)
        assert grad.isfinite().all() and not grad[:, 1].any()


def test_state_dicts_go_both_ways(tmp_path):
    for setting, options in SETTINGS.items():
        theirs, ours, cpp = three(setting, "cpu")
        Theirs(E, H, **options).load_state_dict(ours.state_dict())
        assert isinstance(ours, Theirs)
        assert list(cpp.state_dict()) == list(theirs.state_dict()) == list(ours.state_dict())
        path = str(tmp_path / "weights.pt")
        cpp.save(path)
        again = InCpp(E, H, **options).load(path)
        for name, value in again.state_dict().items():
            torch.testing.assert_close(value.double(), theirs.state_dict()[name])


@kernels
def test_dropout_in_training_only(device):
    _, ours, cpp = three("plain", device, dropout=0.5)
    given = [x.to(device) for x in inputs("plain")]
    for module, weights in itertools.product((ours, cpp), (True, False)):
        module.train()
        first, second = (module(*given, need_weights=weights)[0] for _ in range(2))
        assert not torch.equal(first, second)
        torch.manual_seed(5)
        third = module(*given, need_weights=weights)[0]
        torch.manual_seed(5)
        assert torch.equal(module(*given, need_weights=weights)[0], third)
        module.eval()
        first, second = (module(*given, need_weights=weights)[0] for _ in range(2))
        assert torch.equal(first, second)


@kernels
@pytest.mark.parametrize("setting", ["plain", "all", "kdim, no bias"])
def test_script_export_compile(device, setting, tmp_path):
    _, ours, _ = three(setting, device)
    given = [x.to(device) for x in inputs(setting)]
    padding = masks("padding")[0].to(device)
    torch.jit.script(ours).save(str(tmp_path / "module.pt"))
    scripted = torch.jit.load(str(tmp_path / "module.pt"))
    for weights in (True, False):
        expected = ours(*given, padding, weights)
        same(scripted(*given, padding, weights), [x if x is None else x.cpu() for x in expected])

    def attend(query, key, value, padding):
        return ours(query, key, value, padding, need_weights=False)[0]

    expected = attend(*given, padding)
    torch.testing.assert_close(export_and_run(attend, *given, padding), expected)
    torch.testing.assert_close(compile_and_run(attend, *given, padding), expected)


@kernels
def test_bfloat16_autocast(device):
    theirs, ours, _ = three("batch first", device)
    theirs, ours = theirs.float(), ours.float()
    x = torch.randn(N, L, E)
    expected = theirs(x, x, x, need_weights=False)[0]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = ours(*[x.to(device)] * 3, need_weights=False)[0]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float().cpu(), expected, rtol=5e-2, atol=5e-2)
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())


def test_nothing_as_large_as_the_matrix():
    """With need_weights=False no tensor of L x S elements is made, forward or backward."""
    if MACHINE != "cpu":
        pytest.skip("memory of the CPU kernels")
    module = MultiheadAttention(16, 2, batch_first=True)
    x = torch.randn(1, 4096, 16, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        module(x, x, x, need_weights=False, is_causal=True)[0].sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 4096 * 4096 * 4 / 8


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"key_padding_mask": torch.zeros(N, S + 1).bool()}, r"key_padding_mask must have shape"),
        ({"key_padding_mask": torch.zeros(N, S).long()}, "must be boolean or floating, got"),
        ({"attn_mask": torch.zeros(S, L)}, "attn_mask must have shape"),
        ({"attn_mask": torch.zeros(N, L, S)}, "attn_mask must have shape"),
        ({"key": torch.zeros(S, N, E + 1)}, "key must have batch 3, length 13 and 24 features"),
        ({"value": torch.zeros(S + 1, N, E)}, "value must have batch 3, length 13"),
        ({"value": torch.zeros(S, E)}, "key and value must have"),
        ({"query": torch.zeros(E)}, "query must have 2 or 3 dimensions"),
    ],
)
def test_bad_input(arguments, message):
    given = dict(zip(("query", "key", "value"), inputs("plain"), strict=True)) | arguments
    for module in (MultiheadAttention(E, H), InCpp(E, H)):
        with pytest.raises((ValueError, RuntimeError), match=message):
            module(**given)
    with pytest.raises(RuntimeError, match="embed_dim must be a positive multiple of num_heads"):
        InCpp(10, 3)
    assert tilewright.MultiheadAttention is MultiheadAttention


def test_what_is_no_tensor():
    module = tilewright.MultiheadAttention(E, H)
    x = torch.randn(L, N, E)
    for name, change in {"query": [[1.0]], "key_padding_mask": [True], "attn_mask": 3}.items():
        given = {"query": x, "key": x, "value": x} | {name: change}
        with pytest.raises(
            ValueError, match=f"{name} must be a tensor, got {type(change).__name__}"
        ):
            module(**given)
    with pytest.raises(ValueError, match="embed_dim / num_heads must be at most 256, got 512 / 1"):
        tilewright.MultiheadAttention(512, 1)
