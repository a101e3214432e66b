// What the augmentations share: checks of images and settings, and the numbers each image draws.
// Not part of the public C++ API.
#pragma once
#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"
#include "tilewright/detection/boxes_internal.h"

namespace tilewright::augmentations_internal {

using at::Tensor;
using boxes_internal::at_least_float;

using OptionalGenerator = std::optional<at::Generator>;

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline void check_images(const char* op, const Tensor& images) {
  check_floating(op, "images", images);
  check_shape(op, "images", images, "(N, C, H, W)", 4);
  for (const int64_t dim : {1, 2, 3}) {
    TILEWRIGHT_CHECK(op, images.sym_size(dim) > 0, "images must have channels and pixels, got ",
                     shape_of(images));
  }
}

// Of what cuts its results to [0, 1].
inline void check_unit_range(const char* op, const Tensor& images) {
  // As far beyond as bfloat16 rounds numbers near 1, and results of augmentations stay nearer.
  constexpr double kRounding = 0.01;
  if (const auto range = range_at_hand(images)) {
    const auto [least, most] = *range;
    TILEWRIGHT_CHECK(op, least >= -kRounding && most <= 1 + kRounding,
                     "images must lie in [0, 1], got ", least, " to ", most,
                     " (divide images in 0..255 by 255, and normalise after augmenting)");
  }
}

inline void check_number(const char* op, const char* name, double value, double most = kInfinity) {
  const bool fits = std::isfinite(value) && value >= 0 && value <= most;
  if (most == kInfinity) {
    TILEWRIGHT_CHECK(op, fits, name, " must not be negative, and finite, got ", value);
  }
  TILEWRIGHT_CHECK(op, fits, name, " must lie in [0, ", most, "], got ", value);
}

// Two numbers above 0, the first not above the second.
inline void check_range(const char* op, const char* name, at::ArrayRef<double> range,
                        double most = kInfinity) {
  TILEWRIGHT_CHECK(op,
                   range.size() == 2 && range[0] > 0 && range[0] <= range[1] &&
                       std::isfinite(range[1]) && range[1] <= most,
                   name, " must be two positive numbers, the first not above the second",
                   most < kInfinity ? " and that not above 1" : "", ", got ", range);
}

// What each image draws: tensors of shape (N, 1, ...), of `dim` dimensions; normal: (N, C, H, W).
class Draws {
 public:
  // images: as they are computed with.
  Draws(const Tensor& images, const OptionalGenerator& generator, int64_t dim = 1)
      : images_(images), generator_(generator), dim_(dim) {}

  Tensor uniform(double low, double high) const {
    c10::SymDimVector shape(dim_, 1);
    shape[0] = images_.sym_size(0);
    // Compilers trace the call without a generator.
    const auto options = images_.options();
    const auto drawn =
        generator_ ? at::rand_symint(shape, generator_, options) : at::rand_symint(shape, options);
    return drawn * (high - low) + low;
  }
  // Evenly in the logarithm.
  Tensor log_uniform(at::ArrayRef<double> range) const {
    return uniform(std::log(range[0]), std::log(range[1])).exp();
  }
  Tensor normal() const {
    const auto shape = images_.sym_sizes();
    const auto options = images_.options();
    return generator_ ? at::randn_symint(shape, generator_, options)
                      : at::randn_symint(shape, options);
  }
  Tensor chosen(double p) const { return uniform(0, 1) < p; }

 private:
  const Tensor& images_;
  const OptionalGenerator& generator_;
  int64_t dim_;
};

inline double pixels(const Tensor& images, int64_t dim) {
  return static_cast<double>(images.sym_size(dim).guard_int(__FILE__, __LINE__));
}

// Height and width (N, ...) of a rectangle whose share of the image's area lies in `scale`.
inline std::pair<Tensor, Tensor> random_rectangle(const Tensor& images, const Draws& draws,
                                                  at::ArrayRef<double> scale,
                                                  at::ArrayRef<double> ratio) {
  const double height = pixels(images, 2), width = pixels(images, 3);
  const auto area = draws.uniform(scale[0], scale[1]) * (height * width);
  const auto shape = draws.log_uniform(ratio);  // width / height
  return {(area / shape).sqrt().clamp_max(height), (area * shape).sqrt().clamp_max(width)};
}

}  // namespace tilewright::augmentations_internal
