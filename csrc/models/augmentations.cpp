// The augmentations that move pixels; their colours are in augmentations_colour.cpp.
#include "tilewright/models/augmentations.h"

#include <torch/library.h>

#include <array>

#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/roi_align.h"
#include "tilewright/models/augmentations_internal.h"

namespace tilewright {
namespace augmentations_internal {
namespace {

Tensor random_resized_crop_composed(const Tensor& images, at::ArrayRef<double> scale,
                                    at::ArrayRef<double> ratio, at::OptionalIntArrayRef size,
                                    const OptionalGenerator& generator) {
  const char* op = "random_resized_crop";
  check_images(op, images);
  check_range(op, "scale", scale, 1);
  check_range(op, "ratio", ratio);
  const double height = pixels(images, 2), width = pixels(images, 3);
  auto out = std::array<int64_t, 2>{int64_t(height), int64_t(width)};
  if (size) {
    TILEWRIGHT_CHECK(op, size->size() == 2 && (*size)[0] > 0 && (*size)[1] > 0,
                     "size must be two positive numbers, rows and columns, got ", *size);
    out = {(*size)[0], (*size)[1]};
  }
  const Tensor x = at_least_float(images);
  const Draws draws(x, generator);
  const auto [h, w] = random_rectangle(x, draws, scale, ratio);
  const Tensor top = draws.uniform(0, 1) * (height - h), left = draws.uniform(0, 1) * (width - w);
  // One sample in the middle of each bin is bilinear interpolation.
  const Tensor index = at::arange(c10::Scalar(x.sym_size(0)), x.options());
  const Tensor boxes = at::stack({index, left, top, left + w, top + h}, 1);  // (N, 5)
  return roi_align(x, boxes, 1.0, out[0], out[1], /*sampling_ratio=*/1, /*aligned=*/true)
      .to(images.scalar_type());
}

Tensor random_affine_composed(const Tensor& images, double degrees, double translate,
                              at::ArrayRef<double> zoom, const OptionalGenerator& generator) {
  const char* op = "random_affine";
  check_images(op, images);
  check_number(op, "degrees", degrees, 360);
  check_number(op, "translate", translate, 1);
  check_range(op, "zoom", zoom);
  constexpr double kRadians = 3.14159265358979323846 / 180;
  const Tensor x = at_least_float(images);
  const Draws draws(x, generator);
  const double slant = pixels(x, 2) / pixels(x, 3);  // coordinates are -1 to 1 on both axes
  const Tensor angle = draws.uniform(-degrees, degrees) * kRadians;
  const Tensor smaller = draws.log_uniform(zoom).reciprocal();
  const Tensor cosine = angle.cos() * smaller, sine = angle.sin() * smaller;
  const Tensor across = draws.uniform(-2 * translate, 2 * translate);
  const Tensor down = draws.uniform(-2 * translate, 2 * translate);
  // Where each pixel of the result comes from: (N, 2, 3). What is moved was turned and enlarged.
  const Tensor right = sine * -slant, left = sine / slant;
  const Tensor source = at::stack({cosine, right, -(cosine * across + right * down), left, cosine,
                                   -(left * across + cosine * down)},
                                  1)
                            .unflatten(1, {2, 3});
  const Tensor grid = at::affine_grid_generator_symint(source, x.sym_sizes(), false);
  return at::grid_sampler(x, grid, /*interpolation_mode=*/0, /*padding_mode=*/0,
                          /*align_corners=*/false)
      .to(images.scalar_type());
}

Tensor random_horizontal_flip_composed(const Tensor& images, double p,
                                       const OptionalGenerator& generator) {
  const char* op = "random_horizontal_flip";
  check_images(op, images);
  check_number(op, "p", p, 1);
  const Tensor x = at_least_float(images);
  return at::where(Draws(x, generator, 4).chosen(p), images.flip(3), images);
}

Tensor random_erasing_composed(const Tensor& images, at::ArrayRef<double> scale,
                               at::ArrayRef<double> ratio, double p, double value,
                               const OptionalGenerator& generator) {
  const char* op = "random_erasing";
  check_images(op, images);
  check_range(op, "scale", scale, 1);
  check_range(op, "ratio", ratio);
  check_number(op, "p", p, 1);
  TILEWRIGHT_CHECK(op, std::isfinite(value), "value must be finite, got ", value);
  const Tensor x = at_least_float(images);
  const Draws draws(x, generator, 4);
  const auto [high, wide] = random_rectangle(x, draws, scale, ratio);
  const auto inside = [&](int64_t dim, const Tensor& length) {
    const double size = pixels(x, dim);
    const Tensor whole = length.round().clamp_min(1);
    const Tensor first = (draws.uniform(0, 1) * (size - whole + 1)).floor();
    const Tensor place =
        at::arange(size, x.options()).view(dim == 2 ? at::IntArrayRef{-1, 1} : at::IntArrayRef{-1});
    return (place >= first).logical_and(place < first + whole);
  };
  const Tensor erased = inside(2, high).logical_and(inside(3, wide));  // (N, 1, H, W)
  return images.masked_fill(erased.logical_and(draws.chosen(p)), value);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("random_resized_crop", &random_resized_crop_composed);
  m.impl("random_affine", &random_affine_composed);
  m.impl("random_horizontal_flip", &random_horizontal_flip_composed);
  m.impl("random_erasing", &random_erasing_composed);
}

}  // namespace augmentations_internal

at::Tensor random_resized_crop(const at::Tensor& images, at::ArrayRef<double> scale,
                               at::ArrayRef<double> ratio, at::OptionalIntArrayRef size,
                               const std::optional<at::Generator>& generator) {
  static const auto op =
      operator_handle<decltype(random_resized_crop)>("tilewright::random_resized_crop");
  return op.call(images, scale, ratio, size, generator);
}

at::Tensor random_affine(const at::Tensor& images, double degrees, double translate,
                         at::ArrayRef<double> zoom, const std::optional<at::Generator>& generator) {
  static const auto op = operator_handle<decltype(random_affine)>("tilewright::random_affine");
  return op.call(images, degrees, translate, zoom, generator);
}

at::Tensor random_horizontal_flip(const at::Tensor& images, double p,
                                  const std::optional<at::Generator>& generator) {
  static const auto op =
      operator_handle<decltype(random_horizontal_flip)>("tilewright::random_horizontal_flip");
  return op.call(images, p, generator);
}

at::Tensor random_erasing(const at::Tensor& images, at::ArrayRef<double> scale,
                          at::ArrayRef<double> ratio, double p, double value,
                          const std::optional<at::Generator>& generator) {
  static const auto op = operator_handle<decltype(random_erasing)>("tilewright::random_erasing");
  return op.call(images, scale, ratio, p, value, generator);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded};
  m.def(
      "random_resized_crop(Tensor images, float[2] scale, float[2] ratio, int[2]? size=None, *, "
      "Generator? generator=None) -> Tensor",
      tags);
  m.def(
      "random_affine(Tensor images, float degrees, float translate, float[2] zoom, *, "
      "Generator? generator=None) -> Tensor",
      tags);
  m.def(
      "random_horizontal_flip(Tensor images, float p=0.5, *, Generator? generator=None) -> Tensor",
      tags);
  m.def(
      "random_erasing(Tensor images, float[2] scale, float[2] ratio, float p=0.5, float value=0.0, "
      "*, Generator? generator=None) -> Tensor",
      tags);
}

}  // namespace tilewright
