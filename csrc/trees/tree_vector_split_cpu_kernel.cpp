// A node's places, each with the sums of all outputs on both sides.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/trees/tree_vector_split.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// What one output of a node gains by its answer. An output whose hessians are all 0 answers 0.
template <bool kBounded>
inline double output_gain(TreeSum sum, const TreeRegularisation& rules) {
  if (kBounded) {
    return gain_at(sum, leaf_weight(sum, rules, {-HUGE_VAL, HUGE_VAL}), rules);
  }
  const double gain = free_gain(sum, rules);
  return sum.hessian > 0 ? gain : 0.0;
}

template <bool kBounded>
class VectorScan {
 public:
  VectorScan(const TreeVectorSplitParams& params, const TreeCodes& codes)
      : p_(params), codes_(codes), best_{-HUGE_VAL, -1, 0, 0, false, {}, {}} {
    left_.resize(p_.outputs);
    for (int64_t k = 0; k < p_.outputs; ++k) {
      const TreeSum sum{double(p_.total[k].gradient) * p_.units[k].gradient,
                        double(p_.total[k].hessian) * p_.units[k].hessian};
      parent_gain_ += output_gain<kBounded>(sum, p_.rules);
    }
  }

  void scan(int32_t feature) {
    const int64_t bins = codes_.bins[feature];
    bool any_missing = false;
    for (int64_t k = 0; k < p_.outputs; ++k) {
      const TreeCount missing = sums_of(feature, k)[codes_.codes - 1];
      any_missing |= missing.gradient != 0 || missing.hessian != 0;
    }
    scan_places(feature, bins - 1 + any_missing, false);
    if (any_missing) scan_places(feature, bins - 1, true);
  }
  const TreeSplit& best() const { return best_; }

 private:
  // Places that are tried at once.
  static constexpr int64_t kPlaces = 128;
  struct Places {
    double gain[kPlaces], left[kPlaces], right[kPlaces];  // hessians of both sides, added up
  };

  const TreeCount* sums_of(int32_t feature, int64_t output) const {
    return p_.sums + (output * codes_.features + feature) * codes_.codes;
  }

  // Behind each of the first `count` bins, missing values left of them or right.
  void scan_places(int32_t feature, int64_t count, bool default_left) {
    for (int64_t k = 0; k < p_.outputs; ++k) {
      left_[k] = default_left ? sums_of(feature, k)[codes_.codes - 1] : TreeCount{0, 0};
    }
    const double share = 1.0 / double(p_.outputs);
    for (int64_t first = 0; first < count; first += kPlaces) {
      const int64_t places = min_of(kPlaces, count - first);
      Places at;
      for (int64_t i = 0; i < places; ++i) at.gain[i] = at.left[i] = at.right[i] = 0;
      for (int64_t k = 0; k < p_.outputs; ++k) {
        add_output(sums_of(feature, k) + first, k, places, at);
      }
      for (int64_t i = 0; i < places; ++i) {
        const bool allowed = is_heavy_enough({0, at.left[i] * share}, p_.rules) &&
                             is_heavy_enough({0, at.right[i] * share}, p_.rules);
        const double gain = at.gain[i] - parent_gain_;
        if (!allowed || !(gain > best_.gain)) continue;
        best_ = {gain, feature, int32_t(first + i), 0, default_left, {}, {}};
      }
    }
  }

  // Loops of one step each, which compilers turn into SIMD.
  void add_output(const TreeCount* sums, int64_t k, int64_t places, Places& at) {
    double left_g[kPlaces], left_h[kPlaces], right_g[kPlaces], right_h[kPlaces];
    TreeCount left = left_[k];
    const TreeCount total = p_.total[k];
    for (int64_t i = 0; i < places; ++i) {
      add_to(left, sums[i]);
      left_g[i] = double(left.gradient), left_h[i] = double(left.hessian);
      right_g[i] = double(total.gradient - left.gradient);
      right_h[i] = double(total.hessian - left.hessian);
    }
    left_[k] = left;
    const TreeRegularisation rules = p_.rules;
    const TreeSum unit = p_.units[k];
    for (int64_t i = 0; i < places; ++i) {
      const TreeSum low{left_g[i] * unit.gradient, left_h[i] * unit.hessian};
      const TreeSum high{right_g[i] * unit.gradient, right_h[i] * unit.hessian};
      at.gain[i] += output_gain<kBounded>(low, rules) + output_gain<kBounded>(high, rules);
      at.left[i] += low.hessian;
      at.right[i] += high.hessian;
    }
  }

  const TreeVectorSplitParams& p_;
  const TreeCodes& codes_;
  Buffer<TreeCount> left_;  // of each output, so far
  double parent_gain_ = 0;
  TreeSplit best_;
};

template <bool kBounded>
TreeSplit best_split(const TreeVectorSplitParams& params, const TreeCodes& codes, int64_t first,
                     int64_t last) {
  VectorScan<kBounded> scan(params, codes);
  for (int64_t i = first; i < last; ++i) scan.scan(params.features[i]);
  return scan.best();
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

TreeSplit TILEWRIGHT_ON_MACHINE(tree_best_vector_split)(const TreeVectorSplitParams& params,
                                                        const TreeCodes& codes, int64_t first,
                                                        int64_t last) {
  return params.bounded ? best_split<true>(params, codes, first, last)
                        : best_split<false>(params, codes, first, last);
}

}  // namespace tilewright
