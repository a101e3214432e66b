// Gradients and hessians to fixed point on CUDA, without asking the device how large they are.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/trees/tree_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kWordThreads = 256;
constexpr int kMostExtremes = kWordThreads;  // blocks of tree_extremes_kernel

// Of words; and of finer integers: pairs, and the sums that leaves answer from. A unit is
// 1 / scale, and all are powers of two.
struct TreeScales {
  double gradient_unit, hessian_unit, fine_gradient_unit, fine_hessian_unit;
  double fine_gradient, fine_hessian;
};

template <class T>
struct TreeWordsKernelParams {
  const T *gradients, *hessians;  // (rows,)
  int64_t rows;
  double* extremes;  // (parts, 2): the greatest magnitudes of some rows
  int parts;
  bool pairs;      // an integer each in place of words
  int64_t* words;  // (rows,), or (rows, 2)
  TreeScales* scales;
};

// A gradient that is not finite counts as 0, so does a hessian that is not finite or is negative.
template <class T>
TILEWRIGHT_DEVICE TreeSum tree_row(const T* gradients, const T* hessians, int64_t row) {
  const double gradient = double(ldg(gradients + row)), hessian = double(ldg(hessians + row));
  return {gradient > -HUGE_VAL && gradient < HUGE_VAL ? gradient : 0.0,
          hessian >= 0 && hessian < HUGE_VAL ? hessian : 0.0};
}

struct TreeWordsParts {
  double* scratch;
  TILEWRIGHT_HD explicit TreeWordsParts(SharedMemory& shared)
      : scratch(shared.take<double>(kLanes)) {}
};

template <class T>
__global__ void tree_extremes_kernel(TreeWordsKernelParams<T> p) {
  SharedMemory shared;
  const TreeWordsParts parts(shared);
  double gradient = 0, hessian = 0;
  for (int64_t i : grid_stride(p.rows)) {
    const TreeSum row = tree_row(p.gradients, p.hessians, i);
    gradient = max_of(gradient, row.gradient < 0 ? -row.gradient : row.gradient);
    hessian = max_of(hessian, row.hessian);
  }
  gradient = block_reduce(gradient, Max(), 0.0, parts.scratch);
  hessian = block_reduce(hessian, Max(), 0.0, parts.scratch);
  if (threadIdx.x != 0) return;
  p.extremes[2 * blockIdx.x] = gradient;
  p.extremes[2 * blockIdx.x + 1] = hessian;
}

template <class T>
__global__ void tree_words_kernel(TreeWordsKernelParams<T> p) {
  SharedMemory shared;
  const TreeWordsParts parts(shared);
  const bool reads = int(threadIdx.x) < p.parts;
  const double gradient = block_reduce(reads ? p.extremes[2 * threadIdx.x] : 0.0, Max(), 0.0,
                                       parts.scratch),
               hessian = block_reduce(reads ? p.extremes[2 * threadIdx.x + 1] : 0.0, Max(), 0.0,
                                      parts.scratch);
  const int fine = tree_fine_bits(p.rows);
  const double gradient_scale = tree_scale(gradient, p.pairs ? fine : kTreeGradientBits - 1),
               hessian_scale = tree_scale(hessian, p.pairs ? fine : kTreeHessianBits);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    const double fine_gradient = tree_scale(gradient, fine),
                 fine_hessian = tree_scale(hessian, fine);
    *p.scales = {1 / gradient_scale, 1 / hessian_scale, 1 / fine_gradient,
                 1 / fine_hessian,   fine_gradient,     fine_hessian};
  }
  for (int64_t i : grid_stride(p.rows)) {
    const TreeSum row = tree_row(p.gradients, p.hessians, i);
    if (p.pairs) {
      const TreeCount pair = tree_pair(row.gradient, row.hessian, gradient_scale, hessian_scale);
      p.words[2 * i] = pair.gradient;
      p.words[2 * i + 1] = pair.hessian;
    } else {
      p.words[i] = tree_word(row.gradient, row.hessian, gradient_scale, hessian_scale, uint32_t(i));
    }
  }
}

// A row's word or pair.
TILEWRIGHT_DEVICE TreeCount tree_count_at(const int64_t* words, bool pairs, int64_t row) {
  return pairs ? TreeCount{words[2 * row], words[2 * row + 1]} : count_of(words[row]);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
