// The recipes of augmentations, and their way through the operators.
#include "tilewright/models/augmentation_options.h"

#include "tilewright/models/augmentations.h"
#include "tilewright/models/augmentations_internal.h"

namespace tilewright {
namespace {

// Whether a factor can be other than 1.
bool varies(const std::vector<double>& range) { return range[0] != 1 || range[1] != 1; }

}  // namespace

AugmentationOptions::AugmentationOptions(const std::string& recipe) {
  if (recipe == "digits") {
    degrees(15).translate(0.1).zoom({0.85, 1.15});
    crop_scale({0.5, 1}).crop_ratio({0.75, 4.0 / 3});
    brightness(0.4).contrast(0.4).erase(0.3).noise(0.1);
  } else if (recipe == "photographs") {
    crop_scale({0.2, 1}).crop_ratio({0.75, 4.0 / 3}).flip(0.5);
    brightness(0.4).contrast(0.4).saturation(0.4).hue(0.1).jitter(0.8).grayscale(0.2);
  } else {
    TILEWRIGHT_CHECK(model(), recipe == "none", "recipe must be digits, photographs or none, got ",
                     recipe);
  }
}

void check_options(const AugmentationOptions& options) {
  using augmentations_internal::check_number;
  using augmentations_internal::check_range;
  const char* model = options.model();
  check_number(model, "degrees", options.degrees(), 360);
  check_number(model, "translate", options.translate(), 1);
  check_range(model, "zoom", options.zoom());
  check_range(model, "crop_scale", options.crop_scale(), 1);
  check_range(model, "crop_ratio", options.crop_ratio());
  check_number(model, "flip", options.flip(), 1);
  check_number(model, "brightness", options.brightness());
  check_number(model, "contrast", options.contrast());
  check_number(model, "saturation", options.saturation());
  check_number(model, "hue", options.hue(), 0.5);
  check_number(model, "jitter", options.jitter(), 1);
  check_number(model, "grayscale", options.grayscale(), 1);
  check_number(model, "blur", options.blur(), 1);
  TILEWRIGHT_CHECK(model, options.blur_size() > 0 && options.blur_size() % 2 == 1,
                   "blur_size must be a positive odd number, got ", options.blur_size());
  check_range(model, "blur_sigma", options.blur_sigma());
  check_number(model, "erase", options.erase(), 1);
  check_range(model, "erase_scale", options.erase_scale(), 1);
  check_range(model, "erase_ratio", options.erase_ratio());
  check_number(model, "noise", options.noise());
}

at::Tensor augment(const at::Tensor& images, const AugmentationOptions& options,
                   const std::optional<at::Generator>& generator) {
  check_options(options);
  at::Tensor x = images;
  if (options.degrees() > 0 || options.translate() > 0 || varies(options.zoom())) {
    x = random_affine(x, options.degrees(), options.translate(), options.zoom(), generator);
  }
  if (varies(options.crop_scale()) || varies(options.crop_ratio())) {
    x = random_resized_crop(x, options.crop_scale(), options.crop_ratio(), {}, generator);
  }
  if (options.flip() > 0) x = random_horizontal_flip(x, options.flip(), generator);
  if (options.brightness() + options.contrast() + options.saturation() + options.hue() > 0) {
    x = color_jitter(x, options.brightness(), options.contrast(), options.saturation(),
                     options.hue(), options.jitter(), generator);
  }
  if (options.grayscale() > 0) x = random_grayscale(x, options.grayscale(), generator);
  if (options.blur() > 0) {
    x = random_blur(x, options.blur_size(), options.blur_sigma(), options.blur(), generator);
  }
  if (options.erase() > 0) {
    x = random_erasing(x, options.erase_scale(), options.erase_ratio(), options.erase(), 0,
                       generator);
  }
  if (options.noise() > 0) x = random_noise(x, options.noise(), generator);
  return x;
}

}  // namespace tilewright
