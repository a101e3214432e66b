// What all objectives share: gradients by chunks of rows, a first score where no rule gives one.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/objectives.h"
#include "tilewright/trees/statistics.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kRowsOfGradients = 16384;  // rows whose gradients are found together

}  // namespace

void Objective::check_labels(const Tensor&) const {}

void Objective::set_targets(int64_t targets) {
  TILEWRIGHT_CHECK("trees", targets == 1,
                   "classes and relevances are labels of one column, (N,), got ", targets,
                   " columns");
}

Metric Objective::default_metric() const {
  return {metric_name(), false, [this](const Tensor& scores, const Tensor&, const Targets& t) {
            const auto measure = [&] { return metric(scores, t.labels, t.weights); };
            return rows_are_apart() ? serially(measure) : measure();
          }};
}

std::pair<Tensor, Tensor> Objective::weighted_derivatives(const Tensor& scores,
                                                          const Tensor& labels,
                                                          const Tensor& weights) const {
  auto [gradient, hessian] = derivatives(scores, labels);
  if (!weights.defined()) return {gradient, hessian};
  const Tensor w = weights.to(at::kDouble);  // a weight of 2 is the row twice
  return {gradient * w, hessian * w};
}

Objective::Gradients Objective::gradients(const Tensor& scores, const Tensor& labels,
                                          const Tensor& weights, const Gradients& earlier) const {
  const int64_t rows = scores.size(1);
  // Of few rows as float64: ATen's float32 functions round a value by its place in the tensor,
  // which the exact histograms of few rows would show.
  if (rows <= kFewTreeRows) {
    return weighted_derivatives(scores.to(at::kDouble), labels, weights);
  }
  if (!rows_are_apart() || !scores.is_cpu()) return weighted_derivatives(scores, labels, weights);
  // Of many in chunks whose places do not depend on the number of threads, for the same reason;
  // what ATen leaves between its steps stays in a second-level cache then.
  const auto type = weights.defined() ? at::kDouble : scores.scalar_type();
  Tensor out[] = {earlier.first, earlier.second};
  for (Tensor& part : out) {
    if (!part.defined()) part = at::empty(scores.sizes(), type);
  }
  const auto size = size_t(out[0].element_size());
  at::parallel_for(0, ceil_div(rows, kRowsOfGradients), 1, [&](int64_t first, int64_t last) {
    for (int64_t begin = first * kRowsOfGradients; begin < std::min(last * kRowsOfGradients, rows);
         begin += kRowsOfGradients) {
      const int64_t count = std::min(kRowsOfGradients, rows - begin);
      const auto found =
          weighted_derivatives(scores.narrow(1, begin, count), labels.narrow(-1, begin, count),
                               weights.defined() ? weights.narrow(0, begin, count) : weights);
      const Tensor parts[] = {found.first.to(type).contiguous(),
                              found.second.to(type).contiguous()};
      for (int which = 0; which < 2; ++which) {
        const auto* from = static_cast<const char*>(parts[which].const_data_ptr());
        auto* to = static_cast<char*>(out[which].mutable_data_ptr());
        for (int64_t k = 0; k < outputs_; ++k) {
          std::memcpy(to + size * size_t(k * rows + begin), from + size * size_t(k * count),
                      size * size_t(count));
        }
      }
    }
  });
  return {out[0], out[1]};
}

// The best of a Newton step from 0, not regularised, which may leap anywhere where the loss is flat
// at 0, of the labels' median, and of 0.
Tensor Objective::base_score(const Tensor& labels, const Tensor& weights) const {
  const int64_t rows = labels.size(-1);
  const auto [gradient, hessian] =
      gradients(at::zeros({outputs_, rows}, labels.options().dtype(at::kFloat)), labels, weights);
  const Tensor step = at::empty({outputs_}, at::kFloat);
  for (int64_t k = 0; k < outputs_; ++k) {
    step[k].fill_(-ordered_sum(gradient[k]) / ordered_sum(hessian[k]));
  }
  std::vector<Tensor> candidates{step};
  if (outputs_ == targets_) {
    candidates.push_back(
        by_column(labels, [&](const Tensor& y) { return weighted_quantile(y, weights, 0.5); }));
  }
  candidates.push_back(at::zeros({outputs_}, at::kFloat));
  for (Tensor& scores : candidates) scores = scores.to(labels.device());
  Tensor best = candidates.back();
  double least = HUGE_VAL;
  for (const Tensor& scores : candidates) {
    if (!at::isfinite(scores).all().item<bool>()) continue;
    const double loss = metric(scores.unsqueeze(1).repeat({1, rows}), labels, weights);
    if (loss < least) least = loss, best = scores;
  }
  return best;
}

}  // namespace tilewright::trees
