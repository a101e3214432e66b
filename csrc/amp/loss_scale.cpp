#include "tilewright/amp/loss_scale.h"

#include <ATen/ATen.h>

#include <cmath>

#include "tilewright/amp/update_scale.h"
#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using at::Tensor;

Tensor one_number(double value, at::ScalarType dtype, c10::Device device) {
  return at::full({1}, value, at::TensorOptions().dtype(dtype).device(device));
}
Tensor nowhere(c10::Device device) {
  return at::full({1}, FoundInf::kNowhere, at::TensorOptions().dtype(at::kLong).device(device));
}

void check_scale(double scale) {
  TILEWRIGHT_CHECK(kLossScaler, scale >= 0 && std::isfinite(float(scale)),
                   "a scale must be finite in float32 and not negative, got ", scale);
}

}  // namespace

FoundInf::FoundInf(c10::Device device)
    : found(one_number(0, at::kFloat, device)), first(nowhere(device)) {}

void FoundInf::join(const FoundInf& other) {
  found = at::maximum(found, other.found.to(found.device(), /*non_blocking=*/true));
  first = at::minimum(first, other.first.to(first.device(), /*non_blocking=*/true));
}

LossScale::LossScale(const LossScaleOptions& options)
    : options_(options), first_{options.init_scale, 0, options.hysteresis} {
  check_scale(options.init_scale);
  TILEWRIGHT_CHECK(kLossScaler, options.growth_factor > 1 && std::isfinite(options.growth_factor),
                   "growth_factor must be above 1, got ", options.growth_factor);
  TILEWRIGHT_CHECK(kLossScaler, options.backoff_factor > 0 && options.backoff_factor < 1,
                   "backoff_factor must lie in (0, 1), got ", options.backoff_factor);
  TILEWRIGHT_CHECK(kLossScaler, options.growth_interval >= 1,
                   "growth_interval must be positive, got ", options.growth_interval);
  TILEWRIGHT_CHECK(kLossScaler, options.hysteresis >= 1, "hysteresis must be positive, got ",
                   options.hysteresis);
  TILEWRIGHT_CHECK(kLossScaler, options.min_scale >= 0, "min_scale must not be negative, got ",
                   options.min_scale);
  TILEWRIGHT_CHECK(kLossScaler, !options.max_scale || *options.max_scale >= options.min_scale,
                   "max_scale must be at least min_scale (", options.min_scale, "), got ",
                   options.max_scale.value_or(0));
}

void LossScale::begin(c10::Device device) {
  scale_ = one_number(first_.scale, at::kFloat, device);
  growth_ = one_number(double(first_.growth_tracker), at::kInt, device);
  left_ = one_number(double(first_.hysteresis_left), at::kInt, device);
  stuck_ = nowhere(device);
}

Tensor LossScale::scaled(const Tensor& loss) {
  if (!options_.enabled) return loss;
  if (!begun()) begin(loss.device());
  return loss * scale_.to(loss.device(), /*non_blocking=*/true).squeeze();
}

Tensor LossScale::inverse() const {
  TILEWRIGHT_CHECK(kLossScaler, begun(),
                   "gradients come after a scaled loss: scale(loss).backward()");
  return scale_.to(at::kDouble).reciprocal().to(at::kFloat);
}

void LossScale::update(const FoundInf& found) {
  if (!options_.dynamic) return;
  const Tensor stuck = found.found.gt(0).logical_and(scale_.le(options_.min_scale));
  stuck_ = at::where(stuck, at::minimum(stuck_, found.first), stuck_);
  update_scale_(scale_, growth_, found.found, options_.growth_factor, options_.backoff_factor,
                options_.growth_interval, options_.min_scale, options_.max_scale, left_,
                options_.hysteresis);
}

void LossScale::set(double scale) {
  check_scale(scale);
  first_.scale = scale;
  if (begun()) scale_.fill_(scale);
}

double LossScale::read() const {
  if (!options_.enabled) return 1;
  return begun() ? scale_.item<double>() : first_.scale;
}

int64_t LossScale::read_stuck() {
  if (!begun()) return FoundInf::kNowhere;
  const auto number = stuck_.item<int64_t>();
  if (number != FoundInf::kNowhere) stuck_.fill_(FoundInf::kNowhere);
  return number;
}

LossScaleState LossScale::state() const {
  if (!begun()) return first_;
  return {scale_.item<double>(), growth_.item<int64_t>(), left_.item<int64_t>()};
}

void LossScale::load(const LossScaleState& state) {
  check_scale(state.scale);
  TILEWRIGHT_CHECK(kLossScaler, state.growth_tracker >= 0,
                   "growth_tracker must not be negative, got ", state.growth_tracker);
  first_ = {state.scale, state.growth_tracker,
            std::min(state.hysteresis_left, options_.hysteresis)};
  if (begun()) begin(device());
}

}  // namespace tilewright
