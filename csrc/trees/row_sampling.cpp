// Rows by Philox, and by their gradients.
#include "tilewright/trees/row_sampling.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/tree_sampling.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

// A share of the rows, ascending.
std::vector<int32_t> draw_share(int64_t rows, double share, int64_t round, uint64_t seed) {
  constexpr int64_t kChunk = 65536;
  std::vector<std::vector<int32_t>> parts(size_t(ceil_div(rows, kChunk)));
  at::parallel_for(0, int64_t(parts.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      draw_rows(c * kChunk, std::min((c + 1) * kChunk, rows), share, uint32_t(round), seed,
                parts[size_t(c)]);
    }
  });
  std::vector<int32_t> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

// Which rows are among the `count` of greatest importance; of equal ones those that come first.
std::vector<bool> greatest(const Tensor& importance, int64_t count) {
  const auto* from = importance.const_data_ptr<double>();
  // What is no number counts as the greatest: there must be an order. The fit refuses it later on.
  std::vector<double> values(from, from + importance.numel());
  for (double& value : values) value = std::isnan(value) ? HUGE_VAL : value;
  std::vector<bool> out(values.size(), false);
  if (count == 0) return out;
  std::nth_element(values.begin(), values.begin() + count - 1, values.end(), std::greater<>());
  const double least = values[size_t(count - 1)];
  int64_t equal = count - std::count_if(values.begin(), values.begin() + count,
                                        [&](double value) { return value > least; });
  for (size_t i = 0; i < out.size(); ++i) {
    const double value = std::isnan(from[i]) ? HUGE_VAL : from[i];
    out[i] = value > least || (value == least && equal-- > 0);
  }
  return out;
}

}  // namespace

Tensor goss_importance(const Tensor& gradients, const Tensor& hessians) {
  Tensor sum = at::zeros({gradients.size(1)}, gradients.options().dtype(at::kDouble));
  for (int64_t k = 0; k < gradients.size(0); ++k) sum += (gradients[k] * hessians[k]).abs();
  return sum;
}

RowDraw draw_rows_of_round(const RowSampling& sampling, double learning_rate, int64_t round,
                           uint64_t seed, Tensor& gradients, Tensor& hessians) {
  const int64_t rows = gradients.size(1);
  RowDraw draw;
  if (!sampling.goss) {
    if (sampling.subsample < 1) {
      draw.rows = draw_share(rows, sampling.subsample, round, seed);
      if (draw.rows.empty()) draw.rows.push_back(0);
    }
    return draw;
  }
  if (!sampling.goss_in(round, learning_rate)) return draw;
  const auto count = int64_t(double(rows) * sampling.top_rate);
  const std::vector<bool> top = greatest(goss_importance(gradients, hessians), count);
  const double share = sampling.other_share();
  const std::vector<int32_t> others = draw_share(rows, share, round, seed);
  const auto factor = float(1 / share);
  draw.factor = at::ones({rows}, at::kFloat);
  auto* factors = draw.factor.mutable_data_ptr<float>();
  size_t next = 0;
  for (int32_t row = 0; row < int32_t(rows); ++row) {
    const bool drawn = next < others.size() && others[next] == row;
    next += drawn;
    if (!top[size_t(row)] && !drawn) continue;
    draw.rows.push_back(row);
    if (!top[size_t(row)]) factors[row] = factor;
  }
  if (draw.rows.empty()) draw.rows.push_back(0);
  gradients.mul_(draw.factor);
  hessians.mul_(draw.factor);
  return draw;
}

}  // namespace tilewright::trees
