// Quantiles of features and bins of values on CUDA: ATen samples and sorts, nothing is copied to
// the host.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <limits>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/feature_kernel.cuh"

namespace tilewright {
namespace {

// Values that are sorted at a time, which bounds the memory it takes.
constexpr int64_t kSortedValues = int64_t(1) << 23;

// sampled_row() of all of them.
at::Tensor sampled_rows(int64_t rows, int64_t sampled, const at::Tensor& x) {
  const at::Tensor i = at::arange(sampled, x.options().dtype(at::kLong));
  const at::Tensor begin = (i * rows).floor_divide(sampled);
  const at::Tensor width = ((i + 1) * rows).floor_divide(sampled) - begin;
  return begin + (i * int64_t(2654435769u)).bitwise_and(int64_t(0xffffffff)).remainder(width);
}

at::Tensor keys_of(const at::Tensor& values) {            // float32, a row for each feature
  const at::Tensor bits = (values + 0.f).view(at::kInt);  // the two zeros are one
  const at::Tensor keys =
      bits.bitwise_xor(bits.bitwise_right_shift(31).bitwise_and(int64_t(0x7fffffff)));
  return keys.masked_fill(values.isnan(), int64_t(kMissingKey));
}

std::tuple<at::Tensor, at::Tensor> feature_cuts_cuda(const at::Tensor& x,
                                                     const std::optional<at::Tensor>& sample_weight,
                                                     int64_t max_bin) {
  check_feature_cuts(x, sample_weight, max_bin);
  const DeviceGuard guard(x);
  const int64_t rows = x.size(0), features = x.size(1);
  at::Tensor cuts = at::full({features, max_bin}, std::numeric_limits<float>::infinity(),
                             x.options().dtype(at::kFloat));
  at::Tensor count = at::zeros({features}, x.options().dtype(at::kInt));
  if (rows == 0 || features == 0) return {cuts, count};
  const int64_t sampled = std::min(rows, kSampledRows);
  at::Tensor table = x.detach(), weights;
  if (sample_weight.has_value()) weights = sample_weight->detach().to(at::kDouble);
  if (sampled < rows) {
    const at::Tensor index = sampled_rows(rows, sampled, x);
    table = table.index_select(0, index);
    if (weights.defined()) weights = weights.index_select(0, index);
  }
  if (weights.defined()) {
    weights = weights.masked_fill(weights.isfinite().logical_and(weights > 0).logical_not(), 0.0)
                  .contiguous();
  }
  const int64_t at_once = std::max<int64_t>(kSortedValues / sampled, 1);
  for (int64_t first = 0; first < features; first += at_once) {
    const int64_t some = std::min(at_once, features - first);
    const at::Tensor values =
        table.narrow(1, first, some).t().to(at::kFloat).contiguous();  // (some, sampled)
    const auto [keys, order] =
        at::sort(keys_of(values), std::optional<bool>(true) /*stable*/, /*dim=*/1);
    const at::Tensor some_cuts = cuts.narrow(0, first, some);
    const at::Tensor some_count = count.narrow(0, first, some);
    PlaceCutsParams params{};
    params.keys = const_data<int32_t>(keys);
    if (weights.defined()) {
      params.order = const_data<int64_t>(order);
      params.weights = const_data<double>(weights);
    }
    params.sampled = sampled;
    params.max_bin = max_bin;
    params.cuts = mutable_data<float>(some_cuts);
    params.count = mutable_data<int32_t>(some_count);
    LaunchConfig config;
    config.grid = dim3(unsigned(some));
    config.block = kPlaceThreads;
    config.shared_bytes = shared_bytes<PlaceCutsParts>();
    launch<place_cuts_kernel>(config, params);
  }
  return {cuts, count};
}

at::Tensor quantize_features_cuda(const at::Tensor& x, const at::Tensor& cuts,
                                  const at::Tensor& count) {
  check_quantize_features(x, cuts, count);
  const DeviceGuard guard(x);
  const at::Tensor codes = at::empty({x.size(0), x.size(1)}, x.options().dtype(code_type(cuts)));
  const at::Tensor from = cuts.contiguous(), counts = count.contiguous();
  dispatch_floating("quantize_features", x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    QuantizeFeaturesParams<device_t<T>> params{};
    params.x = const_data<T>(x);
    params.row = x.stride(0);
    params.column = x.stride(1);
    params.rows = x.size(0);
    params.features = x.size(1);
    params.max_bin = cuts.size(1);
    params.cuts = const_data<float>(from);
    params.count = const_data<int32_t>(counts);
    if (codes.scalar_type() == at::kByte) {
      params.narrow = mutable_data<uint8_t>(codes);
    } else {
      params.wide = mutable_data<int16_t>(codes);
    }
    launch<quantize_features_kernel<device_t<T>>>(linear_config(codes.numel()), params);
  });
  return codes;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("feature_cuts", &feature_cuts_cuda);
  m.impl("quantize_features", &quantize_features_cuda);
}

}  // namespace tilewright
