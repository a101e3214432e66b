// The launches of float64 and float32.
#pragma once
#include "tilewright/attention/attention_fma_kernel.cuh"
#include "tilewright/attention/attention_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T, bool kTf32>
void launch_fma_forward(const AttentionParams<T>& p) {
  const int tiles = forward_tiles(p, kTileQueries);
  launch<attention_forward_fma_kernel<T, kTf32>>(
      attention_config<FmaParts<T, kTf32>>(tiles * forward_units(p) *
                                           ceil_div(p.value_dim, kFmaColumns<accumulate_t<T>>)),
      p, tiles);
}

template <class T, bool kTf32>
void launch_fma_backward(const AttentionParams<T>& p) {
  using Parts = FmaParts<T, kTf32>;
  const int64_t of_value = ceil_div(p.value_dim, kFmaColumns<accumulate_t<T>>);
  const int64_t of_key = ceil_div(p.head_dim, kFmaColumns<accumulate_t<T>>);
  const int key_tiles = int(ceil_div(p.k_len, kTileKeys));
  launch<attention_grad_key_fma_kernel<T, kTf32>>(
      attention_config<Parts>((of_value + of_key) * key_tiles * p.batch * p.kv_heads()), p,
      key_tiles);
  const int query_tiles = int(ceil_div(p.q_len, kTileQueries));
  launch<attention_grad_query_fma_kernel<T, kTf32>>(
      attention_config<Parts>(of_key * query_tiles * p.batch * p.heads), p, query_tiles);
}

template <class T>
void launch_attention_forward(const AttentionParams<T>& p, bool) {
  if constexpr (std::is_same_v<T, float>) {
    p.tf32 ? launch_fma_forward<T, true>(p) : launch_fma_forward<T, false>(p);
  } else {
    launch_fma_forward<T, false>(p);
  }
  launch_combine(p);
}

template <class T>
void launch_attention_backward(const AttentionParams<T>& p, bool) {
  launch_rows(p);
  if constexpr (std::is_same_v<T, float>) {
    p.tf32 ? launch_fma_backward<T, true>(p) : launch_fma_backward<T, false>(p);
  } else {
    launch_fma_backward<T, false>(p);
  }
  launch_grad_bias(p);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
