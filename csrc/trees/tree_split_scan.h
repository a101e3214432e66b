// The best split of a node among the places of its features' histograms.
#pragma once
#include <algorithm>
#include <cmath>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/trees/tree_split_filter.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

TreeSum real_sum(const TreeSplitParams& params, TreeCount sum) {
  return {double(sum.gradient) * params.gradient_unit, double(sum.hessian) * params.hessian_unit};
}

// What the node gains unsplit.
double node_gain(const TreeSplitParams& params) {
  const TreeSum total = real_sum(params, params.total);
  return params.bounded
             ? gain_at(total, leaf_weight(total, params.rules, params.bounds), params.rules)
             : free_gain(total, params.rules);
}

// A node's categories in the order of the answers they would give alone: the best division of them
// in two is one of this order (Fisher, "On grouping for maximum homogeneity", 1958).
class CategoryOrder {
 public:
  struct Entry {
    double order;
    TreeCount sum;
    int32_t code;
  };
  CategoryOrder(const TreeSplitParams& params, const TreeCount* sums, int64_t bins) {
    for (int64_t c = 0; c < bins; ++c) {
      if (sums[c].gradient == 0 && sums[c].hessian == 0) continue;
      const TreeSum sum = real_sum(params, sums[c]);
      entries_.push_back({sum.gradient / (sum.hessian + params.rules.lambda), sums[c], int32_t(c)});
    }
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return a.order < b.order || (a.order == b.order && a.code < b.code);
    });
  }
  int64_t size() const { return entries_.size(); }
  const Entry& operator[](int64_t i) const { return entries_[i]; }

 private:
  Buffer<Entry> entries_;
};

// Both children's sums at each place of one feature.
class SplitScan {
 public:
  SplitScan(const TreeSplitParams& params, double parent_gain)
      : p_(params), filter_(params), parent_gain_(parent_gain), best_{-HUGE_VAL, -1, 0, 0,
                                                                      false,     {}, {}} {}

  // `sums`: (codes,), the feature's.
  void scan(int32_t feature, const TreeCount* sums, int64_t bins, int64_t codes) {
    const TreeCount missing = sums[codes - 1];
    const bool any_missing = missing.gradient != 0 || missing.hessian != 0;
    const int64_t places = bins - 1 + any_missing;
    SplitFilter::Directions better{true, true};
    if (!p_.bounded && best_.feature >= 0) {
      better = filter_.may_reach(best_.gain + parent_gain_, sums, places, missing);
    }
    if (better.right) scan_places(feature, sums, places, {0, 0}, false);
    if (any_missing && better.left) scan_places(feature, sums, bins - 1, missing, true);
  }

  // Few categories: each against all others. Else those at one end of their order go right, as long
  // as they or the others are not too many.
  void scan_categories(int32_t feature, const TreeCount* sums, int64_t bins, int64_t codes) {
    const TreeCount missing = sums[codes - 1];
    const bool any_missing = missing.gradient != 0 || missing.hessian != 0;
    if (bins <= p_.max_cat_to_onehot) {
      for (int64_t c = 0; c < bins; ++c) {
        offer_right(feature, int32_t(c), 1, sums[c], missing, any_missing);
      }
      return;
    }
    const CategoryOrder order(p_, sums, bins);
    TreeCount right{0, 0};
    for (int64_t i = 1; i <= order.size(); ++i) {
      add_to(right, order[i - 1].sum);
      if (std::min(i, order.size() - i) > p_.max_cat_threshold) continue;
      offer_right(feature, -1, int32_t(i), right, missing, any_missing);
    }
  }
  const TreeSplit& best() const { return best_; }
  TreeCount total() const { return p_.total; }
  // Only what gains more than this split is taken.
  void begin_from(const TreeSplit& split) { best_ = split; }

  // Places that are tried at once.
  static constexpr int64_t kPlaces = 128;

  // At most kPlaces places of a feature, by the sums to the left of each; code_at(i) names them.
  template <class CodeAt>
  void try_places(int32_t feature, const CodeAt& code_at, const int64_t* gradients,
                  const int64_t* hessians, int64_t places, bool default_left) {
    const auto try_one = [&](int64_t i) {
      offer({0, feature, code_at(i), 0, default_left, {gradients[i], hessians[i]}, {}});
    };
    if (p_.bounded) {
      for (int64_t i = 0; i < places; ++i) try_one(i);
      return;
    }
    const int64_t best = best_place(gradients, hessians, places);
    if (best >= 0) try_one(best);
  }

 private:
  // Behind each of the first `count` bins, with the sum `left` of missing values before them.
  void scan_places(int32_t feature, const TreeCount* sums, int64_t count, TreeCount left,
                   bool default_left) {
    int64_t gradients[kPlaces], hessians[kPlaces];
    for (int64_t first = 0; first < count; first += kPlaces) {
      const int64_t places = std::min(kPlaces, count - first);
      for (int64_t i = 0; i < places; ++i) {
        gradients[i] = left.gradient += sums[first + i].gradient;
        hessians[i] = left.hessian += sums[first + i].hessian;
      }
      const auto code_at = [first](int64_t i) { return int32_t(first + i); };
      try_places(feature, code_at, gradients, hessians, places, default_left);
    }
  }

  // The first place of the greatest gain, or -1 where none gains more than the best so far. Loops
  // of one step each, which compilers turn into SIMD.
  int64_t best_place(const int64_t* gradients, const int64_t* hessians, int64_t places) const {
    double left_g[kPlaces], left_h[kPlaces], right_g[kPlaces], right_h[kPlaces], gains[kPlaces];
    const TreeCount total = p_.total;
    for (int64_t i = 0; i < places; ++i) {
      left_g[i] = double(gradients[i]), left_h[i] = double(hessians[i]);
      right_g[i] = double(total.gradient - gradients[i]);
      right_h[i] = double(total.hessian - hessians[i]);
    }
    const TreeRegularisation rules = p_.rules;
    const double gradient_unit = p_.gradient_unit, hessian_unit = p_.hessian_unit;
    const double parent_gain = parent_gain_;
    for (int64_t i = 0; i < places; ++i) {
      const TreeSum left{left_g[i] * gradient_unit, left_h[i] * hessian_unit};
      const TreeSum right{right_g[i] * gradient_unit, right_h[i] * hessian_unit};
      gains[i] = free_children_gain(left, right, rules) - parent_gain;
    }
    constexpr int64_t kLanes = 8;
    double most[kLanes];
    for (double& gain : most) gain = -HUGE_VAL;
    int64_t i = 0;
    for (; i + kLanes <= places; i += kLanes) {
      for (int64_t j = 0; j < kLanes; ++j)
        most[j] = gains[i + j] > most[j] ? gains[i + j] : most[j];
    }
    for (; i < places; ++i) most[0] = std::max(most[0], gains[i]);
    const double greatest = *std::max_element(most, most + kLanes);
    if (!(greatest > best_.gain)) return -1;
    return std::find(gains, gains + places, greatest) - gains;
  }

  void offer_right(int32_t feature, int32_t code, int32_t categories, TreeCount right,
                   TreeCount missing, bool any_missing) {
    const TreeCount left{p_.total.gradient - right.gradient, p_.total.hessian - right.hessian};
    offer({0,
           feature,
           code,
           categories,
           false,
           {left.gradient - missing.gradient, left.hessian - missing.hessian},
           {}});
    if (any_missing) offer({0, feature, code, categories, true, left, {}});
  }
  // Takes the split where it gains more than the best; `gain` and `right` are found here.
  void offer(TreeSplit split) {
    split.right = {p_.total.gradient - split.left.gradient, p_.total.hessian - split.left.hessian};
    const int monotone = p_.monotone == nullptr ? 0 : p_.monotone[split.feature];
    split.gain = children_gain(real_sum(p_, split.left), real_sum(p_, split.right), p_.rules,
                               p_.bounds, monotone, p_.bounded) -
                 parent_gain_;
    if (split.gain > best_.gain) best_ = split;
  }

  const TreeSplitParams& p_;
  SplitFilter filter_;
  double parent_gain_;
  TreeSplit best_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
