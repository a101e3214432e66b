"""MultiheadAttention inside torch's transformer layers."""

import pytest
import torch
from test_multihead_attention import E, H, L, N

import tilewright
from tilewright import MultiheadAttention

kernels = pytest.mark.kernels


@kernels
def test_in_torchs_encoder(device):
    layer = torch.nn.TransformerEncoderLayer(E, H, 2 * E, dropout=0.0, batch_first=True).double()
    x, padding = torch.randn(N, L, E, dtype=torch.float64), torch.zeros(N, L, dtype=torch.bool)
    padding[0, 5:] = True
    expected = layer(x, src_key_padding_mask=padding)
    ours = MultiheadAttention(E, H, batch_first=True).double()
    ours.load_state_dict(layer.self_attn.state_dict())
    layer.self_attn = ours
    out = layer.to(device)(x.to(device), src_key_padding_mask=padding.to(device))
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stack", [False, True])
def test_in_a_transformer_layer_in_evaluation(stack):
    """torch's fast path would take its own attention: the future leaks, blind queries are NaN."""
    layer = torch.nn.TransformerEncoderLayer(E, H, 32, dropout=0.0, batch_first=True)
    layer.self_attn = tilewright.MultiheadAttention(E, H, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2) if stack else layer
    model.eval()
    x = torch.randn(2, 9, E)
    other = x.clone()
    other[:, -1] += 1
    mask = torch.nn.Transformer.generate_square_subsequent_mask(9) if stack else None
    with torch.no_grad():
        a, b = (model(y, mask, is_causal=True) for y in (x, other))
    assert torch.equal(a[:, :-1], b[:, :-1]) and not torch.equal(a[:, -1], b[:, -1])
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1] = True
    with torch.no_grad():
        assert model(x, src_key_padding_mask=padding).isfinite().all()
