// The augmentations that change what pixels hold.
#include <torch/library.h>

#include <array>

#include "tilewright/core/operator_handle.h"
#include "tilewright/models/augmentations.h"
#include "tilewright/models/augmentations_internal.h"

namespace tilewright {
namespace augmentations_internal {
namespace {

void check_one_or_three_channels(const char* op, const Tensor& images) {
  TILEWRIGHT_CHECK(op, images.sym_size(1) == 1 || images.sym_size(1) == 3,
                   "images must have 1 or 3 channels, got ", shape_of(images));
}

// (N, 1, H, W), by the weights of ITU-R BT.601.
Tensor luma(const Tensor& x) {
  if (x.sym_size(1) == 1) return x;
  return 0.299 * x.narrow(1, 0, 1) + 0.587 * x.narrow(1, 1, 1) + 0.114 * x.narrow(1, 2, 1);
}

// x at factor 1, `other` at 0, and on beyond x above 1.
Tensor away_from(const Tensor& other, const Tensor& x, const Tensor& factor) {
  return (other + (x - other) * factor).clamp(0, 1);
}

// Colours (N, 3, H, W) whose hue is turned by (N, 1, 1, 1) circles: to hue, saturation and value,
// and back (Smith 1978).
Tensor turned_hue(const Tensor& x, const Tensor& turn) {
  const Tensor r = x.narrow(1, 0, 1), g = x.narrow(1, 1, 1), b = x.narrow(1, 2, 1);
  const Tensor value = x.amax(1, true), chroma = value - x.amin(1, true);
  const Tensor safe = chroma.masked_fill(chroma.eq(0), 1);
  const Tensor sixths =
      at::where(value.eq(r), (g - b) / safe,
                at::where(value.eq(g), (b - r) / safe + 2, (r - g) / safe + 4));  // of a circle
  const Tensor hue = sixths + turn * 6;
  const auto channel = [&](double offset) {
    const Tensor k = (hue + offset).remainder(6);
    return value - chroma * at::minimum(k, 4 - k).clamp(0, 1);
  };
  return at::cat({channel(5), channel(3), channel(1)}, 1);
}

Tensor color_jitter_composed(const Tensor& images, double brightness, double contrast,
                             double saturation, double hue, double p,
                             const OptionalGenerator& generator) {
  const char* op = "color_jitter";
  check_images(op, images);
  check_unit_range(op, images);
  check_one_or_three_channels(op, images);
  check_number(op, "brightness", brightness);
  check_number(op, "contrast", contrast);
  check_number(op, "saturation", saturation);
  check_number(op, "hue", hue, 0.5);
  check_number(op, "p", p, 1);
  Tensor x = at_least_float(images);
  const Draws draws(x, generator, 4);
  const auto factor = [&](double most) { return draws.uniform(std::max(0.0, 1 - most), 1 + most); };
  const Tensor chosen = draws.chosen(p);
  const bool colours = images.sym_size(1) == 3;
  if (brightness > 0) x = (x * factor(brightness)).clamp(0, 1);
  if (contrast > 0) x = away_from(luma(x).mean({1, 2, 3}, true), x, factor(contrast));
  if (saturation > 0 && colours) x = away_from(luma(x), x, factor(saturation));
  if (hue > 0 && colours) x = turned_hue(x, draws.uniform(-hue, hue));
  return at::where(chosen, x.to(images.scalar_type()), images);
}

Tensor random_grayscale_composed(const Tensor& images, double p,
                                 const OptionalGenerator& generator) {
  const char* op = "random_grayscale";
  check_images(op, images);
  check_one_or_three_channels(op, images);
  check_number(op, "p", p, 1);
  const Tensor x = at_least_float(images);
  const Tensor grey = luma(x).to(images.scalar_type());
  return at::where(Draws(x, generator, 4).chosen(p), grey, images);
}

Tensor random_blur_composed(const Tensor& images, int64_t kernel_size, at::ArrayRef<double> sigma,
                            double p, const OptionalGenerator& generator) {
  const char* op = "random_blur";
  check_images(op, images);
  TILEWRIGHT_CHECK(op, kernel_size > 0 && kernel_size % 2 == 1,
                   "kernel_size must be a positive odd number, got ", kernel_size);
  check_range(op, "sigma", sigma);
  check_number(op, "p", p, 1);
  Tensor x = at_least_float(images);
  const Draws draws(x, generator, 4);
  const int64_t reach = kernel_size / 2;
  const Tensor distance = at::arange(-reach, reach + 1, x.options());  // (K,)
  const Tensor raised = (distance / draws.uniform(sigma[0], sigma[1])).square().mul(-0.5).exp();
  const Tensor weight = raised / raised.sum(-1, true);  // (N, 1, 1, K)
  for (const int64_t dim : {2, 3}) {
    const auto size = int64_t(pixels(x, dim));
    const Tensor edged = x.index_select(
        dim, at::arange(-reach, size + reach, x.options().dtype(at::kLong)).clamp(0, size - 1));
    Tensor sum;
    for (int64_t tap = 0; tap < kernel_size; ++tap) {
      const Tensor part = edged.narrow(dim, tap, size) * weight.narrow(3, tap, 1);
      sum = tap == 0 ? part : sum + part;
    }
    x = sum;
  }
  return at::where(draws.chosen(p), x.to(images.scalar_type()), images);
}

Tensor random_noise_composed(const Tensor& images, double sigma,
                             const OptionalGenerator& generator) {
  const char* op = "random_noise";
  check_images(op, images);
  check_unit_range(op, images);
  check_number(op, "sigma", sigma);
  const Tensor x = at_least_float(images);
  const Draws draws(x, generator, 4);
  const Tensor deviation = draws.uniform(0, sigma);
  return (x + draws.normal() * deviation).clamp(0, 1).to(images.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("color_jitter", &color_jitter_composed);
  m.impl("random_grayscale", &random_grayscale_composed);
  m.impl("random_blur", &random_blur_composed);
  m.impl("random_noise", &random_noise_composed);
}

}  // namespace augmentations_internal

at::Tensor color_jitter(const at::Tensor& images, double brightness, double contrast,
                        double saturation, double hue, double p,
                        const std::optional<at::Generator>& generator) {
  static const auto op = operator_handle<decltype(color_jitter)>("tilewright::color_jitter");
  return op.call(images, brightness, contrast, saturation, hue, p, generator);
}

at::Tensor random_grayscale(const at::Tensor& images, double p,
                            const std::optional<at::Generator>& generator) {
  static const auto op =
      operator_handle<decltype(random_grayscale)>("tilewright::random_grayscale");
  return op.call(images, p, generator);
}

at::Tensor random_blur(const at::Tensor& images, int64_t kernel_size, at::ArrayRef<double> sigma,
                       double p, const std::optional<at::Generator>& generator) {
  static const auto op = operator_handle<decltype(random_blur)>("tilewright::random_blur");
  return op.call(images, kernel_size, sigma, p, generator);
}

at::Tensor random_noise(const at::Tensor& images, double sigma,
                        const std::optional<at::Generator>& generator) {
  static const auto op = operator_handle<decltype(random_noise)>("tilewright::random_noise");
  return op.call(images, sigma, generator);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded};
  m.def(
      "color_jitter(Tensor images, float brightness, float contrast, float saturation=0.0, "
      "float hue=0.0, float p=1.0, *, Generator? generator=None) -> Tensor",
      tags);
  m.def("random_grayscale(Tensor images, float p=0.1, *, Generator? generator=None) -> Tensor",
        tags);
  m.def(
      "random_blur(Tensor images, int kernel_size, float[2] sigma, float p=0.5, *, "
      "Generator? generator=None) -> Tensor",
      tags);
  m.def("random_noise(Tensor images, float sigma, *, Generator? generator=None) -> Tensor", tags);
}

}  // namespace tilewright
