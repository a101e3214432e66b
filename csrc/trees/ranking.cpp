// LambdaRank, a query at a time.
#include "tilewright/trees/ranking.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/refuse_rows.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr double kLeastDistance = 0.01;
constexpr float kGreatestLabel = 31;  // beyond it 2^label - 1 says nothing in float32 sums
constexpr int64_t kQueryGrain = 16;

double gain_of(float label, bool exp_gain) { return exp_gain ? std::exp2(label) - 1 : label; }
double discount_of(int64_t place) { return 1 / std::log2(double(place) + 2); }

int64_t places(int64_t count, int64_t cut_off) {
  return cut_off > 0 ? std::min(count, cut_off) : count;
}

// Rows of one query from the greatest value on; equal ones stay in order.
template <class T>
std::vector<int64_t> descending(const T* values, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  return order;
}

double discounted_gain(const std::vector<int64_t>& order, const float* labels, int64_t cut_off,
                       bool exp_gain) {
  double sum = 0;
  for (int64_t i = 0, count = places(int64_t(order.size()), cut_off); i < count; ++i) {
    sum += gain_of(labels[order[size_t(i)]], exp_gain) * discount_of(i);
  }
  return sum;
}

template <class T>
void query_gradients(const T* scores, const float* labels, int64_t count,
                     const RankingOptions& options, double* gradient, double* hessian) {
  const double best =
      discounted_gain(descending(labels, count), labels, options.truncation, options.exp_gain);
  if (!(best > 0)) return;
  const std::vector<int64_t> order = descending(scores, count);
  const bool by_distance = options.normalize && scores[order.front()] != scores[order.back()];
  std::vector<double> gains, discounts;  // by place
  for (int64_t i = 0; i < count; ++i) {
    gains.push_back(gain_of(labels[order[size_t(i)]], options.exp_gain));
    discounts.push_back(discount_of(i));
  }
  double sum = 0;
  for (int64_t i = 0, top = places(count, options.truncation); i < top; ++i) {
    for (int64_t j = i + 1; j < count; ++j) {
      int64_t high = order[size_t(i)], low = order[size_t(j)];
      if (labels[high] == labels[low]) continue;
      if (labels[high] < labels[low]) std::swap(high, low);
      const double distance = double(scores[high]) - double(scores[low]);
      double change = std::abs((gains[size_t(i)] - gains[size_t(j)]) *
                               (discounts[size_t(i)] - discounts[size_t(j)])) /
                      best;
      if (by_distance) change /= std::abs(distance) + kLeastDistance;
      const double p = 1 / (1 + std::exp(-distance));
      const double slope = (1 - p) * change;
      const double curve = 2 * std::max(p * (1 - p), kLeastHessian) * change;
      gradient[high] -= slope;
      gradient[low] += slope;
      hessian[high] += curve;
      hessian[low] += curve;
      sum += 2 * slope;
    }
  }
  if (!options.normalize || !(sum > 0)) return;
  const double norm = std::log2(1 + sum) / sum;
  for (int64_t i = 0; i < count; ++i) {
    gradient[i] *= norm;
    hessian[i] *= norm;
  }
}

}  // namespace

LambdaRank::LambdaRank(const RankingOptions& options) : options_(options) {
  TILEWRIGHT_CHECK(kTrees, options.truncation >= 0, "truncation must not be negative, got ",
                   options.truncation);
}

void LambdaRank::check_labels(const Tensor& labels) const {
  const Tensor wrong =
      options_.exp_gain ? (labels < 0).logical_or(labels > kGreatestLabel) : labels < 0;
  const char* also = options_.exp_gain ? " nor, with exponential gains, greater than 31" : "";
  refuse_rows(kTrees, std::string("y must not be negative") + also, wrong, labels);
}

Tensor LambdaRank::base_score(const Tensor&, const Tensor&) const {
  return at::zeros({1}, at::kFloat);  // only differences count
}

double LambdaRank::metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const {
  return ndcg(scores[0], {labels, weights, queries_}, options_.truncation, options_.exp_gain);
}

Metric LambdaRank::default_metric() const {
  const std::string at =
      options_.truncation > 0 ? "@" + std::to_string(options_.truncation) : std::string();
  return make_metric("ndcg" + at, options_.exp_gain);
}

std::pair<Tensor, Tensor> LambdaRank::derivatives(const Tensor& scores,
                                                  const Tensor& labels) const {
  const int64_t rows = labels.size(0);
  const Tensor gradient = at::zeros({1, rows}, at::kDouble);
  const Tensor hessian = at::zeros({1, rows}, at::kDouble);
  const Tensor from = scores.contiguous();
  const auto* bounds = queries_.const_data_ptr<int64_t>();
  auto *g = gradient.mutable_data_ptr<double>(), *h = hessian.mutable_data_ptr<double>();
  const auto* y = labels.const_data_ptr<float>();
  AT_DISPATCH_FLOATING_TYPES(from.scalar_type(), "lambdarank", [&] {
    const auto* s = from.const_data_ptr<scalar_t>();
    at::parallel_for(0, queries_.size(0) - 1, kQueryGrain, [&](int64_t first, int64_t last) {
      for (int64_t q = first; q < last; ++q) {
        const int64_t begin = bounds[q];
        query_gradients(s + begin, y + begin, bounds[q + 1] - begin, options_, g + begin,
                        h + begin);
      }
    });
  });
  return {gradient, hessian};
}

double ndcg(const Tensor& scores, const Targets& targets, int64_t cut_off, bool exp_gain) {
  TILEWRIGHT_CHECK(kTrees, targets.queries.defined(), "the metric ndcg needs queries");
  TILEWRIGHT_CHECK(kTrees,
                   scores.dim() == 1 && targets.labels.sizes() == scores.sizes() &&
                       targets.labels.scalar_type() == at::kFloat && targets.labels.is_contiguous(),
                   "ndcg takes scores (N,) and contiguous float32 labels (N,), got ",
                   shape_of(scores), " and ", targets.labels.scalar_type(), " ",
                   shape_of(targets.labels));
  const auto* ends = targets.queries.const_data_ptr<int64_t>();
  TILEWRIGHT_CHECK(kTrees, ends[0] == 0 && std::is_sorted(ends, ends + targets.queries.size(0)),
                   "queries must ascend from row 0");
  TILEWRIGHT_CHECK(kTrees, targets.queries[-1].item<int64_t>() == scores.size(0),
                   "queries must end at row ", scores.size(0), ", got ",
                   targets.queries[-1].item<int64_t>());
  const Tensor s = scores.to(at::kFloat).contiguous();
  const Tensor w = targets.weights.defined() ? targets.weights.contiguous() : Tensor();
  const auto* bounds = targets.queries.const_data_ptr<int64_t>();
  const auto* y = targets.labels.const_data_ptr<float>();
  const int64_t count = targets.queries.size(0) - 1;
  std::vector<double> found(size_t(count), 1), weights(size_t(count), 1);
  at::parallel_for(0, count, kQueryGrain, [&](int64_t first, int64_t last) {
    for (int64_t q = first; q < last; ++q) {
      const int64_t begin = bounds[q], rows = bounds[q + 1] - begin;
      const double best =
          discounted_gain(descending(y + begin, rows), y + begin, cut_off, exp_gain);
      if (best > 0) {
        const auto order = descending(s.const_data_ptr<float>() + begin, rows);
        found[size_t(q)] = discounted_gain(order, y + begin, cut_off, exp_gain) / best;
      }
      if (w.defined()) {
        const auto* from = w.const_data_ptr<float>() + begin;
        weights[size_t(q)] = std::accumulate(from, from + rows, 0.0) / double(rows);
      }
    }
  });
  double sum = 0, total = 0;
  for (size_t q = 0; q < found.size(); ++q) {
    sum += weights[q] * found[q];
    total += weights[q];
  }
  return sum / total;
}

}  // namespace tilewright::trees
