"""MultiheadAttention as a module: torch's parameters, over flash_attention."""

import math
from typing import Optional, Tuple  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor, nn

from tilewright._arguments import check_tensor

__all__ = ["MultiheadAttention"]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating mask as it is; 0, and -inf where a boolean one hides a key."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


def _join(a: Tensor, b: Tensor) -> Tensor:
    """A mask that hides what either hides."""
    if a.dtype == torch.bool and b.dtype == torch.bool:
        return a | b
    dtype = b.dtype if a.dtype == torch.bool else a.dtype
    return _additive(a, dtype) + _additive(b, dtype)


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{name} must be boolean or floating, got {mask.dtype}")


def _check_input(name: str, x: Tensor, batch: int, length: int, features: int) -> None:
    if x.size(0) != batch or x.size(1) != length or x.size(2) != features:
        raise ValueError(
            f"{name} must have batch {batch}, length {length} and {features} features, got "
            f"{x.size(0)}, {x.size(1)} and {x.size(2)}"
        )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Optional[Tensor],  # noqa: UP045
    dropout: float,
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Output and probabilities, as torch computes them where the matrix is asked for."""
    s = torch.matmul(q * math.sqrt(1.0 / q.size(-1)), k.transpose(-2, -1))
    if mask is not None:
        s = s.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else s + mask.to(s.dtype)
        empty = (s == -math.inf).all(-1, keepdim=True)
        weights = torch.softmax(s.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
    else:
        weights = torch.softmax(s, -1)
    if dropout > 0:
        weights = torch.dropout(weights, dropout, True)
    return torch.matmul(weights.to(v.dtype), v), weights


class MultiheadAttention(nn.MultiheadAttention):
    """torch.nn.MultiheadAttention over flash_attention: the same arguments and parameters, and
    state dicts that go both ways.

    Pass ``need_weights=False``: by default, as in torch, the matrix of probabilities is returned,
    and is then computed and stored as torch does it. Without it no such matrix exists, forward or
    backward, with any mask (two masks at once are joined to one of (N, L, S)).

    What differs from torch: a query that sees no key has attention 0 (torch: NaN); ``is_causal``
    means what it says and needs no ``attn_mask``; with one, both hold (torch drops the mask or the
    flag). ``dropout`` must be less than 1, a head at most 256 wide. What ``forward`` checks is a
    ValueError. Inside ``nn.TransformerEncoderLayer`` it serves evaluation as well: torch's fast
    path, which takes no notice of the module, is off for it.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, *args, **kwargs):
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        super().__init__(embed_dim, num_heads, dropout, *args, **kwargs)
        if self.head_dim > 256:
            raise ValueError(
                f"embed_dim / num_heads must be at most 256, got {embed_dim} / {num_heads}"
            )

    def _reset_parameters(self):
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        # nn.TransformerEncoderLayer takes torch's own attention in evaluation, whatever module it
        # was given ("fast path"), unless this says that it cannot.
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor] = None,  # noqa: UP045
        need_weights: bool = True,
        attn_mask: Optional[Tensor] = None,  # noqa: UP045
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Tuple[Tensor, Optional[Tensor]]:  # noqa: UP006, UP045
        """Output, and with need_weights the probabilities.

        Args:
            query, key, value: (L, N, E), (S, N, kdim), (S, N, vdim); (N, L, E) with batch_first;
                (L, E) of one sequence.
            key_padding_mask: (N, S) or (S,). Here and in attn_mask, True hides a key; floating
                masks are added to the scores.
            need_weights: also return the probabilities, (N, L, S).
            attn_mask: (L, S) or (N * num_heads, L, S).
            average_attn_weights: their mean over heads; else (N, num_heads, L, S).
            is_causal: query i sees the keys up to i, of those that attn_mask leaves; fastest
                without an attn_mask: then no mask is read.
        """
        if not torch.jit.is_scripting():
            for name, x in (("query", query), ("key", key), ("value", value)):
                check_tensor(name, x)
            for name, x in (("key_padding_mask", key_padding_mask), ("attn_mask", attn_mask)):
                if x is not None:
                    check_tensor(name, x)
        batched = query.dim() == 3
        if not batched and query.dim() != 2:
            raise ValueError(f"query must have 2 or 3 dimensions, got {query.dim()}")
        if key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError(
                f"key and value must have {query.dim()} dimensions as query, got {key.dim()} and "
                f"{value.dim()}"
            )
        same = query is key and key is value
        q_in, k_in, v_in = self._rows(query), self._rows(key), self._rows(value)
        batch, queries, keys = q_in.size(0), q_in.size(1), k_in.size(1)
        _check_input("query", q_in, batch, queries, self.embed_dim)
        _check_input("key", k_in, batch, keys, self.kdim)
        _check_input("value", v_in, batch, keys, self.vdim)
        # The keys added behind all others are seen by every query, so there a mask is needed.
        more_keys = self.bias_k is not None or self.add_zero_attn
        by_flag = is_causal and not need_weights and not more_keys
        ahead: Optional[Tensor] = None  # noqa: UP045
        if is_causal and not by_flag:
            ahead = torch.ones([queries, keys], dtype=torch.bool, device=query.device).triu(1)
        mask = self._mask(key_padding_mask, attn_mask, ahead, batch, queries, keys)
        q, k, v = self._project(q_in, k_in, v_in, same)
        dropout = self.dropout if self.training else 0.0
        weights: Optional[Tensor] = None  # noqa: UP045
        if need_weights:
            out, each = _attend(q, k, v, mask, dropout)
            if average_attn_weights:
                each = each.mean(1)
            weights = each if batched else each.squeeze(0)
        else:
            bias: Optional[Tensor] = None  # noqa: UP045
            if mask is not None:
                if mask.dtype == torch.bool:
                    bias = ~mask
                else:
                    bias = mask if mask.dtype == torch.float32 else mask.to(q.dtype)
            out = torch.ops.tilewright.flash_attention(
                q, k, v, bias, causal=by_flag, top_left=True, dropout_p=dropout
            )[0]
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (N, L, E)
        if not batched:
            return out.squeeze(0), weights
        return out if self.batch_first else out.transpose(0, 1), weights

    def _rows(self, x: Tensor) -> Tensor:
        """(N, L, E) of any input."""
        if x.dim() == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _weights(self) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Of the projections of query, key and value."""
        weight = self.in_proj_weight
        if weight is not None:
            w_q, w_k, w_v = weight.split(self.embed_dim)
            return w_q, w_k, w_v
        w_q, w_k, w_v = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        assert w_q is not None and w_k is not None and w_v is not None
        return w_q, w_k, w_v

    def _project(
        self, query: Tensor, key: Tensor, value: Tensor, same: bool
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """The heads of the three, (N, H, L or S, E / H): views into the projections."""
        width, batch = self.embed_dim, query.size(0)
        bias = self.in_proj_bias
        weight = self.in_proj_weight
        if weight is not None and same:
            q, k, v = nn.functional.linear(query, weight, bias).split(width, -1)
        else:
            w_q, w_k, w_v = self._weights()
            b_q: Optional[Tensor] = None  # noqa: UP045
            b_k: Optional[Tensor] = None  # noqa: UP045
            b_v: Optional[Tensor] = None  # noqa: UP045
            if bias is not None:
                b_q, b_k, b_v = bias.split(width)
            q = nn.functional.linear(query, w_q, b_q)
            k = nn.functional.linear(key, w_k, b_k)
            v = nn.functional.linear(value, w_v, b_v)
        bias_k, bias_v = self.bias_k, self.bias_v
        if bias_k is not None and bias_v is not None:
            k = torch.cat([k, bias_k.to(k.dtype).expand(batch, 1, width)], 1)
            v = torch.cat([v, bias_v.to(v.dtype).expand(batch, 1, width)], 1)
        if self.add_zero_attn:
            k = torch.cat([k, k.new_zeros([batch, 1, width])], 1)
            v = torch.cat([v, v.new_zeros([batch, 1, width])], 1)
        sizes = [self.num_heads, self.head_dim]
        return (
            q.unflatten(-1, sizes).transpose(1, 2),
            k.unflatten(-1, sizes).transpose(1, 2),
            v.unflatten(-1, sizes).transpose(1, 2),
        )

    def _mask(
        self,
        key_padding_mask: Optional[Tensor],  # noqa: UP045
        attn_mask: Optional[Tensor],  # noqa: UP045
        ahead: Optional[Tensor],  # noqa: UP045
        batch: int,
        queries: int,
        keys: int,
    ) -> Optional[Tensor]:  # noqa: UP045
        """What hides keys or is added to scores, broadcasting to (N, H, L, S)."""
        mask: Optional[Tensor] = None  # noqa: UP045
        if attn_mask is not None:
            _check_mask("attn_mask", attn_mask)
            shape, each = list(attn_mask.shape), [batch * self.num_heads, queries, keys]
            if shape != [queries, keys] and shape != each:
                raise ValueError(
                    f"attn_mask must have shape {[queries, keys]} or {each}, got {shape}"
                )
            if len(shape) == 2:
                mask = attn_mask.reshape(1, 1, queries, keys)
            else:
                mask = attn_mask.reshape(batch, self.num_heads, queries, keys)
        if ahead is not None:
            mask = ahead[None, None] if mask is None else _join(mask, ahead)
        if key_padding_mask is not None:
            _check_mask("key_padding_mask", key_padding_mask)
            shape = list(key_padding_mask.shape)
            if shape != [batch, keys] and not (batch == 1 and shape == [keys]):
                raise ValueError(f"key_padding_mask must have shape {[batch, keys]}, got {shape}")
            padding = key_padding_mask.reshape(batch, 1, 1, keys)
            mask = padding if mask is None else _join(mask, padding)
        more = int(self.bias_k is not None) + int(self.add_zero_attn)
        if mask is not None and more > 0:
            mask = torch.constant_pad_nd(mask, [0, more], 0)
        return mask
