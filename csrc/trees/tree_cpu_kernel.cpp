// The loops that grow trees on the CPU: words, histograms, splits, partitions.
#include <cmath>

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class Body>
auto with_gradients(const TreeWordsParams& params, Body body) {
  if (params.is_double) {
    return body(static_cast<const double*>(params.gradients),
                static_cast<const double*>(params.hessians));
  }
  return body(static_cast<const float*>(params.gradients),
              static_cast<const float*>(params.hessians));
}

template <class Code>
void accumulate(const TreeCodes& codes, const int64_t* words, const int32_t* rows, int64_t count,
                int64_t first, int64_t last, int64_t* packed) {
  const Code* table = static_cast<const Code*>(codes.rows) + first;
  const int64_t stride = codes.row_stride, features = last - first;
  const int64_t step = sizeof(Code) == 1 ? 256 : codes.codes;
  int64_t* const begin = packed + first * step;
  const auto fetch = [&](int64_t i) {
    __builtin_prefetch(table + rows[i + kTreePrefetch] * stride);
    __builtin_prefetch(words + rows[i + kTreePrefetch]);
  };
  // Two rows side by side: their additions do not wait for each other.
  int64_t i = 0;
  for (; i + 2 <= count; i += 2) {
    fetch(i);
    fetch(i + 1);
    const Code *one = table + rows[i] * stride, *two = table + rows[i + 1] * stride;
    const int64_t word_one = words[rows[i]], word_two = words[rows[i + 1]];
    int64_t* bins = begin;
    int64_t f = 0;
    for (; f + 2 <= features; f += 2, bins += 2 * step) {
      bins[one[f]] += word_one;
      bins[step + one[f + 1]] += word_one;
      bins[two[f]] += word_two;
      bins[step + two[f + 1]] += word_two;
    }
    for (; f < features; ++f, bins += step) {
      bins[one[f]] += word_one;
      bins[two[f]] += word_two;
    }
  }
  for (; i < count; ++i) {
    const Code* row = table + rows[i] * stride;
    for (int64_t f = 0; f < features; ++f) begin[f * step + row[f]] += words[rows[i]];
  }
}

template <class Code>
void accumulate_pairs(const TreeCodes& codes, const TreeCount* pairs, const int32_t* rows,
                      int64_t count, int64_t first, int64_t last, TreeCount* sums) {
  const Code* table = static_cast<const Code*>(codes.rows);
  for (int64_t i = 0; i < count; ++i) {
    const Code* row = table + rows[i] * codes.row_stride;
    const TreeCount pair = pairs[rows[i]];
    for (int64_t f = first; f < last; ++f) {
      TreeCount& sum = sums[f * codes.codes + row[f]];
      sum.gradient += pair.gradient;
      sum.hessian += pair.hessian;
    }
  }
}

template <class T>
TreeCount fine_count(const TreeWordsParams& params, const T* gradients, const T* hessians,
                     int64_t row) {
  return {std::llrint(double(gradients[row]) * params.gradient_scale),
          std::llrint(double(hessians[row]) * params.hessian_scale)};
}

// Both children's sums at each place of one feature.
class SplitScan {
 public:
  SplitScan(const TreeSplitParams& params, double parent_gain)
      : p_(params), parent_gain_(parent_gain), best_{-HUGE_VAL, -1, 0, false, {}, {}} {}

  void scan(int32_t feature, int64_t bins, int64_t codes) {
    const TreeCount* sums = p_.sums + feature * codes;
    const TreeCount missing = sums[codes - 1];
    const bool any_missing = missing.gradient != 0 || missing.hessian != 0;
    TreeCount left{0, 0};
    for (int64_t b = 0; b + 1 < bins + any_missing; ++b) {
      left.gradient += sums[b].gradient;
      left.hessian += sums[b].hessian;
      if (sums[b].gradient == 0 && sums[b].hessian == 0) continue;  // as at the place before
      offer(feature, b, false, left);
    }
    if (!any_missing) return;
    left = missing;
    for (int64_t b = 0; b + 1 < bins; ++b) {
      left.gradient += sums[b].gradient;
      left.hessian += sums[b].hessian;
      offer(feature, b, true, left);
    }
  }
  const TreeSplit& best() const { return best_; }

 private:
  TreeSum real(TreeCount sum) const {
    return {double(sum.gradient) * p_.gradient_unit, double(sum.hessian) * p_.hessian_unit};
  }
  void offer(int32_t feature, int64_t bin, bool default_left, TreeCount left_count) {
    const TreeSum left = real(left_count);
    const TreeCount right_count{p_.total.gradient - left_count.gradient,
                                p_.total.hessian - left_count.hessian};
    const TreeSum right = real(right_count);
    const int monotone = p_.monotone == nullptr ? 0 : p_.monotone[feature];
    const double gain =
        children_gain(left, right, p_.rules, p_.bounds, monotone, p_.bounded) - parent_gain_;
    if (!(gain > best_.gain)) return;
    best_ = {gain, feature, int32_t(bin), default_left, left_count, right_count};
  }

  const TreeSplitParams& p_;
  double parent_gain_;
  TreeSplit best_;
};

// Both ends are written at every step, and what is not meant is overwritten later.
template <class Code, bool kDefaultLeft>
int64_t partition(const TreeCodes& codes, int32_t feature, int32_t code, const int32_t* rows,
                  int64_t count, int32_t* out) {
  const Code* column = static_cast<const Code*>(codes.columns) + int64_t(feature) * codes.count;
  const uint32_t missing = uint32_t(codes.codes - 1), last = uint32_t(code);
  int64_t left = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t row = rows[i];
    const uint32_t value = column[row];
    out[left] = row;
    out[count - 1 - (i - left)] = row;
    left += value <= last || (kDefaultLeft && value == missing);
  }
  return left;
}

template <class Code>
int64_t partition(const TreeCodes& codes, int32_t feature, int32_t code, bool default_left,
                  const int32_t* rows, int64_t count, int32_t* out) {
  return default_left ? partition<Code, true>(codes, feature, code, rows, count, out)
                      : partition<Code, false>(codes, feature, code, rows, count, out);
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

TreeExtremes TILEWRIGHT_ON_MACHINE(tree_extremes)(const TreeWordsParams& params, int64_t begin,
                                                  int64_t end) {
  return with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    TreeExtremes out{0, 0, -1};
    for (int64_t i = begin; i < end; ++i) {
      const double g = std::fabs(double(gradients[i])), h = double(hessians[i]);
      if (!(g < HUGE_VAL) || !(h >= 0 && h < HUGE_VAL)) {
        out.bad = i;
        return out;
      }
      out.gradient = max_of(out.gradient, g);
      out.hessian = max_of(out.hessian, h);
    }
    return out;
  });
}

void TILEWRIGHT_ON_MACHINE(tree_words)(const TreeWordsParams& params, int64_t begin, int64_t end) {
  with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    for (int64_t i = begin; i < end; ++i) {
      params.words[i] = tree_word(double(gradients[i]), double(hessians[i]), params.gradient_scale,
                                  params.hessian_scale, uint32_t(i));
    }
  });
}

void TILEWRIGHT_ON_MACHINE(tree_pairs)(const TreeWordsParams& params, TreeCount* pairs,
                                       int64_t count) {
  with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    for (int64_t i = 0; i < count; ++i) pairs[i] = fine_count(params, gradients, hessians, i);
  });
}

void TILEWRIGHT_ON_MACHINE(tree_accumulate_pairs)(const TreeCodes& codes, const TreeCount* pairs,
                                                  const int32_t* rows, int64_t count, int64_t first,
                                                  int64_t last, TreeCount* sums) {
  codes.wide ? accumulate_pairs<uint16_t>(codes, pairs, rows, count, first, last, sums)
             : accumulate_pairs<uint8_t>(codes, pairs, rows, count, first, last, sums);
}

TreeCount TILEWRIGHT_ON_MACHINE(tree_fine_sum)(const TreeWordsParams& params, const int32_t* rows,
                                               int64_t count) {
  return with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    TreeCount sum{0, 0};
    for (int64_t i = 0; i < count; ++i) {
      const TreeCount one = fine_count(params, gradients, hessians, rows[i]);
      sum.gradient += one.gradient;
      sum.hessian += one.hessian;
    }
    return sum;
  });
}

void TILEWRIGHT_ON_MACHINE(tree_accumulate)(const TreeCodes& codes, const int64_t* words,
                                            const int32_t* rows, int64_t count, int64_t first,
                                            int64_t last, int64_t* packed) {
  codes.wide ? accumulate<uint16_t>(codes, words, rows, count, first, last, packed)
             : accumulate<uint8_t>(codes, words, rows, count, first, last, packed);
}

void TILEWRIGHT_ON_MACHINE(tree_flush)(int64_t* packed, TreeCount* sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const TreeCount sum = count_of(packed[i]);
    sums[i].gradient += sum.gradient;
    sums[i].hessian += sum.hessian;
    packed[i] = 0;
  }
}

void TILEWRIGHT_ON_MACHINE(tree_subtract)(TreeCount* from, const TreeCount* what, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    from[i].gradient -= what[i].gradient;
    from[i].hessian -= what[i].hessian;
  }
}

TreeSplit TILEWRIGHT_ON_MACHINE(tree_best_split)(const TreeSplitParams& params,
                                                 const TreeCodes& codes, int64_t first,
                                                 int64_t last) {
  const TreeSum total{double(params.total.gradient) * params.gradient_unit,
                      double(params.total.hessian) * params.hessian_unit};
  const double parent =
      params.bounded ? gain_at(total, leaf_weight(total, params.rules, params.bounds), params.rules)
                     : free_gain(total, params.rules);
  SplitScan scan(params, parent);
  for (int64_t i = first; i < last; ++i) {
    const int32_t feature = params.features[i];
    scan.scan(feature, codes.bins[feature], codes.codes);
  }
  return scan.best();
}

int64_t TILEWRIGHT_ON_MACHINE(tree_partition)(const TreeCodes& codes, int32_t feature, int32_t code,
                                              bool default_left, const int32_t* rows, int64_t count,
                                              int32_t* out) {
  return codes.wide ? partition<uint16_t>(codes, feature, code, default_left, rows, count, out)
                    : partition<uint8_t>(codes, feature, code, default_left, rows, count, out);
}

}  // namespace tilewright
