// update_scale_: schema, checks, versions, Meta, and the CPU, where it is three numbers.
#include "tilewright/amp/update_scale.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/library.h>

#include <cmath>

#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/update_scale_args.h"
#include "tilewright/amp/update_scale_math.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
constexpr const char* kUpdateScale = "update_scale_";

void update_scale_meta(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                       double growth_factor, double backoff_factor, int64_t growth_interval,
                       double min_scale, std::optional<double> max_scale,
                       const OptionalTensor& hysteresis_tracker, int64_t hysteresis) {
  check_update_scale(
      {growth_factor, backoff_factor, growth_interval, min_scale, max_scale, hysteresis}, scale,
      growth_tracker, found_inf, hysteresis_tracker);
}

void update_scale_cpu(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                      double growth_factor, double backoff_factor, int64_t growth_interval,
                      double min_scale, std::optional<double> max_scale,
                      const OptionalTensor& hysteresis_tracker, int64_t hysteresis) {
  const UpdateScaleArgs args{growth_factor, backoff_factor, growth_interval,
                             min_scale,     max_scale,      hysteresis};
  check_update_scale(args, scale, growth_tracker, found_inf, hysteresis_tracker);
  update_scale({scale.mutable_data_ptr<float>(), growth_tracker.mutable_data_ptr<int32_t>(),
                found_inf.const_data_ptr<float>(),
                hysteresis_tracker ? hysteresis_tracker->mutable_data_ptr<int32_t>() : nullptr},
               scale_rule<ScaleRule>(args));
}

void update_scale_bumping_versions(const Tensor& scale, const Tensor& growth_tracker,
                                   const Tensor& found_inf, double growth_factor,
                                   double backoff_factor, int64_t growth_interval, double min_scale,
                                   std::optional<double> max_scale,
                                   const OptionalTensor& hysteresis_tracker, int64_t hysteresis) {
  check_changeable(kUpdateScale, scale);
  check_changeable(kUpdateScale, growth_tracker);
  if (hysteresis_tracker) check_changeable(kUpdateScale, *hysteresis_tracker);
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    update_scale_(scale, growth_tracker, found_inf, growth_factor, backoff_factor, growth_interval,
                  min_scale, max_scale, hysteresis_tracker, hysteresis);
  }
  torch::autograd::increment_version(scale);
  torch::autograd::increment_version(growth_tracker);
  if (hysteresis_tracker) torch::autograd::increment_version(*hysteresis_tracker);
}

}  // namespace

void check_update_scale(const UpdateScaleArgs& a, const Tensor& scale, const Tensor& growth_tracker,
                        const Tensor& found_inf, const OptionalTensor& hysteresis_tracker) {
  check_number(kUpdateScale, "found_inf", found_inf, at::kFloat, found_inf);
  check_number(kUpdateScale, "scale", scale, at::kFloat, found_inf);
  check_number(kUpdateScale, "growth_tracker", growth_tracker, at::kInt, found_inf);
  if (hysteresis_tracker) {
    check_number(kUpdateScale, "hysteresis_tracker", *hysteresis_tracker, at::kInt, found_inf);
  }
  const auto check_factor = [](const char* name, double factor) {
    TILEWRIGHT_CHECK(kUpdateScale, factor > 0 && std::isfinite(factor), name,
                     " must be positive and finite, got ", factor);
  };
  check_factor("growth_factor", a.growth_factor);
  check_factor("backoff_factor", a.backoff_factor);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TILEWRIGHT_CHECK(kUpdateScale, a.growth_interval >= 1 && a.growth_interval <= kMost,
                   "growth_interval must lie in [1, 2^31), got ", a.growth_interval);
  TILEWRIGHT_CHECK(kUpdateScale, a.hysteresis >= 1 && a.hysteresis <= kMost,
                   "hysteresis must lie in [1, 2^31), got ", a.hysteresis);
  TILEWRIGHT_CHECK(kUpdateScale, a.hysteresis == 1 || hysteresis_tracker.has_value(), "hysteresis ",
                   a.hysteresis, " needs a hysteresis_tracker");
  TILEWRIGHT_CHECK(kUpdateScale, a.min_scale >= 0 && std::isfinite(float(a.min_scale)),
                   "min_scale must be finite in float32 and not negative, got ", a.min_scale);
  TILEWRIGHT_CHECK(kUpdateScale, !a.max_scale || *a.max_scale >= a.min_scale,
                   "max_scale must not be below min_scale (", a.min_scale, "), got ",
                   a.max_scale.value_or(0));
}

void update_scale_(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                   double growth_factor, double backoff_factor, int64_t growth_interval,
                   double min_scale, std::optional<double> max_scale,
                   const OptionalTensor& hysteresis_tracker, int64_t hysteresis) {
  static const auto op = operator_handle<decltype(update_scale_)>("tilewright::update_scale_");
  op.call(scale, growth_tracker, found_inf, growth_factor, backoff_factor, growth_interval,
          min_scale, max_scale, hysteresis_tracker, hysteresis);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "update_scale_(Tensor(a!) scale, Tensor(b!) growth_tracker, Tensor found_inf, "
      "float growth_factor, float backoff_factor, int growth_interval, float min_scale=0.0, "
      "float? max_scale=None, Tensor(c!)? hysteresis_tracker=None, int hysteresis=1) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, ADInplaceOrView, m) {
  m.impl("update_scale_", &update_scale_bumping_versions);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("update_scale_", &update_scale_meta); }
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("update_scale_", &update_scale_cpu); }

}  // namespace tilewright
