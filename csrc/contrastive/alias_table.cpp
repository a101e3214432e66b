// Alias tables: built on the CPU by Vose's method, sampled by ATen's random numbers on any device.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "tilewright/contrastive/sampled_losses.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;

void check_weights(const char* op, const Tensor& given) {
  check_given(op, "weights", given);
  TILEWRIGHT_CHECK(op, given.dim() == 1 && given.sym_size(0) > 0,
                   "weights must have shape (V,), V > 0, got ", shape_of(given));
  TILEWRIGHT_CHECK(op, given.scalar_type() == at::kFloat || given.scalar_type() == at::kDouble,
                   "weights must be float32 or float64, got ", given.scalar_type());
}

// Each place keeps its own index with the probability `threshold`, and else means its alias. Places
// below the mean are filled up by one that is above it, until none is.
std::tuple<Tensor, Tensor> alias_table_of(const Tensor& given) {
  const char* op = "alias_table";
  check_weights(op, given);
  const Tensor weights = given.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* weight = weights.const_data_ptr<double>();
  const int64_t count = weights.size(0);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    TILEWRIGHT_CHECK(op, std::isfinite(weight[i]) && weight[i] >= 0, "weights[", i,
                     "] must be finite and not negative, got ", weight[i]);
    sum += weight[i];
  }
  TILEWRIGHT_CHECK(op, sum > 0 && std::isfinite(sum),
                   "weights must have a finite sum above 0, got ", sum);
  const Tensor thresholds = at::ones({count}, weights.options());
  const Tensor aliases = at::arange(count, weights.options().dtype(at::kLong));
  double* threshold = thresholds.mutable_data_ptr<double>();
  int64_t* alias = aliases.mutable_data_ptr<int64_t>();
  std::vector<double> left(count);  // of a place's weight, in units of the mean
  std::vector<int64_t> below, above;
  for (int64_t i = 0; i < count; ++i) {
    left[i] = weight[i] / sum * double(count);
    (left[i] < 1 ? below : above).push_back(i);
  }
  while (!below.empty() && !above.empty()) {
    const int64_t few = below.back(), much = above.back();
    below.pop_back();
    threshold[few] = left[few];
    alias[few] = much;
    left[much] -= 1 - left[few];
    if (left[much] < 1) {
      above.pop_back();
      below.push_back(much);
    }
  }
  // What is left is 1 but for rounding; an index without weight must not come of that.
  int64_t any = 0;
  while (weight[any] == 0) ++any;
  for (const int64_t i : below) {
    if (weight[i] == 0) threshold[i] = 0, alias[i] = any;
  }
  return {thresholds.to(given.device()), aliases.to(given.device())};
}

std::tuple<Tensor, Tensor> alias_table_meta(const Tensor& weights) {
  check_weights("alias_table", weights);
  return {at::empty_symint(weights.sym_sizes(), weights.options().dtype(at::kDouble)),
          at::empty_symint(weights.sym_sizes(), weights.options().dtype(at::kLong))};
}

Tensor alias_sample_composed(const Tensor& threshold, const Tensor& alias, int64_t count,
                             std::optional<at::Generator> generator) {
  const char* op = "alias_sample";
  check_given(op, "threshold", threshold);
  check_given(op, "alias", alias);
  TILEWRIGHT_CHECK(op, threshold.dim() == 1 && threshold.sym_size(0) > 0,
                   "threshold must have shape (V,), V > 0, got ", shape_of(threshold));
  TILEWRIGHT_CHECK(op, threshold.scalar_type() == at::kDouble,
                   "threshold must be float64, as alias_table makes it, got ",
                   threshold.scalar_type());
  TILEWRIGHT_CHECK(op, alias.sym_sizes() == threshold.sym_sizes(), "alias must have shape ",
                   shape_of(threshold), ", got ", shape_of(alias));
  TILEWRIGHT_CHECK(op, alias.scalar_type() == at::kLong, "alias must be int64, got ",
                   alias.scalar_type());
  check_same_device(op, "threshold", threshold, "alias", alias);
  TILEWRIGHT_CHECK(op, count >= 0, "count must not be negative, got ", count);
  const Tensor place = at::randint(threshold.size(0), {count}, generator, alias.options());
  const Tensor draw = at::rand({count}, generator, threshold.options());
  return at::where(draw.lt(threshold.index_select(0, place)), place, alias.index_select(0, place));
}

}  // namespace

std::tuple<Tensor, Tensor> alias_table(const Tensor& weights) {
  static const auto op = operator_handle<decltype(alias_table)>("tilewright::alias_table");
  return op.call(weights);
}
Tensor alias_sample(const Tensor& threshold, const Tensor& alias, int64_t count,
                    const std::optional<at::Generator>& generator) {
  static const auto op =
      operator_handle<Tensor(const Tensor&, const Tensor&, int64_t, std::optional<at::Generator>)>(
          "tilewright::alias_sample");
  return op.call(threshold, alias, count, generator);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("alias_table(Tensor weights) -> (Tensor threshold, Tensor alias)");
  m.def(
      "alias_sample(Tensor threshold, Tensor alias, int count, Generator? generator=None) -> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("alias_table", &alias_table_of); }
TORCH_LIBRARY_IMPL(tilewright, CUDA, m) { m.impl("alias_table", &alias_table_of); }
TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("alias_table", &alias_table_meta); }
TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("alias_sample", &alias_sample_composed);
}

}  // namespace tilewright
