// What splits are judged by: sums of rows in three forms, and the criteria over them.
//
// A score is what a criterion makes of one side, up to a constant for each unit of weight: of gini
// sum c^2 / w, of entropy sum c log c - w log w, of squared errors sum s^2 / w. What both children
// score beyond their parent is the decrease of impurity.
#pragma once
#include <cmath>
#include <cstdint>

#include "tilewright/core/math.h"
#include "tilewright/trees/forest_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

// Places that are scored at once: their arrays must hold so many more.
inline constexpr int64_t kForestGroup = 8;

inline double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0; }

// The least that a child must have.
struct ForestLeast {
  int64_t rows;
  double weight;
  bool any() const { return rows > 1 || weight > 0; }
};

// The rows' words: the table's, or a copy of a few of them.
struct ForestRows {
  const int64_t* words;
  const ForestLabel* labels;
  const double* values;
};

class PackedStats {
 public:
  PackedStats(const ForestTable&, const ForestRules& rules)
      : entropy_(rules.criterion == ForestCriterion::kEntropy), xlogx_(rules.xlogx) {}
  static constexpr int64_t kWidth = 1;  // where it is known when compiled, else 0
  static constexpr int64_t width() { return kWidth; }
  static constexpr int64_t row_width() { return 1; }

  static void add(const ForestRows& rows, int64_t row, int64_t* sum) { *sum += rows.words[row]; }
  static void add_if(const ForestRows& rows, int64_t row, bool wanted, int64_t* sum) {
    *sum += rows.words[row] & -int64_t(wanted);
  }
  static int64_t count(const int64_t* sum) { return *sum & kField; }
  static double weight(const int64_t* sum) { return double(weight_of(*sum)); }
  bool pure(const ForestRows&, const int32_t*, int64_t, const int64_t* sum) const {
    const int64_t one = one_of(*sum);
    return one == 0 || one == weight_of(*sum);
  }
  double score(const int64_t* sum) const {
    const int64_t w = weight_of(*sum), one = one_of(*sum);
    if (entropy_) return xlogx_[one] + xlogx_[w - one] - xlogx_[w];
    return w == 0 ? 0 : -2 * (double(one) * double(w - one)) / double(w);
  }

  // out[t]: what both sides of cum[t] + shift score.
  void scores(const int64_t* cum, int64_t count, const int64_t* shift, const int64_t* total,
              const ForestLeast& least, int64_t*, double* out) const {
    const int64_t all = *total, all_one = one_of(all), all_weight = weight_of(all), add = *shift;
    if (entropy_) {
      for (int64_t t = 0; t < count; ++t) {
        const int64_t left = cum[t] + add, w = weight_of(left), one = one_of(left);
        const int64_t w_right = all_weight - w, one_right = all_one - one;
        out[t] = xlogx_[one] + xlogx_[w - one] - xlogx_[w] +
                 (xlogx_[one_right] + xlogx_[w_right - one_right] - xlogx_[w_right]);
      }
    } else {
      const auto whole_one = double(all_one), whole = double(all_weight);
      // Whole groups, though what lies beyond `count` is not asked for.
      for (int64_t group = 0; group < count; group += kForestGroup) {
        for (int64_t t = group; t < group + kForestGroup; ++t) {
          const int64_t left = cum[t] + add;
          const auto w = double(int32_t(weight_of(left))), one = double(int32_t(one_of(left)));
          const double w_right = whole - w, one_right = whole_one - one;
          out[t] = -2 * (one * (w - one) * w_right + one_right * (w_right - one_right) * w) /
                   (w * w_right);
        }
      }
    }
    if (!least.any()) return;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t left = cum[t] + add;
      const int64_t rows = left & kField, right = (all & kField) - rows;
      const auto w = double(weight_of(left));
      const bool ok = rows >= least.rows && right >= least.rows && w >= least.weight &&
                      double(all_weight) - w >= least.weight;
      if (!ok) out[t] = -HUGE_VAL;
    }
  }
  void value(const int64_t* sum, float* out) const {
    const auto w = double(weight_of(*sum)), one = double(one_of(*sum));
    out[0] = float((w - one) / w);
    out[1] = float(one / w);
  }

 private:
  static constexpr int64_t kField = (int64_t(1) << kForestFieldBits) - 1;
  static int64_t weight_of(int64_t word) { return (word >> kForestFieldBits) & kField; }
  static int64_t one_of(int64_t word) { return word >> (2 * kForestFieldBits); }
  bool entropy_;
  const double* xlogx_;
};

// Scores one place after the other: what the two general forms share.
template <class Stats>
inline void forest_scores(const Stats& stats, const int64_t* cum, int64_t count,
                          const int64_t* shift, const int64_t* total, const ForestLeast& least,
                          int64_t* sides, double* out) {
  const int64_t width = stats.width();
  int64_t *left = sides, *right = sides + width;
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t i = 0; i < width; ++i) {
      left[i] = cum[t * width + i] + shift[i];
      right[i] = total[i] - left[i];
    }
    const bool ok = stats.count(left) >= least.rows && stats.count(right) >= least.rows &&
                    stats.weight(left) >= least.weight && stats.weight(right) >= least.weight &&
                    stats.weight(left) > 0 && stats.weight(right) > 0;
    out[t] = ok ? stats.score(left) + stats.score(right) : -HUGE_VAL;
  }
}

// kClasses and kOutputs: known when compiled, or 0.
template <int kClasses>
class ClassStats {
 public:
  ClassStats(const ForestTable& table, const ForestRules& rules)
      : given_(table.outputs), entropy_(rules.criterion == ForestCriterion::kEntropy) {}
  int64_t classes() const { return kClasses > 0 ? kClasses : given_; }
  static constexpr int64_t kWidth = kClasses > 0 ? kClasses + 1 : 0;
  int64_t width() const { return classes() + 1; }
  static constexpr int64_t row_width() { return 1; }

  void add(const ForestRows& rows, int64_t row, int64_t* sum) const {
    sum[rows.labels[row]] += rows.words[row];
    ++sum[classes()];
  }
  void add_if(const ForestRows& rows, int64_t row, bool wanted, int64_t* sum) const {
    sum[rows.labels[row]] += rows.words[row] & -int64_t(wanted);
    sum[classes()] += wanted;
  }
  int64_t count(const int64_t* sum) const { return sum[classes()]; }
  double weight(const int64_t* sum) const {
    int64_t total = 0;
    for (int64_t k = 0; k < classes(); ++k) total += sum[k];
    return double(total);
  }
  bool pure(const ForestRows&, const int32_t*, int64_t, const int64_t* sum) const {
    int64_t present = 0;
    for (int64_t k = 0; k < classes(); ++k) present += sum[k] != 0;
    return present <= 1;
  }
  double score(const int64_t* sum) const {
    double squares = 0;
    int64_t total = 0;
    if (entropy_) {
      for (int64_t k = 0; k < classes(); ++k) squares += x_log_x(double(sum[k])), total += sum[k];
      return squares - x_log_x(double(total));
    }
    for (int64_t k = 0; k < classes(); ++k) {
      squares += double(sum[k]) * double(sum[k]);
      total += sum[k];
    }
    return squares / double(total);
  }
  void scores(const int64_t* cum, int64_t count, const int64_t* shift, const int64_t* total,
              const ForestLeast& least, int64_t* sides, double* out) const {
    if (classes() == 2 && !entropy_ && !least.any())
      return two_classes(cum, count, shift, total, out);
    forest_scores(*this, cum, count, shift, total, least, sides, out);
  }
  void value(const int64_t* sum, float* out) const {
    const double all = weight(sum);
    for (int64_t k = 0; k < classes(); ++k) out[k] = all > 0 ? float(double(sum[k]) / all) : 0;
  }

 private:
  static void two_classes(const int64_t* cum, int64_t count, const int64_t* shift,
                          const int64_t* total, double* out) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t a = cum[3 * t] + shift[0], b = cum[3 * t + 1] + shift[1];
      const auto l0 = double(a), l1 = double(b);
      const auto r0 = double(total[0] - a), r1 = double(total[1] - b);
      const double w = l0 + l1, w_right = r0 + r1;
      const double score = (l0 * l0 + l1 * l1) / w + (r0 * r0 + r1 * r1) / w_right;
      out[t] = w > 0 && w_right > 0 ? score : -HUGE_VAL;
    }
  }
  int64_t given_;
  bool entropy_;
};

template <int kOutputs>
class ValueStats {
 public:
  ValueStats(const ForestTable& table, const ForestRules&)
      : given_(table.outputs),
        centre_(table.centre),
        unit_(table.value_unit),
        weight_unit_(table.weight_unit) {}
  int64_t outputs() const { return kOutputs > 0 ? kOutputs : given_; }
  static constexpr int64_t kWidth = kOutputs > 0 ? kOutputs + 2 : 0;
  int64_t width() const { return outputs() + 2; }
  int64_t row_width() const { return outputs() + 2; }

  void add(const ForestRows& rows, int64_t row, int64_t* sum) const {
    const int64_t* words = rows.words + row * width();
    for (int64_t i = 0; i < width(); ++i) sum[i] += words[i];
  }
  void add_if(const ForestRows& rows, int64_t row, bool wanted, int64_t* sum) const {
    const int64_t *words = rows.words + row * width(), mask = -int64_t(wanted);
    for (int64_t i = 0; i < width(); ++i) sum[i] += words[i] & mask;
  }
  int64_t count(const int64_t* sum) const { return sum[outputs() + 1]; }
  double weight(const int64_t* sum) const { return double(sum[outputs()]); }
  bool pure(const ForestRows& rows, const int32_t* list, int64_t count, const int64_t*) const {
    const double* first = rows.values + list[0] * outputs();
    for (int64_t i = 1; i < count; ++i) {
      const double* other = rows.values + list[i] * outputs();
      for (int64_t o = 0; o < outputs(); ++o) {
        if (other[o] != first[o]) return false;
      }
    }
    return true;
  }
  double score(const int64_t* sum) const {
    double squares = 0;
    for (int64_t o = 0; o < outputs(); ++o) squares += double(sum[o]) * double(sum[o]);
    return squares / double(sum[outputs()]);
  }
  void scores(const int64_t* cum, int64_t count, const int64_t* shift, const int64_t* total,
              const ForestLeast& least, int64_t* sides, double* out) const {
    if (outputs() == 1 && !least.any()) return one_output(cum, count, shift, total, out);
    forest_scores(*this, cum, count, shift, total, least, sides, out);
  }
  void value(const int64_t* sum, float* out) const {
    const double all = double(sum[outputs()]) * weight_unit_;
    for (int64_t o = 0; o < outputs(); ++o) {
      out[o] = float(centre_[o] + double(sum[o]) * unit_ / all);
    }
  }

 private:
  static void one_output(const int64_t* cum, int64_t count, const int64_t* shift,
                         const int64_t* total, double* out) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t s = cum[3 * t] + shift[0], w = cum[3 * t + 1] + shift[1];
      const auto left = double(s), right = double(total[0] - s);
      const auto weight = double(w), weight_right = double(total[1] - w);
      const double score = left * left / weight + right * right / weight_right;
      out[t] = weight > 0 && weight_right > 0 ? score : -HUGE_VAL;
    }
  }
  int64_t given_;
  const double* centre_;
  double unit_, weight_unit_;
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
