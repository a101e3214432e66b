// A node of a growing tree that may still split, and how its rows part.
#pragma once
#include <cstdint>
#include <cstring>

#include "tilewright/trees/forest_search.h"
#include "tilewright/trees/forest_views.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

// Its sums stand in the grower's `sums_`, at `slot`.
struct ForestOpen {
  int64_t begin, end;
  int32_t node, depth, constants, slot;
  int32_t level;  // which copy of the table its rows count in: 0 the whole table
  ForestSplit split;
  double gain;
};
struct ForestLesserGain {
  bool operator()(const ForestOpen& a, const ForestOpen& b) const {
    return a.gain != b.gain ? a.gain < b.gain : a.node > b.node;
  }
};

// Rows that go left to the front, both sides in their order; returns how many. rows: the node's
// own, to be written to; scratch: room for as many, or null, where their order need not be kept.
template <class Code>
int64_t part_rows(const ForestNodeView<Code>& node, const ForestSplit& split, uint32_t missing,
                  int32_t* rows, int32_t* scratch) {
  const Code* codes = node.codes + split.feature;
  const uint32_t last = uint32_t(split.code);
  const uint32_t also = split.default_left ? missing : last;
  if (scratch == nullptr) {
    int64_t begin = 0, end = node.count;
    while (begin < end) {
      const int32_t row = rows[begin];
      const uint32_t code = codes[row * node.stride];
      if (code <= last || code == also) {
        ++begin;
      } else {
        rows[begin] = rows[--end];
        rows[end] = row;
      }
    }
    return begin;
  }
  int64_t left = 0, right = 0;
  for (int64_t i = 0; i < node.count; ++i) {
    const int32_t row = rows[i];
    const uint32_t code = codes[row * node.stride];
    const bool goes_left = code <= last || code == also;
    rows[left] = row;
    scratch[right] = row;
    left += goes_left;
    right += !goes_left;
  }
  std::memcpy(rows + left, scratch, size_t(right) * sizeof(int32_t));
  return left;
}

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
