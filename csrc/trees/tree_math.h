// The formulas of second-order boosting, for every machine: what a leaf answers, what a split
// gains. Chen and Guestrin, "XGBoost: a scalable tree boosting system" (arXiv:1603.02754).
#pragma once
#include "tilewright/core/math.h"

// Data of all machines alike.
namespace tilewright {

// Sums of gradients and hessians over rows.
struct TreeSum {
  double gradient, hessian;
};

// The same as integers, as histograms hold them: sums have no order.
struct TreeCount {
  int64_t gradient, hessian;
};

struct TreeRegularisation {
  double lambda;            // L2 of leaves
  double alpha;             // L1 of leaves
  double gamma;             // what a split must gain
  double min_child_weight;  // the least hessian of a child
  double max_delta_step;    // the greatest leaf, 0: any
};

// What a leaf may answer, by monotone constraints above it.
struct TreeBounds {
  double lower, upper;
};

}  // namespace tilewright

namespace tilewright::inline TILEWRIGHT_MACHINE {

TILEWRIGHT_HD void add_to(TreeCount& sum, TreeCount more) {
  sum.gradient += more.gradient;
  sum.hessian += more.hessian;
}

// Gains up to here are rounding.
inline constexpr double kLeastGain = 1e-6;

TILEWRIGHT_HD double soft_threshold(double gradient, double alpha) {
  return gradient > alpha ? gradient - alpha : gradient < -alpha ? gradient + alpha : 0.0;
}

// The answer that lowers the loss most, before the learning rate.
TILEWRIGHT_HD double leaf_weight(TreeSum sum, const TreeRegularisation& rules, TreeBounds bounds) {
  if (!(sum.hessian > 0)) return 0;
  double weight = -soft_threshold(sum.gradient, rules.alpha) / (sum.hessian + rules.lambda);
  if (rules.max_delta_step > 0) {
    weight = min_of(max_of(weight, -rules.max_delta_step), rules.max_delta_step);
  }
  return min_of(max_of(weight, bounds.lower), bounds.upper);
}

// Twice what a leaf with that answer lowers the loss by.
TILEWRIGHT_HD double gain_at(TreeSum sum, double weight, const TreeRegularisation& rules) {
  const double magnitude = weight < 0 ? -weight : weight;
  const double slope = 2 * (sum.gradient * weight + rules.alpha * magnitude);
  return -(slope + (sum.hessian + rules.lambda) * weight * weight);
}

// The same at the best answer where nothing bounds it.
TILEWRIGHT_HD double free_gain(TreeSum sum, const TreeRegularisation& rules) {
  const double gradient = soft_threshold(sum.gradient, rules.alpha);
  return gradient * gradient / (sum.hessian + rules.lambda);
}

TILEWRIGHT_HD bool is_heavy_enough(TreeSum sum, const TreeRegularisation& rules) {
  return (sum.hessian > 0) & (sum.hessian >= rules.min_child_weight);
}

// The gain of both children where nothing bounds answers, or -infinity where the split is not
// allowed. No branch: several places are tried at once.
TILEWRIGHT_HD double free_children_gain(TreeSum left, TreeSum right,
                                        const TreeRegularisation& rules) {
  const double gain = free_gain(left, rules) + free_gain(right, rules);
  const bool allowed = is_heavy_enough(left, rules) & is_heavy_enough(right, rules);
  return allowed ? gain : -HUGE_VAL;
}

// The same with bounds. `monotone`: +1 where
// answers must not fall from left to right, -1 where they must not rise, 0.
TILEWRIGHT_HD double children_gain(TreeSum left, TreeSum right, const TreeRegularisation& rules,
                                   TreeBounds bounds, int monotone, bool bounded) {
  if (!bounded) return free_children_gain(left, right, rules);
  if (!is_heavy_enough(left, rules) || !is_heavy_enough(right, rules)) return -HUGE_VAL;
  const double low = leaf_weight(left, rules, bounds), high = leaf_weight(right, rules, bounds);
  if ((monotone > 0 && low > high) || (monotone < 0 && low < high)) return -HUGE_VAL;
  return gain_at(left, low, rules) + gain_at(right, high, rules);
}

// Fixed point. A row's gradient and hessian stand in one word, the gradient above; the sum of
// kTreeWordRows words still tells both.
inline constexpr int kTreeHessianBits = 16, kTreeGradientBits = 24, kTreeWordShift = 28;
inline constexpr int64_t kTreeWordRows = int64_t(1) << (kTreeWordShift - kTreeHessianBits);

// Rounds up or down by the row's place, so that many equal values are right in the mean; exact
// where the product is whole. The golden ratio's multiples spread evenly.
TILEWRIGHT_HD double dither(uint32_t row) { return double(row * 2654435769u) * 0x1p-32; }

TILEWRIGHT_HD int64_t tree_word(double gradient, double hessian, double gradient_scale,
                                double hessian_scale, uint32_t row) {
  const double most_gradient = double((int64_t(1) << (kTreeGradientBits - 1)) - 1);
  const double most_hessian = double((int64_t(1) << kTreeHessianBits) - 1);
  const double g = floor(gradient * gradient_scale + dither(row));
  const double h = floor(hessian * hessian_scale + dither(row));
  const int64_t whole = int64_t(min_of(max_of(g, -most_gradient), most_gradient));
  return whole * (int64_t(1) << kTreeWordShift) + int64_t(min_of(max_of(h, 0.0), most_hessian));
}
TILEWRIGHT_HD TreeCount count_of(int64_t word) {
  return {word >> kTreeWordShift, word & ((int64_t(1) << kTreeWordShift) - 1)};
}

// 2^k so that values up to `most` fill `bits` bits.
TILEWRIGHT_HD double tree_scale(double most, int bits) {
  if (!(most > 0)) return 1;
  int exponent = 0;
  frexp(most, &exponent);
  return ldexp(1.0, min_of(bits - exponent, 1023));
}
// The finest integers of values whose sum over so many rows fits 63 bits.
TILEWRIGHT_HD int tree_fine_bits(int64_t rows) {
  int bits = 62;
  while (bits > 1 && rows >> (62 - bits)) --bits;
  return bits;
}
TILEWRIGHT_HD TreeCount tree_pair(double gradient, double hessian, double gradient_scale,
                                  double hessian_scale) {
  return {llrint(gradient * gradient_scale), llrint(hessian * hessian_scale)};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
