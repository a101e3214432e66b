// What the CPU's loops of nade are given. Weights are widened to the type of sums, and rows of
// hidden units are padded with zeros to whole tiles.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

inline constexpr int64_t kNadeRows = 8;    // samples that walk over the pixels together
inline constexpr int64_t kNadeUnits = 16;  // hidden units of a tile
// Pixels between two places at which the backward keeps the activations of its samples.
inline constexpr int64_t kNadeStride = 32;

// Of Acc: float, or double.
template <class Acc>
struct NadeForwardParams {
  int64_t rows, pixels, hidden;       // N, D, H as padded
  const Acc *weight_in, *weight_out;  // (D, H) both
  const Acc *bias_in, *bias_out;      // (H,), (D,)
  const Acc* x;                       // (N, D)
  Acc *log_prob, *logits;             // (N,), (N, D); null where sampling
  // Sampling: a pixel is 1 where its uniform number is less than its probability. x is written from
  // pixel `given` on.
  const Acc* uniform;  // (N, D)
  Acc* sample;         // (N, D)
  int64_t given;
};

template <class Acc>
struct NadeBackwardParams {
  int64_t groups, pixels, tiles;      // groups of kNadeRows samples, D, H / kNadeUnits as padded
  int64_t copies;                     // of the gradients: each has a share of the groups
  const Acc *weight_in, *weight_out;  // (tiles, D, kNadeUnits) both
  const Acc* bias_in;                 // (tiles, kNadeUnits)
  const Acc* steps;                   // nade_steps of kNadeRows
  // Written whole: (copies, tiles, D, kNadeUnits) both, (copies, tiles, kNadeUnits).
  Acc *grad_weight_in, *grad_weight_out, *grad_bias_in;
  Acc* grad_bias_out;  // (D,)
};

// Groups [begin, end) of kNadeRows samples.
TILEWRIGHT_CPU_KERNEL(nade_forward_float,
                      void(const NadeForwardParams<float>&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(nade_forward_double,
                      void(const NadeForwardParams<double>&, int64_t begin, int64_t end))
// Tasks [begin, end) of copies * tiles.
TILEWRIGHT_CPU_KERNEL(nade_backward_float,
                      void(const NadeBackwardParams<float>&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(nade_backward_double,
                      void(const NadeBackwardParams<double>&, int64_t begin, int64_t end))

}  // namespace tilewright
