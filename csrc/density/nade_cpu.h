// What the CPU's loops of nade are given. Hidden units come in tiles, padded with zeros, and the
// weights that are added to activations are multiplied by -log2(e), so that sigmoid is 1 / (1 +
// 2^activation).
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

inline constexpr int64_t kNadeUnits = 16;  // hidden units of a tile
inline constexpr int64_t kNadeRows = 8;    // samples that walk over the pixels together, at most
// Pixels between two places at which the backward keeps the activations of its samples.
inline constexpr int64_t kNadeStride = 32;

// T is the tensors' type and Acc that of sums: float, or double.
struct NadePackParams {
  c10::ScalarType dtype;
  int64_t pixels, hidden, padded;      // D, H, whole tiles of H
  const void *weight_in, *weight_out;  // (H, D), (D, H) of T
  void *in, *out;                      // (D, padded) both, of Acc
};

struct NadeForwardParams {
  bool wide;                           // Acc is double
  int64_t rows, groups;                // N; their groups of about one size
  int64_t pixels, padded;              // D
  const void *weight_in, *weight_out;  // (D, padded) both
  const void *bias_in, *bias_out;      // (padded,), multiplied as the weights are; (D,)
  const void* x;                       // (N, D)
  void *log_prob, *logits;             // (N,), (N, D)
  // Sampling, where not null: a pixel is 1 where its uniform number is less than its probability.
  // From pixel `given` on `sample` is written.
  const void* uniform;  // (N, D)
  void* sample;         // (N, D)
  int64_t given;
};

struct NadeBackwardParams {
  c10::ScalarType dtype;
  int64_t groups, pixels, hidden;          // groups of kNadeRows samples, D, H
  int64_t tiles, copies;                   // of H; of the gradients: each has a share of the groups
  const void *weight_in, *weight_out;      // (H, D), (D, H) of T
  const void* bias_in;                     // (tiles, kNadeUnits) of Acc, multiplied
  const void* steps;                       // nade_steps of kNadeRows
  void *grad_weight_in, *grad_weight_out;  // (H, D), (D, H) of T
  void* grad_bias_in;                      // (copies, tiles, kNadeUnits) of Acc
  void* grad_bias_out;                     // (D,) of Acc
  void* sums;  // (copies, tiles, 2, D, kNadeUnits) of Acc where there are several copies
};

// Tiles [begin, end) of hidden units.
TILEWRIGHT_CPU_KERNEL(nade_pack, void(const NadePackParams&, int64_t begin, int64_t end))
// Groups [begin, end).
TILEWRIGHT_CPU_KERNEL(nade_forward, void(const NadeForwardParams&, int64_t begin, int64_t end))
// Tasks [begin, end) of copies * tiles.
TILEWRIGHT_CPU_KERNEL(nade_backward, void(const NadeBackwardParams&, int64_t begin, int64_t end))
// Tiles [begin, end): adds up the copies.
TILEWRIGHT_CPU_KERNEL(nade_add_copies, void(const NadeBackwardParams&, int64_t begin, int64_t end))
// Pixels [begin, end) of grad_bias_out.
TILEWRIGHT_CPU_KERNEL(nade_add_steps, void(const NadeBackwardParams&, int64_t begin, int64_t end))

}  // namespace tilewright
