// How images and targets enter a detector: the steps that the C++ model and its scriptable Python
// twin share, as registered operators, so that their errors and roundings are the same.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// Images normalised with `mean` and `deviation` and resized (bilinear) so that the shorter side is
// `min_size`, or less where the longer side would exceed `max_size`; the ratio of sides is kept.
//   images[i]: (C, H_i, W_i) floating, in [0, 1]; mean, deviation: C numbers (the schema calls it
//   std). Returns one (C, h_i, w_i) per image.
//   parameter: one of the model that the images are for. They must be on its device and of its
//   dtype, or under autocast of that one's. And where mean and deviation lie in (0, 1), as those of
//   images in [0, 1] do, a pixel above 2 is an error on the CPU: it was not divided by 255. (On
//   CUDA that is not looked at.)
TILEWRIGHT_API std::vector<at::Tensor> resize_images(
    at::TensorList images, at::ArrayRef<double> mean, at::ArrayRef<double> deviation,
    int64_t min_size, int64_t max_size, const std::optional<at::Tensor>& parameter = std::nullopt);

// One batch (B, C, H, W) of images (C, h_i, w_i) that stand in the upper left corner, with zeros to
// the right and below; H and W are the smallest multiples of `size_divisible` that hold all.
TILEWRIGHT_API at::Tensor pad_images(at::TensorList images, int64_t size_divisible = 32);

// Ground truths, checked, with the boxes carried into the resized images.
//   boxes[i]: (G_i, 4) floating, in pixels of images[i], of positive width and height; labels[i]:
//   (G_i,) int64 in [1, num_classes), 0 being the background. G_i may be 0. Returns boxes (G_i, 4)
//   in pixels of resized[i], float32 or float64.
// Errors name the index of the image and the offending box. Boxes and labels are looked at on every
// device, which costs two synchronisations per image on CUDA; nothing is looked at while tracing.
TILEWRIGHT_API std::vector<at::Tensor> prepare_targets(at::TensorList boxes, at::TensorList labels,
                                                       at::TensorList images,
                                                       at::TensorList resized, int64_t num_classes);

}  // namespace tilewright
