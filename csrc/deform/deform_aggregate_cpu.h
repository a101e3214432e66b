// What the CPU kernels of deform_aggregate are called with, and how the backward pass is cut.
#pragma once
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/deform/deform_aggregate_math.h"

namespace tilewright {

// Kernels and hosts share what follows, for several instruction sets: all of it is inlined.

// The backward pass: a task owns an image and a run of channels of one group, and adds up their
// gradient alone. Depends on sizes alone, and so do the sums.
struct DeformAggregateTasks {
  int64_t block;   // channels of a task; the last of a group may have fewer
  int64_t blocks;  // tasks that share the gradients of an offset and a mask

  static constexpr int64_t kWanted = 16, kLeastBlock = 16, kMostBlock = 64;

  TILEWRIGHT_HD explicit DeformAggregateTasks(const DeformAggregateShape& s) {
    const int64_t inside = s.group_channels(), tasks = std::max<int64_t>(s.batch * s.groups, 1);
    const int64_t most = ceil_div(inside, kLeastBlock);
    const int64_t parts =
        std::max(std::min(ceil_div(kWanted, tasks), most), ceil_div(inside, kMostBlock));
    block = ceil_div(ceil_div(inside, parts), kLeastBlock) * kLeastBlock;
    blocks = ceil_div(inside, block);
  }
  TILEWRIGHT_HD int64_t count(const DeformAggregateShape& s) const {
    return s.batch * s.groups * blocks;
  }
};

// Tensors of T, and of Acc, the type that sums of T are kept in.
struct DeformAggregateCpuParams {
  c10::ScalarType dtype;
  DeformAggregateShape shape;
  const void* input;          // (N, H, W, C) of T
  const void *offset, *mask;  // of Acc, as the operator has them
  void* output;               // forward: (N, OH, OW, C) of T
  const void* grad;           // backward: the same
  void* grad_input;           // as input, or null
  // (blocks, N, OH, OW, groups, K, 2) and (blocks, N, OH, OW, groups, K) of Acc, or null.
  void *grad_offset, *grad_mask;
};

// Places [begin, end) of all N * OH * OW.
TILEWRIGHT_CPU_KERNEL(deform_aggregate_forward,
                      void(const DeformAggregateCpuParams&, int64_t begin, int64_t end))
// Tasks [begin, end) of DeformAggregateTasks.
TILEWRIGHT_CPU_KERNEL(deform_aggregate_backward,
                      void(const DeformAggregateCpuParams&, int64_t begin, int64_t end))

}  // namespace tilewright
