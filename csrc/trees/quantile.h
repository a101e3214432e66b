// Quantiles of weighted values.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace tilewright::trees {

struct QuantileItem {
  float value, weight;
};

// Without weights the (n + 1) alpha-th of the ascending values, between neighbours in proportion;
// with weights the first value up to which at least alpha of the weight lies. Reorders the items.
inline double quantile_of(std::vector<QuantileItem>& items, double alpha, bool weighted) {
  if (items.empty()) return 0;
  const auto less = [](const QuantileItem& a, const QuantileItem& b) { return a.value < b.value; };
  if (weighted) {
    std::sort(items.begin(), items.end(), less);
    double total = 0, below = 0;
    for (const QuantileItem& item : items) total += item.weight;
    for (const QuantileItem& item : items) {
      below += item.weight;
      if (below >= alpha * total) return item.value;
    }
    return items.back().value;
  }
  const auto count = double(items.size());
  const double place = std::min(std::max(alpha * (count + 1), 1.0), count) - 1;
  const auto low = items.begin() + int64_t(place);
  std::nth_element(items.begin(), low, items.end(), less);
  const double share = place - double(int64_t(place));
  if (share == 0 || low + 1 == items.end()) return low->value;
  const double next = std::min_element(low + 1, items.end(), less)->value;
  return double(low->value) + share * (next - double(low->value));
}

}  // namespace tilewright::trees
