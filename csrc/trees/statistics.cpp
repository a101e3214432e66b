#include "tilewright/trees/statistics.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "tilewright/core/math.h"
#include "tilewright/trees/quantile.h"

namespace tilewright::trees {
namespace {

constexpr int64_t kSummedTogether = 16384;  // values that one thread adds up
constexpr int64_t kLanes = 8;               // sums side by side

template <class T>
double sum_of(const T* values, int64_t count) {
  std::vector<double> parts(static_cast<size_t>(ceil_div(count, kSummedTogether)));
  at::parallel_for(0, int64_t(parts.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double lanes[kLanes] = {};
      const int64_t end = std::min((c + 1) * kSummedTogether, count);
      for (int64_t i = c * kSummedTogether; i < end; ++i) lanes[i % kLanes] += double(values[i]);
      for (const double lane : lanes) parts[size_t(c)] += lane;
    }
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

}  // namespace

double ordered_sum(const at::Tensor& values) {
  if (!values.is_cpu()) return values.sum(at::kDouble).item<double>();
  const at::Tensor v = values.contiguous();
  if (v.scalar_type() == at::kDouble) return sum_of(v.const_data_ptr<double>(), v.numel());
  const at::Tensor f = v.to(at::kFloat);
  return sum_of(f.const_data_ptr<float>(), f.numel());
}

double ordered_mean(const at::Tensor& values, const at::Tensor& weights) {
  if (!weights.defined()) return ordered_sum(values) / double(values.numel());
  const auto columns = double(values.numel() / weights.numel());
  return ordered_sum(values.to(at::kDouble) * weights) / (ordered_sum(weights) * columns);
}

double weighted_quantile(const at::Tensor& values, const at::Tensor& weights, double alpha) {
  const at::Tensor v = values.cpu().contiguous();
  const at::Tensor of = weights.defined() ? weights.cpu().contiguous() : weights;
  std::vector<QuantileItem> items(size_t(v.numel()));
  const auto* from = v.const_data_ptr<float>();
  const auto* w = of.defined() ? of.const_data_ptr<float>() : nullptr;
  for (size_t i = 0; i < items.size(); ++i) items[i] = {from[i], w == nullptr ? 1.f : w[i]};
  return quantile_of(items, alpha, w != nullptr);
}

}  // namespace tilewright::trees
