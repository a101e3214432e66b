// Which features of a node can not be its best split: told without a division, and for both
// directions of missing values at once.
#pragma once
#include <bit>
#include <type_traits>

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Instruction sets before AVX-512 convert one such integer at a time. In halves both are exact, and
// one rounding is where they meet, as conversion has it.
inline double as_double(int64_t value) {
#if defined(CPU_CAPABILITY_AVX512)
  return double(value);
#else
  const auto bits = uint64_t(value);
  const auto low = std::bit_cast<double>(uint64_t(0x4330000000000000) | (bits & 0xffffffff));
  const auto high = std::bit_cast<double>(uint64_t(0x4530000080000000) ^ (bits >> 32));
  return (high - 0x1.00000801p84) + low;
#endif
}

// Gains of places beside a bound that they must reach, in the integers' own units: those are powers
// of two, so that no product with them rounds. The bound leaves room for rounding.
class SplitFilter {
 public:
  // Places of a feature, at most.
  static constexpr int64_t kPlaces = 256;

  explicit SplitFilter(const TreeSplitParams& p)
      : lambda_(p.rules.lambda / p.hessian_unit),
        alpha_(p.rules.alpha / p.gradient_unit),
        // Not 0: a child must have a hessian.
        least_hessian_(max_of(p.rules.min_child_weight / p.hessian_unit, 0x1p-1000)),
        gain_unit_(p.gradient_unit * p.gradient_unit / p.hessian_unit),
        total_(p.total),
        in_range_(is_moderate(p.gradient_unit) && is_moderate(p.hessian_unit)) {}

  struct Directions {
    bool right, left;
  };
  // Whether `gain`, of both children, may be reached behind one of the first `places` bins: with
  // missing values to the right, and with those to the left.
  Directions may_reach(double gain, const TreeCount* sums, int64_t places,
                       TreeCount missing) const {
    if (!in_range_ || places > kPlaces) return {true, true};
    const Task task{gain / gain_unit_ * (1 - kSlack), sums, places, missing};
    // Hessians are not negative, so that up to here all their sums are whole as doubles.
    const bool small = total_.hessian < int64_t(1) << 52;
    const bool any_missing = missing.gradient != 0 || missing.hessian != 0;
    const auto with = [](bool flag, auto body) {
      return flag ? body(std::true_type()) : body(std::false_type());
    };
    return with(alpha_ > 0, [&](auto l1) {
      return with(small, [&](auto narrow) {
        return with(any_missing, [&](auto both) { return reach<l1, narrow, both>(task); });
      });
    });
  }

 private:
  // Gradients' sums may be rounded, and differences of those beside small hessians be off by 2^-21.
  static constexpr double kSlack = 1e-5;
  struct Task {
    double least;
    const TreeCount* sums;
    int64_t places;
    TreeCount missing;
  };

  static bool is_moderate(double unit) { return unit > 0x1p-200 && unit < 0x1p200; }

  // kBoth: whether any values are missing.
  template <bool kL1, bool kSmall, bool kBoth>
  Directions reach(const Task& task) const {
    TreeCount lefts[kPlaces];
    TreeCount left{0, 0};
    for (int64_t i = 0; i < task.places; ++i) {
      add_to(left, task.sums[i]);
      lefts[i] = left;
    }
    const double lambda = lambda_, alpha = alpha_, least_hessian = least_hessian_;
    const double least = task.least;
    const auto reaches = [=](double low_g, double low_h, double high_g, double high_h) {
      if constexpr (kL1) {
        low_g = soft_threshold(low_g, alpha);
        high_g = soft_threshold(high_g, alpha);
      }
      const double under_low = low_h + lambda, under_high = high_h + lambda;
      const double above = low_g * low_g * under_high + high_g * high_g * under_low;
      return int64_t(above >= least * (under_low * under_high)) & int64_t(low_h >= least_hessian) &
             int64_t(high_h >= least_hessian);
    };
    const TreeCount total = total_, missing = task.missing;
    const double total_g = double(total.gradient), total_h = double(total.hessian);
    const double missing_g = double(missing.gradient), missing_h = double(missing.hessian);
    int64_t right_way = 0, left_way = 0;
    for (int64_t i = 0; i < task.places; ++i) {
      const TreeCount low = lefts[i];
      const double g = as_double(low.gradient), h = as_double(low.hessian);
      if constexpr (kSmall) {
        right_way |= reaches(g, h, total_g - g, total_h - h);
        if constexpr (!kBoth) continue;
        const double with_g = g + missing_g, with_h = h + missing_h;
        left_way |= reaches(with_g, with_h, total_g - with_g, total_h - with_h);
      } else {
        const TreeCount rest{total.gradient - low.gradient, total.hessian - low.hessian};
        right_way |= reaches(g, h, as_double(rest.gradient), as_double(rest.hessian));
        if constexpr (!kBoth) continue;
        left_way |= reaches(
            as_double(low.gradient + missing.gradient), as_double(low.hessian + missing.hessian),
            as_double(rest.gradient - missing.gradient), as_double(rest.hessian - missing.hessian));
      }
    }
    return {right_way != 0, left_way != 0};
  }

  double lambda_, alpha_, least_hessian_, gain_unit_;
  TreeCount total_;
  bool in_range_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
