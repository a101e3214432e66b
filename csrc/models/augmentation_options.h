// Which augmentations make a view of an image, and how strong they are.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <optional>
#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// Recipes to start from; what is 0 (or goes from 1 to 1) is left out.
//   "digits": written signs, grey. Turned, moved, cropped, lit differently, parts erased, noise; no
//       mirrors, for a mirrored sign is another.
//   "photographs": SimCLR's for small images (arXiv:2002.05709, appendix B.9).
//   "none": all left out, to be set one by one.
struct TILEWRIGHT_API AugmentationOptions {
  AugmentationOptions(const std::string& recipe = "digits");  // NOLINT(runtime/explicit)

  const char* model() const { return "Augmentation"; }

  // random_affine: up to so many degrees, this share of the sides, a factor from zoom.
  TORCH_ARG(double, degrees) = 0;
  TORCH_ARG(double, translate) = 0;
  TORCH_ARG(std::vector<double>, zoom) = {1, 1};
  // random_resized_crop: share of the area, width over height.
  TORCH_ARG(std::vector<double>, crop_scale) = {1, 1};
  TORCH_ARG(std::vector<double>, crop_ratio) = {1, 1};
  // random_horizontal_flip: the chance.
  TORCH_ARG(double, flip) = 0;
  // color_jitter, and its chance.
  TORCH_ARG(double, brightness) = 0;
  TORCH_ARG(double, contrast) = 0;
  TORCH_ARG(double, saturation) = 0;
  TORCH_ARG(double, hue) = 0;
  TORCH_ARG(double, jitter) = 1;
  // random_grayscale: the chance.
  TORCH_ARG(double, grayscale) = 0;
  // random_blur: the chance, pixels of the kernel, and its sigma.
  TORCH_ARG(double, blur) = 0;
  TORCH_ARG(int64_t, blur_size) = 3;
  TORCH_ARG(std::vector<double>, blur_sigma) = {0.1, 2.0};
  // random_erasing: the chance, share of the area, width over height.
  TORCH_ARG(double, erase) = 0;
  TORCH_ARG(std::vector<double>, erase_scale) = {0.02, 0.15};
  TORCH_ARG(std::vector<double>, erase_ratio) = {0.3, 3.3};
  // random_noise: the largest deviation.
  TORCH_ARG(double, noise) = 0;
};

// Calls visit(name, value) for each of them.
template <class Visit>
void for_each_option(AugmentationOptions& options, Visit&& visit) {
  visit("degrees", options.degrees());
  visit("translate", options.translate());
  visit("zoom", options.zoom());
  visit("crop_scale", options.crop_scale());
  visit("crop_ratio", options.crop_ratio());
  visit("flip", options.flip());
  visit("brightness", options.brightness());
  visit("contrast", options.contrast());
  visit("saturation", options.saturation());
  visit("hue", options.hue());
  visit("jitter", options.jitter());
  visit("grayscale", options.grayscale());
  visit("blur", options.blur());
  visit("blur_size", options.blur_size());
  visit("blur_sigma", options.blur_sigma());
  visit("erase", options.erase());
  visit("erase_scale", options.erase_scale());
  visit("erase_ratio", options.erase_ratio());
  visit("noise", options.noise());
}

// A view of each image (N, C, H, W) in [0, 1], of the same shape and dtype: the augmentations of
// augmentations.h in the order of the options. Calling it twice gives the two views of SimCLR.
// Throws what check_options and they throw.
TILEWRIGHT_API at::Tensor augment(const at::Tensor& images, const AugmentationOptions& options,
                                  const std::optional<at::Generator>& generator = std::nullopt);

// Throws, naming the option, where a value cannot serve any image.
TILEWRIGHT_API void check_options(const AugmentationOptions& options);

}  // namespace tilewright
