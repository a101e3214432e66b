// Histograms on CUDA. A block takes a tile of rows and some features: it adds words to counters in
// shared memory, then those that are not 0 to the node's histogram. Sums of integers have no order,
// so the bits are those of the CPU.
#pragma once
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/trees/tree_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kHistogramThreads = 256;
// Nodes of fewer rows in a tile add to the histogram itself: clearing and emptying the counters
// would take longer.
constexpr int64_t kDirectRows = 64;

struct TreeHistogramParams {
  const void* codes;  // (N, features) of uint8_t or uint16_t
  int64_t features, num_codes;
  const bool* columns;   // (features,): those that are counted; null: all
  const int64_t* words;  // (N,), or pairs (N, 2)
  const int32_t* order;  // (positions,): which row; null: the same
  // By position: whose row it is; -1: nobody's from here on. Rows of one owner stand side by side.
  const int32_t* owner;
  int64_t positions;
  // By owner, `stride` apart: where its positions end, and its histogram; -1: none.
  const int32_t *end, *slot;
  int64_t stride;
  int32_t first_owner, last_owner;  // the owners that are counted, [first, last)
  TreeCount* histograms;            // (slots, features, num_codes)
  int64_t tile;                     // positions of a block
  int64_t width, groups;            // features of a group; width 0: counters do not fit
};

// 64-bit sums of two 32-bit additions: a GPU has no other ones in shared memory.
template <bool kPairs>
struct TreeCounters {
  uint32_t *low, *high;  // (kPairs ? 2 : 1, width, num_codes)
  TILEWRIGHT_HD TreeCounters(SharedMemory& shared, int64_t counters)
      : low(shared.take<uint32_t>(size_t(counters * (kPairs ? 2 : 1)))),
        high(shared.take<uint32_t>(size_t(counters * (kPairs ? 2 : 1)))) {}

  TILEWRIGHT_DEVICE void add(int64_t at, int64_t value) const {
    const auto bits = uint64_t(value);
    const auto low_bits = uint32_t(bits);
    const uint32_t before = atomicAdd(low + at, low_bits);
    const uint32_t carry = before + low_bits < low_bits;
    const uint32_t high_bits = uint32_t(bits >> 32) + carry;
    if (high_bits != 0) atomicAdd(high + at, high_bits);
  }
  TILEWRIGHT_DEVICE int64_t get(int64_t at) const {
    return int64_t(uint64_t(high[at]) << 32 | low[at]);
  }
};

TILEWRIGHT_DEVICE void add_count(TreeCount* to, TreeCount count) {
  atomic_add(&to->gradient, count.gradient);
  atomic_add(&to->hessian, count.hessian);
}

// Codes that do not exist count as missing.
template <class Code>
TILEWRIGHT_DEVICE int64_t code_at(const void* codes, int64_t num_codes, int64_t at) {
  return min_of(int64_t(ldg(static_cast<const Code*>(codes) + at)), num_codes - 1);
}

// Features [first, first + width) of positions [begin, end), all of one owner.
template <class Code, bool kPairs>
TILEWRIGHT_DEVICE void count_segment(const TreeHistogramParams& p,
                                     const TreeCounters<kPairs>& counters, int64_t first,
                                     int64_t width, int64_t begin, int64_t end, int32_t slot) {
  TreeCount* const sums = p.histograms + (slot * p.features + first) * p.num_codes;
  const bool direct = p.width == 0 || end - begin < kDirectRows;
  const int64_t used = width * p.num_codes;
  if (!direct) {
    for (int64_t i = threadIdx.x; i < used * (kPairs ? 2 : 1); i += blockDim.x) {
      counters.low[i] = 0;
      counters.high[i] = 0;
    }
    __syncthreads();
  }
  for (int64_t i = threadIdx.x; i < (end - begin) * width; i += blockDim.x) {
    const uint32_t ahead = uint32_t(i) / uint32_t(width), f = uint32_t(i) % uint32_t(width);
    if (p.columns != nullptr && !p.columns[first + f]) continue;
    const int64_t position = begin + ahead;
    const int64_t row = p.order == nullptr ? position : ldg(p.order + position);
    const int64_t at =
        f * p.num_codes + code_at<Code>(p.codes, p.num_codes, row * p.features + first + f);
    const int64_t word = ldg(p.words + (kPairs ? 2 * row : row));
    const int64_t second = kPairs ? ldg(p.words + 2 * row + 1) : 0;
    if (direct) {
      add_count(sums + at, kPairs ? TreeCount{word, second} : count_of(word));
    } else {
      counters.add(at, word);
      if (kPairs) counters.add(used + at, second);
    }
  }
  if (direct) return;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < used; i += blockDim.x) {
    const int64_t sum = counters.get(i);
    const TreeCount count = kPairs ? TreeCount{sum, counters.get(used + i)} : count_of(sum);
    if (count.gradient != 0 || count.hessian != 0) add_count(sums + i, count);
  }
  __syncthreads();
}

// Grid: tiles of positions, groups of features. A tile of words has at most kTreeWordRows.
template <class Code, bool kPairs>
__global__ void tree_histogram_kernel(TreeHistogramParams p) {
  SharedMemory shared;
  const TreeCounters<kPairs> counters(shared, p.width * p.num_codes);
  const int64_t tile = int64_t(blockIdx.x) * p.tile;
  const int64_t last = min_of(tile + p.tile, p.positions);
  const int64_t width = p.width == 0 ? 1 : p.width;
  for (int64_t group = blockIdx.y; group < p.groups; group += gridDim.y) {
    const int64_t first = group * width;
    for (int64_t begin = tile; begin < last;) {
      const int32_t owner = p.owner[begin];
      if (owner < 0) break;
      const int64_t end = min_of(int64_t(p.end[owner * p.stride]), last);
      const bool counted = owner >= p.first_owner && owner < p.last_owner;
      const int32_t slot = counted ? p.slot[owner * p.stride] : -1;
      if (slot >= 0) {
        count_segment<Code, kPairs>(p, counters, first, min_of(width, p.features - first), begin,
                                    end, slot);
      }
      begin = end;
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
