// Which tensor core kernel a call of a 16-bit type takes.
#pragma once
#include "tilewright/attention/attention_forward_kernel.cuh"
#include "tilewright/attention/attention_grad_query_kernel.cuh"
#include "tilewright/attention/attention_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T, int kHeadDim, bool kGeneral>
void forward_of(const AttentionParams<T>& p) {
  using Parts = ForwardParts<T, kHeadDim, kGeneral>;
  const int tiles = forward_tiles(p, Parts::kQueries);
  launch<attention_forward_kernel<T, kHeadDim, kGeneral>>(
      attention_config<Parts>(tiles * forward_units(p)), p, tiles);
}

template <class T, int kHeadDim, bool kGeneral>
void backward_of(const AttentionParams<T>& p) {
  using KeyParts = GradKeyParts<T, kHeadDim, kGeneral>;
  using QueryParts = GradQueryParts<T, kHeadDim, kGeneral>;
  const int key_tiles = int(ceil_div(p.k_len, KeyParts::kKeys));
  launch<attention_grad_key_kernel<T, kHeadDim, kGeneral>>(
      attention_config<KeyParts>(int64_t(key_tiles) * kKeyParts<kHeadDim> * p.batch * p.kv_heads()),
      p, key_tiles);
  const int query_tiles = int(ceil_div(p.q_len, QueryParts::kQueries));
  launch<attention_grad_query_kernel<T, kHeadDim, kGeneral>>(
      attention_config<QueryParts>(int64_t(query_tiles) * p.batch * p.heads), p, query_tiles);
}

// Rows are padded to the next of three sizes. At 256 columns the tiles are the same with and
// without options, and there is one kernel.
template <class T>
void launch_attention_forward(const AttentionParams<T>& p, bool plain) {
  const int columns = max_of(p.head_dim, p.value_dim);
  if (columns <= 64) {
    plain ? forward_of<T, 64, false>(p) : forward_of<T, 64, true>(p);
  } else if (columns <= 128) {
    plain ? forward_of<T, 128, false>(p) : forward_of<T, 128, true>(p);
  } else {
    forward_of<T, 256, true>(p);
  }
  launch_combine(p);
}

template <class T>
void launch_attention_backward(const AttentionParams<T>& p, bool plain) {
  launch_rows(p);
  const int columns = max_of(p.head_dim, p.value_dim);
  if (columns <= 64) {
    plain ? backward_of<T, 64, false>(p) : backward_of<T, 64, true>(p);
  } else if (columns <= 128) {
    plain ? backward_of<T, 128, false>(p) : backward_of<T, 128, true>(p);
  } else {
    backward_of<T, 256, true>(p);
  }
  launch_grad_bias(p);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
