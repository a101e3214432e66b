#include "tilewright/amp/loss_scale.h"

#include <ATen/ATen.h>

#include <algorithm>
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

constexpr double kLargest = std::numeric_limits<float>::max();
constexpr int64_t kMostCount = std::numeric_limits<int32_t>::max();

// As the scale itself: a floor between two numbers of float32 would never be reached.
LossScaleOptions in_float32(LossScaleOptions options) {
  const auto nearest = [](double number) {
    return std::abs(number) <= kLargest ? double(float(number)) : number;
  };
  options.init_scale = nearest(options.init_scale);
  options.min_scale = nearest(options.min_scale);
  if (options.max_scale) options.max_scale = nearest(*options.max_scale);
  return options;
}

double ceiling_of(const LossScaleOptions& options) {
  return std::min(options.max_scale.value_or(kLargest), kLargest);
}
void check_scale(const LossScaleOptions& options, double scale) {
  TILEWRIGHT_CHECK(kLossScaler, scale >= options.min_scale && scale <= ceiling_of(options),
                   "the scale must lie between the floor and the ceiling, ", options.min_scale,
                   " and ", ceiling_of(options), ", got ", scale);
}
void check_count(const char* name, int64_t count, int64_t least) {
  TILEWRIGHT_CHECK(kLossScaler, count >= least && count <= kMostCount, name, " must lie in [",
                   least, ", 2^31), got ", count);
}

}  // namespace

FoundInf::FoundInf(c10::Device device)
    : found(one_number(0, at::kFloat, device)), first(nowhere(device)) {}

void FoundInf::join(const FoundInf& other) {
  found = at::maximum(found, other.found.to(found.device(), /*non_blocking=*/true));
  first = at::minimum(first, other.first.to(first.device(), /*non_blocking=*/true));
}

LossScale::LossScale(const LossScaleOptions& given)
    : options_(in_float32(given)), first_{options_.init_scale, 0, options_.hysteresis} {
  const LossScaleOptions& options = options_;
  TILEWRIGHT_CHECK(kLossScaler, options.growth_factor > 1 && std::isfinite(options.growth_factor),
                   "growth_factor must be finite and above 1, got ", options.growth_factor);
  TILEWRIGHT_CHECK(kLossScaler, options.backoff_factor > 0 && options.backoff_factor < 1,
                   "backoff_factor must lie in (0, 1), got ", options.backoff_factor);
  check_count("growth_interval", options.growth_interval, 1);
  check_count("hysteresis", options.hysteresis, 1);
  TILEWRIGHT_CHECK(kLossScaler, options.min_scale >= 0 && options.min_scale <= kLargest,
                   "min_scale must be finite and not negative, got ", options.min_scale);
  TILEWRIGHT_CHECK(kLossScaler, !options.max_scale || *options.max_scale >= options.min_scale,
                   "max_scale must be at least min_scale (", options.min_scale, "), got ",
                   options.max_scale.value_or(0));
  check_scale(options, options.init_scale);
}

void LossScale::begin(c10::Device device) {
  scale_ = one_number(first_.scale, at::kFloat, device);
  growth_ = one_number(double(first_.growth_tracker), at::kInt, device);
  left_ = one_number(double(first_.hysteresis_left), at::kInt, device);
  stuck_ = nowhere(device);
}

Tensor LossScale::scaled(const Tensor& loss) {
  TILEWRIGHT_CHECK(kLossScaler, loss.defined(), "the loss must be a tensor, got None");
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
  // In place, as all numbers: a CUDA graph may hold them.
  const Tensor stuck =
      found.found.gt(0).logical_and(scale_.le(options_.min_scale)).logical_and(left_.le(1));
  stuck_.copy_(at::where(stuck, at::minimum(stuck_, found.first), stuck_));
  update_scale_(scale_, growth_, found.found, options_.growth_factor, options_.backoff_factor,
                options_.growth_interval, options_.min_scale, options_.max_scale, left_,
                options_.hysteresis);
}

void LossScale::set(double scale) {
  check_scale(options_, scale);
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

bool LossScale::gives_up() const {
  return options_.dynamic && read() <= options_.min_scale && left_.item<int32_t>() <= 1;
}

void LossScale::load(const LossScaleState& state) {
  TILEWRIGHT_CHECK(kLossScaler, state.scale >= 0 && state.scale <= kLargest,
                   "a scale must be finite in float32 and not negative, got ", state.scale);
  check_count("growth_tracker", state.growth_tracker, 0);
  const double scale = std::clamp(state.scale, options_.min_scale, ceiling_of(options_));
  first_ = {scale, state.growth_tracker,
            std::clamp(state.hysteresis_left, -kMostCount, options_.hysteresis)};
  if (!begun()) return;
  scale_.fill_(first_.scale);
  growth_.fill_(first_.growth_tracker);
  left_.fill_(first_.hysteresis_left);
  stuck_.fill_(FoundInf::kNowhere);
}

}  // namespace tilewright
