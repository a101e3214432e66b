// Where cuts go between the different values of a feature, on every machine.
#pragma once
#include <cfloat>
#include <cmath>

#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A cut between two values, of which `low` is to lie below it and `high` not: finite, unless
// nothing finite lies between them.
TILEWRIGHT_HD float cut_between(float low, float high) {
  const float middle = float((double(low) + double(high)) / 2);
  const float cut = middle > low ? middle : high;  // rounding must not put `low` to the right
  return cut < HUGE_VALF || !(low < FLT_MAX) ? cut : FLT_MAX;
}

// Is shown neighbours, ascending, and places cuts so that each bin weighs about the same.
class CutPlacer {
 public:
  // `count` different values that weigh `total`.
  TILEWRIGHT_HD CutPlacer(int64_t count, double total, int64_t max_bin, float* cuts)
      : count_(count), rest_(total), max_bin_(max_bin), cuts_(cuts) {}

  TILEWRIGHT_HD void between(float low, double weight, float high, double next) {
    if (count_ > max_bin_) {
      if (placed_ + 1 >= max_bin_) return;
      held_ += weight;
      const double share = rest_ / double(max_bin_ - placed_);
      // A heavy value begins a bin of its own.
      if (held_ < share && !(held_ > 0 && next >= share && held_ >= share / 2)) return;
      rest_ -= held_;
      held_ = 0;
    }
    const float cut = cut_between(low, high);
    // What is less than infinity would be all there is, as behind the last cut.
    if (cut < HUGE_VALF) cuts_[placed_++] = cut;
  }
  TILEWRIGHT_HD int32_t placed() const { return placed_; }

 private:
  int64_t count_;
  double rest_, held_ = 0;
  int64_t max_bin_;
  float* cuts_;
  int32_t placed_ = 0;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
