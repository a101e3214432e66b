// Grids and shared memory of attention's kernels; included by the one file per type that
// instantiates them.
#pragma once
#include "tilewright/attention/attention_grad_bias_kernel.cuh"
#include "tilewright/attention/attention_launch.h"
#include "tilewright/attention/attention_small_kernels.cuh"
#include "tilewright/core/cuda/launch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class Parts>
LaunchConfig attention_config(int64_t blocks) {
  return parts_config<Parts>(blocks, kAttentionThreads, /*large_shared=*/true);
}

inline LaunchConfig warp_per_row(int64_t rows) { return linear_config(rows * 32, 128); }

// Blocks of the forward beside its tiles.
template <class T>
int64_t forward_units(const AttentionParams<T>& p) {
  return int64_t(p.splits) * p.batch * (p.packs_group ? p.kv_heads() : p.heads);
}
template <class T>
int forward_tiles(const AttentionParams<T>& p, int tile_rows) {
  return int(ceil_div(int64_t(p.q_len) * (p.packs_group ? p.group : 1), tile_rows));
}

template <class T>
void launch_combine(const AttentionParams<T>& p) {
  if (p.splits == 1) return;
  launch<attention_combine_kernel<T>>(warp_per_row(int64_t(p.batch) * p.heads * p.q_len), p);
}
template <class T>
void launch_rows(const AttentionParams<T>& p) {
  const int64_t sequences = p.cu_q ? p.total_q : int64_t(p.batch) * p.q_len;
  launch<attention_rows_kernel<T>>(warp_per_row(sequences * p.heads), p);
}
template <class T>
void launch_grad_bias(const AttentionParams<T>& p) {
  if (!p.grad_bias) return;
  const int* sizes = p.bias_sizes;
  launch<attention_grad_bias_kernel<T>>(
      attention_config<FmaParts<T>>(int64_t(sizes[0]) * sizes[1] * ceil_div(sizes[2], 64) *
                                    ceil_div(sizes[3], 64)),
      p);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
