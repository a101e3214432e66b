// The splits of extremely randomised trees: one drawn threshold for each feature.
#pragma once
#include "tilewright/trees/forest_search.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

template <class Code, class Stats>
void ForestSearch<Code, Stats>::offer_drawn(const ForestNodeView<Code>& node,
                                            const int32_t* features, int64_t count,
                                            const ForestChance* chances, bool* constant) {
  const uint32_t missing = uint32_t(table_->missing);
  const int64_t width = stats_->width(), last = table_->max_bin, rows = node.count;
  uint32_t low[kMostAtOnce], high[kMostAtOnce], at[kMostAtOnce], also[kMostAtOnce];
  bool any_missing[kMostAtOnce], missing_left[kMostAtOnce];
  for (int64_t j = 0; j < count; ++j) {
    low[j] = missing;
    high[j] = 0;
    any_missing[j] = false;
  }
  for (int64_t i = 0; i < rows; ++i) {
    const Code* codes = node.codes + node.rows[i] * node.stride;
    for (int64_t j = 0; j < count; ++j) {
      const uint32_t code = codes[features[j]];
      const bool gone = code == missing;
      any_missing[j] |= gone;
      low[j] = min_of(low[j], code);  // missing is the greatest code
      high[j] = max_of(high[j], gone ? 0 : code);
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    const bool all_missing = low[j] == missing;
    constant[j] = all_missing || (low[j] == high[j] && !any_missing[j]);
    at[j] = high[j];
    missing_left[j] = false;
    if (constant[j] || low[j] == high[j]) continue;
    missing_left[j] = any_missing[j] && chances[j].missing_left;
    // The last bin whose values all lie at or below the threshold; the outer two stay apart.
    const float* most = table_->most + features[j] * last;
    const double from = table_->least[features[j] * last + low[j]], to = most[high[j]];
    const double threshold = from * (1 - chances[j].place) + to * chances[j].place;
    const float* first = most + low[j] + 1;
    for (int64_t left = int64_t(high[j]) - low[j] - 1; left > 0;) {
      const int64_t half = (left + 1) / 2;
      first += half * (double(first[half - 1]) <= threshold);  // a product: no branch to guess
      left -= half;
    }
    at[j] = uint32_t(first - most - 1);
  }
  for (int64_t j = 0; j < count; ++j) also[j] = missing_left[j] ? missing : at[j];
  std::memset(side_.data(), 0, size_t(count * width) * sizeof(int64_t));
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = node.rows[i];
    const Code* codes = node.codes + row * node.stride;
    for (int64_t j = 0; j < count; ++j) {
      const uint32_t code = codes[features[j]];
      stats_->add_if(node.data, row, code <= at[j] || code == also[j], side_.data() + j * width);
    }
  }
  int64_t *none = sums_.data() + width, *sides = sums_.data() + 2 * width;
  std::memset(none, 0, size_t(width) * sizeof(int64_t));
  for (int64_t j = 0; j < count; ++j) {
    const int64_t* left = side_.data() + j * width;
    const int64_t rows_left = stats_->count(left);
    if (constant[j] || rows_left == 0 || rows_left == rows) continue;
    stats_->scores(left, 1, none, node.total, least_, sides, scores_.data());
    if (!(scores_[0] > best_.score)) continue;
    best_ = {scores_[0], features[j], int32_t(at[j]), missing_left[j], any_missing[j], -1};
    std::memcpy(left_.data(), left, size_t(width) * sizeof(int64_t));
  }
}

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
