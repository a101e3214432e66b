// What AdaBoost's two ways to show rows to a tree have in common.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "tilewright/core/math.h"
#include "tilewright/trees/adaboost_rounds.h"

namespace tilewright::trees {

// Of classes: rows weigh what they weigh.
std::unique_ptr<AdaBoostRounds> weighed_rows(const ForestData& data,
                                             const AdaBoostOptions& options);
// Trees see rows drawn in proportion to their weights. values: (N,), or null of classes.
std::unique_ptr<AdaBoostRounds> drawn_rows(const ForestData& data, const double* values,
                                           const AdaBoostOptions& options);

// Weights that have become too small to tell from 0 must not vanish.
inline constexpr double kLeastWeight = std::numeric_limits<double>::epsilon();
inline constexpr int64_t kRowsOfLosses = 4096;  // rows whose sums are added up on their own

// The sum of term(row), by chunks in their order: the same for any number of threads.
template <class Term>
double sum_of(int64_t rows, const Term& term) {
  std::vector<double> parts(size_t(ceil_div(rows, kRowsOfLosses)));
  at::parallel_for(0, int64_t(parts.size()), 4, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double sum = 0;
      for (int64_t row = c * kRowsOfLosses; row < std::min((c + 1) * kRowsOfLosses, rows); ++row) {
        sum += term(row);
      }
      parts[size_t(c)] = sum;
    }
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

template <class Body>
void for_rows(int64_t rows, const Body& body) {
  at::parallel_for(0, rows, 4 * kRowsOfLosses, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

inline int64_t heaviest(const float* shares, int64_t num_class) {
  return std::max_element(shares, shares + num_class) - shares;
}

// The class that each node of a tree answers with.
inline std::vector<int64_t> answers_of(const ForestTree& tree, int64_t num_class) {
  std::vector<int64_t> answers(tree.feature.size());
  for (size_t n = 0; n < answers.size(); ++n) {
    answers[n] = heaviest(tree.value.data() + int64_t(n) * num_class, num_class);
  }
  return answers;
}

inline ForestParallel parallel_of(int64_t threads) {
  return threads > 1 ? &forest_parallel : nullptr;
}

}  // namespace tilewright::trees
