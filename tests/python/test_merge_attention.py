"""merge_attention: attention over parts of the keys put together again, in one process and as a
ring of two."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from checks import (
    assert_close_to_fp64,
    compile_and_run,
    export_and_run,
    opcheck,
    script_round_trip,
)

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def inputs(dtype=torch.float64, device="cpu", q_len=6, k_len=11, heads=4, key_heads=2):
    shapes = [(2, heads, q_len, 8), (2, key_heads, k_len, 8), (2, key_heads, k_len, 5)]
    return [torch.randn(s, device=device).to(dtype).requires_grad_() for s in shapes]


def in_parts(query, key, value, ends, bias):
    """Attention to keys cut at `ends`, merged one after the other."""
    out = lse = None
    begin = 0
    for end in ends:
        part = ops.flash_attention(
            query, key[:, :, begin:end], value[:, :, begin:end], bias[..., begin:end]
        )
        out, lse = part if out is None else tilewright.merge_attention(out, lse, *part)
        begin = end
    return out, lse


@kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ends", [(4, 11), (1, 7, 8, 11), (0, 11)])
def test_parts_are_the_whole(device, dtype, ends):
    """Under a mask that leaves rows without keys in a part, and one row without any."""
    query, key, value = inputs(dtype, device)
    mask = torch.rand(2, 4, 6, 11, device=device) < 0.5
    mask[:, 0, :, :4] = False
    mask[:, 1, :, 4:] = False
    mask[:, :, 3] = False
    wide = [x.detach().double().requires_grad_() for x in (query, key, value)]
    weight = torch.randn(2, 4, 6, 5, device=device, dtype=torch.float64)
    results = []
    for tensors, cut in (((query, key, value), ends), ((query, key, value), (11,)), (wide, (11,))):
        out, lse = in_parts(*tensors, cut, mask)
        assert out.dtype == tensors[0].dtype
        assert (lse[:, :, 3] == -math.inf).all()
        assert not out[:, :, 3].any()
        seen = mask.any(-1)
        total = (out.double() * weight).sum() + lse[seen].double().sin().sum()
        results.append([out, lse[seen], *torch.autograd.grad(total, tensors)])
    for i, (ours, plain, reference) in enumerate(zip(*results, strict=True)):
        assert_close_to_fp64(ours, plain, reference, gradient=i > 1)


def test_a_row_without_keys():
    """Such rows take the other part as it is, bit for bit, and none where both are empty."""
    out, lse = torch.randn(3, 4), torch.tensor([0.3, -math.inf, 80.0])
    out[1] = 0
    nothing = torch.zeros(3, 4), torch.full((3,), -math.inf)
    for merged in (
        ops.merge_attention(out, lse, *nothing),
        ops.merge_attention(*nothing, out, lse),
    ):
        assert torch.equal(merged[0], out)
        assert torch.equal(merged[1], lse)


def test_order_does_not_matter():
    parts = [(torch.randn(2, 3, 4), torch.randn(2, 3) * 30) for _ in range(2)]
    forth = ops.merge_attention(*parts[0], *parts[1])
    back = ops.merge_attention(*parts[1], *parts[0])
    assert torch.equal(forth[0], back[0])
    assert torch.equal(forth[1], back[1])


def test_great_scores_do_not_overflow():
    out = torch.randn(2, 3)
    for size in (3e4, -3e4):
        merged, lse = ops.merge_attention(out, torch.full((2,), size), out, torch.full((2,), size))
        torch.testing.assert_close(merged, out)
        torch.testing.assert_close(lse, torch.full((2,), size + math.log(2)))


def test_gradients():
    """Of every input, twice; rows empty in one part or in both get 0 and no NaN."""
    empty_a = torch.tensor([False, True, False, True])
    empty_b = torch.tensor([False, False, True, True])
    tensors = [torch.randn(2, 4, 3), torch.randn(2, 4), torch.randn(2, 4, 3), torch.randn(2, 4)]
    tensors = [x.double().requires_grad_() for x in tensors]

    def merge(out_a, lse_a, out_b, lse_b):
        lse_a = torch.where(empty_a, -math.inf, lse_a)
        lse_b = torch.where(empty_b, -math.inf, lse_b)
        out, lse = ops.merge_attention(out_a, lse_a, out_b, lse_b)
        return out, lse[:, :3]

    assert torch.autograd.gradcheck(merge, tensors)
    assert torch.autograd.gradgradcheck(merge, tensors)
    masked = [x.detach().clone() for x in tensors]
    masked[1][:, empty_a] = -math.inf
    masked[3][:, empty_b] = -math.inf
    masked = [x.requires_grad_() for x in masked]
    out, lse = ops.merge_attention(*masked)
    first = torch.autograd.grad(out.sum() + lse.sum(), masked, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), masked)
    for grad in (*first, *second):
        assert grad.isfinite().all()
        assert not grad[:, 3].any()


def test_dtypes():
    """A running result may be wider than the part that joins it."""
    wide = torch.randn(2, 3), torch.randn(2)
    part = torch.randn(2, 3).bfloat16(), torch.randn(2)
    out, lse = ops.merge_attention(*wide, *part)
    assert (out.dtype, lse.dtype) == (torch.float32, torch.float32)
    assert ops.merge_attention(*part, *part)[0].dtype == torch.bfloat16
    double = torch.randn(2, 3).double(), torch.randn(2).double()
    assert [x.dtype for x in ops.merge_attention(*double, *double)] == [torch.float64] * 2


def merge(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> torch.Tensor:
    out, lse = tilewright.merge_attention(out_a, lse_a, out_b, lse_b)
    return torch.cat([out, lse.unsqueeze(-1)], -1)


@pytest.mark.parametrize("run", [script_round_trip, export_and_run, compile_and_run])
def test_programs(run):
    args = [torch.randn(2, 5, 3), torch.randn(2, 5), torch.randn(2, 5, 3), torch.randn(2, 5)]
    torch.testing.assert_close(run(merge, *args), merge(*args))


def test_opcheck():
    args = [torch.randn(2, 5, 3), torch.randn(2, 5), torch.randn(2, 5, 3), torch.randn(2, 5)]
    opcheck(ops.merge_attention.default, tuple(args))
    opcheck(ops.merge_attention.default, tuple(x.requires_grad_() for x in args))


class FromBefore(torch.autograd.Function):
    """What the rank before has; its gradient goes back there."""

    @staticmethod
    def shift(tensor, step):
        rank, world = dist.get_rank(), dist.get_world_size()
        sent = dist.isend(tensor.contiguous(), (rank + step) % world)
        received = torch.empty(tensor.shape, dtype=tensor.dtype)
        dist.recv(received, (rank - step) % world)
        sent.wait()
        return received

    @staticmethod
    def forward(ctx, tensor):
        return FromBefore.shift(tensor, 1)

    @staticmethod
    def backward(ctx, grad):
        return FromBefore.shift(grad, -1)


def ring_attention(query, key, value, causal):
    """Ring attention (arXiv:2310.01889): each rank keeps its queries; keys and values go round."""
    rank, world = dist.get_rank(), dist.get_world_size()
    keys_and_values = torch.cat([key, value], -1)
    out = lse = None
    for step in range(world):
        owner = (rank - step) % world
        key, value = keys_and_values.split([key.shape[-1], value.shape[-1]], -1)
        # The keys of later ranks are all in the future: a mask that keeps none.
        mask = torch.tensor([[owner <= rank or not causal]])
        part = ops.flash_attention(query, key, value, mask, causal=causal and owner == rank)
        out, lse = part if out is None else tilewright.merge_attention(out, lse, *part)
        if step + 1 < world:
            keys_and_values = FromBefore.apply(keys_and_values)
    return out, lse


def ring_process(rank, world, folder, causal):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    given = torch.load(f"{folder}/inputs.pt")
    mine = [x.chunk(world, 2)[rank].clone().requires_grad_() for x in given[:3]]
    grad_out, grad_lse = (x.chunk(world, 2)[rank] for x in given[3:])
    out, lse = ring_attention(*mine, causal)
    torch.autograd.backward([out, lse], [grad_out, grad_lse])
    results = [out.detach(), lse.detach(), *(x.grad for x in mine)]
    torch.save(results, f"{folder}/results{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("causal", [False, True])
def test_a_ring_of_two_processes(tmp_path, causal):
    tensors = inputs(q_len=10, k_len=10)
    grads = torch.randn(2, 4, 10, 5, dtype=torch.float64), torch.randn(2, 4, 10).double()
    torch.save([*(x.detach() for x in tensors), *grads], tmp_path / "inputs.pt")
    mp.spawn(ring_process, (2, str(tmp_path), causal), nprocs=2)
    whole = ops.flash_attention(*tensors, causal=causal)
    torch.autograd.backward(whole, grads)
    expected = [*(x.detach() for x in whole), *(x.grad for x in tensors)]
    parts = [torch.load(tmp_path / f"results{rank}.pt") for rank in range(2)]
    for i, reference in enumerate(expected):
        ours = torch.cat([part[i] for part in parts], 2)
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)
