// The balanced sampler: schema, checks, and selection by keys with static shapes.
#include "tilewright/detection/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

// Distinct integers in the order of the noise, ties broken by index: the bits of a float that is
// not negative grow with its value.
at::Tensor ordered_keys(const at::Tensor& noise) {
  const auto bits = noise.to(at::kFloat).clamp_min(0).view(at::kInt).to(at::kLong);
  const auto index = at::arange(at::Scalar(noise.sym_size(0)), bits.options());
  return bits.bitwise_left_shift(32).bitwise_or(index);  // (M,)
}

// The candidates with the smallest keys, at most `limit` of them and never more than `most`.
at::Tensor pick(const at::Tensor& candidate, const at::Tensor& keys, int64_t most,
                const at::Tensor& limit) {
  constexpr auto kLast = std::numeric_limits<int64_t>::max();
  // `most` entries that are no candidates stand behind, so that topk always finds enough.
  const auto masked = at::constant_pad_nd(keys.masked_fill(candidate.logical_not(), kLast),
                                          {0, most}, kLast);               // (M + most,)
  const auto eligible = at::constant_pad_nd(candidate, {0, most}, false);  // (M + most,)
  const auto first = std::get<1>(masked.topk(most, 0, /*largest=*/false, /*sorted=*/true));
  const auto chosen =
      eligible.index_select(0, first).logical_and(at::arange(most, keys.options()) < limit);
  return at::zeros_like(eligible).scatter(0, first, chosen).narrow_symint(0, 0, keys.sym_size(0));
}

std::tuple<at::Tensor, at::Tensor> sample(const at::Tensor& labels, const at::Tensor& noise,
                                          int64_t size, double positive_fraction) {
  constexpr auto kOp = "sample_balanced";
  check_shape(kOp, "labels", labels, "(M,)", 1);
  TILEWRIGHT_CHECK(kOp, labels.scalar_type() == at::kLong, "labels must be int64, got ",
                   labels.scalar_type());
  check_floating(kOp, "noise", noise);
  TILEWRIGHT_CHECK(kOp, noise.dim() == 1 && noise.sym_size(0) == labels.sym_size(0),
                   "noise must have the shape of labels ", shape_of(labels), ", got ",
                   shape_of(noise));
  check_same_device(kOp, "labels", labels, "noise", noise);
  TILEWRIGHT_CHECK(kOp, size >= 0, "size must not be negative, got ", size);
  TILEWRIGHT_CHECK(kOp, positive_fraction >= 0 && positive_fraction <= 1,
                   "positive_fraction must lie in [0, 1], got ", positive_fraction);
  const auto most_positive = static_cast<int64_t>(size * positive_fraction);
  const auto keys = ordered_keys(noise.detach());
  const auto is_positive = labels >= 1;
  const auto positive_count = is_positive.sum().clamp_max(most_positive);  // ()
  return {pick(is_positive, keys, most_positive, positive_count),
          pick(labels == 0, keys, size, size - positive_count)};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> sample_balanced(const at::Tensor& labels,
                                                   const at::Tensor& noise, int64_t size,
                                                   double positive_fraction) {
  static const auto op = operator_handle<decltype(sample_balanced)>("tilewright::sample_balanced");
  return op.call(labels, noise, size, positive_fraction);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "sample_balanced(Tensor labels, Tensor noise, int size, float positive_fraction) -> "
      "(Tensor positive, Tensor negative)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("sample_balanced", &tilewright::sample);
}
