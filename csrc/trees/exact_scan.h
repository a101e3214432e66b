// The best split of a node between the values of its own rows.
#pragma once
#include "tilewright/trees/exact_cpu.h"
#include "tilewright/trees/tree_split_scan.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// How many of ascending values, NaN last, are no NaN.
inline int64_t present_values(const float* values, int64_t count) {
  if (count == 0 || values[count - 1] == values[count - 1]) return count;
  int64_t low = 0, high = count - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const bool present = values[middle] == values[middle];
    low = present ? middle + 1 : low;
    high = present ? high : middle;
  }
  return low;
}

class ExactScan {
 public:
  ExactScan(const TreeSplitParams& params, double parent_gain)
      : right_(params, parent_gain), left_(params, parent_gain) {}

  void scan(int32_t feature, const int32_t* places, const float* values, const TreeCount* pairs,
            int64_t count) {
    const int64_t present = present_values(values, count);
    if (present == 0) return;
    feature_ = feature;
    missing_ = {0, 0};
    for (int64_t i = present; i < count; ++i) add_to(missing_, pairs[places[i]]);
    any_missing_ = present < count;
    left_.begin_from(right_.best());
    TreeCount sum{0, 0};
    int64_t size = 0;
    // The last value has no place behind it but the one before missing values.
    for (int64_t first = 0; first + 1 < present; first += kChunk) {
      const int64_t last = min_of(first + kChunk, present - 1);
      for (int64_t i = first; i < last; ++i) {
        add_to(sum, pairs[places[i]]);
        gradients_[size] = sum.gradient;
        hessians_[size] = sum.hessian;
        codes_[size] = int32_t(i);
        size += values[i] != values[i + 1];
      }
      if (size <= SplitScan::kPlaces - kChunk && last + 1 < present) continue;
      try_places(size);
      size = 0;
    }
    if (!any_missing_) return;
    try_missing_alone(present);
    // Of equal gains missing values go right.
    if (left_.best().gain > right_.best().gain) right_.begin_from(left_.best());
  }
  const TreeSplit& best() const { return right_.best(); }

 private:
  // Entries after which it is asked whether there is room for so many more.
  static constexpr int64_t kChunk = SplitScan::kPlaces / 2;

  // With missing values on either side.
  void try_places(int64_t count) {
    const auto code_at = [this](int64_t i) { return codes_[i]; };
    right_.try_places(feature_, code_at, gradients_, hessians_, count, false);
    if (!any_missing_) return;
    for (int64_t i = 0; i < count; ++i) {
      gradients_[i] += missing_.gradient;
      hessians_[i] += missing_.hessian;
    }
    left_.try_places(feature_, code_at, gradients_, hessians_, count, true);
  }

  // Missing values to the right, all others to the left.
  void try_missing_alone(int64_t present) {
    const TreeCount total = right_.total();
    const TreeCount known{total.gradient - missing_.gradient, total.hessian - missing_.hessian};
    const auto last = [present](int64_t) { return int32_t(present - 1); };
    right_.try_places(feature_, last, &known.gradient, &known.hessian, 1, false);
  }

  SplitScan right_, left_;  // where missing values go
  int32_t feature_ = 0;
  TreeCount missing_{0, 0};
  bool any_missing_ = false;
  int64_t gradients_[SplitScan::kPlaces], hessians_[SplitScan::kPlaces];
  int32_t codes_[SplitScan::kPlaces];
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
