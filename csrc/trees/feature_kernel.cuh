// Cuts and bins of features on CUDA. A feature's cuts depend on each other, so that one thread
// places them; the others of its block bring the sorted values.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/trees/cut_placer.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kPlaceThreads = 128, kPlaceTile = 1024;

// Integers that ascend as values do, themselves again when asked twice; those of missing values lie
// above all.
constexpr int32_t kMissingKey = 0x7fffffff;
TILEWRIGHT_HD int32_t ascending_key(int32_t bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

struct PlaceCutsParams {
  const int32_t* keys;    // (features, sampled), ascending
  const int64_t* order;   // (features, sampled): of which sampled row; null without weights
  const double* weights;  // (sampled,), or null
  int64_t sampled, max_bin;
  float* cuts;     // (features, max_bin)
  int32_t* count;  // (features,)
};

struct PlaceCutsParts {
  int32_t* keys;
  double* weights;
  TILEWRIGHT_HD explicit PlaceCutsParts(SharedMemory& shared)
      : keys(shared.take<int32_t>(kPlaceTile)), weights(shared.take<double>(kPlaceTile)) {}
};

// A value and what it weighs in all rows that have it.
struct WeighedValue {
  float value;
  double weight;
};

// Shows each different value with a weight to visit(WeighedValue), ascending. The whole block
// calls; its first thread visits.
template <class Visit>
TILEWRIGHT_DEVICE void for_each_value(const PlaceCutsParams& p, const PlaceCutsParts& parts,
                                      int64_t feature, Visit visit) {
  const int32_t* keys = p.keys + feature * p.sampled;
  WeighedValue held{0, 0};
  for (int64_t first = 0; first < p.sampled; first += kPlaceTile) {
    const int64_t count = min_of(int64_t(kPlaceTile), p.sampled - first);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      parts.keys[i] = keys[first + i];
      parts.weights[i] =
          p.weights == nullptr ? 1.0 : p.weights[p.order[feature * p.sampled + first + i]];
    }
    __syncthreads();
    if (threadIdx.x != 0) continue;
    for (int64_t i = 0; i < count && parts.keys[i] != kMissingKey; ++i) {
      const double weight = parts.weights[i];
      if (weight == 0) continue;
      const float value = __int_as_float(ascending_key(parts.keys[i]));
      if (held.weight > 0 && held.value == value) {
        held.weight += weight;
        continue;
      }
      if (held.weight > 0) visit(held);
      held = {value, weight};
    }
  }
  if (threadIdx.x == 0 && held.weight > 0) visit(held);
}

// A block per feature.
inline __global__ void place_cuts_kernel(PlaceCutsParams p) {
  SharedMemory shared;
  const PlaceCutsParts parts(shared);
  const int64_t feature = blockIdx.x;
  int64_t count = 0;
  double total = 0;
  for_each_value(p, parts, feature, [&](const WeighedValue& v) {
    ++count;
    total += v.weight;
  });
  CutPlacer placer(count, total, p.max_bin, p.cuts + feature * p.max_bin);
  WeighedValue before{0, 0};
  for_each_value(p, parts, feature, [&](const WeighedValue& v) {
    if (before.weight > 0) placer.between(before.value, before.weight, v.value, v.weight);
    before = v;
  });
  if (threadIdx.x == 0) p.count[feature] = placer.placed();
}

template <class T>
struct QuantizeFeaturesParams {
  const T* x;
  int64_t row, column;  // strides in elements
  int64_t rows, features, max_bin;
  const float* cuts;     // (F, max_bin)
  const int32_t* count;  // (F,), any numbers
  uint8_t* narrow;       // (N, F); null where codes are wide
  int16_t* wide;
};

template <class T>
__global__ void quantize_features_kernel(QuantizeFeaturesParams<T> p) {
  for (int64_t i : grid_stride(p.rows * p.features)) {
    const int64_t row = i / p.features, feature = i % p.features;
    const float value = float(to_accumulate(ldg(p.x + row * p.row + feature * p.column)));
    int64_t code = p.narrow != nullptr ? 255 : p.max_bin;
    if (value == value) {
      const float* cuts = p.cuts + feature * p.max_bin;
      int64_t low = 0, high = min_of(max_of(int64_t(p.count[feature]), int64_t(0)), p.max_bin - 1);
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        ldg(cuts + middle) <= value ? low = middle + 1 : high = middle;
      }
      code = low;
    }
    if (p.narrow != nullptr) {
      p.narrow[i] = uint8_t(code);
    } else {
      p.wide[i] = int16_t(code);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
