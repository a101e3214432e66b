// Random views of images, for learning without labels: batched tensor operations in which each
// image draws for itself. One implementation serves C++, Python and TorchScript.
//
// images: (N, C, H, W), float64, float32, float16 or bfloat16 in [0, 1]. The result has its shape
// and dtype, and is computed in float32 at least. Random numbers come from `generator`, which must
// be of the images' device, or from torch's: torch.manual_seed repeats them. Differentiable in
// images. p is the chance that an image is changed at all. Errors are c10::Error; for what cuts its
// results to [0, 1], images outside of it are one on the CPU.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// A piece of each image, enlarged to size (rows, columns; the images' own where not given) by
// bilinear interpolation, without smoothing where it gets smaller. Its area is a share of the
// image's drawn from `scale`, its width over its height is drawn from `ratio`, evenly in the
// logarithm; sides are cut to the image's (GoogLeNet, arXiv:1409.4842; torchvision draws again).
TILEWRIGHT_API at::Tensor random_resized_crop(
    const at::Tensor& images, at::ArrayRef<double> scale, at::ArrayRef<double> ratio,
    at::OptionalIntArrayRef size = std::nullopt,
    const std::optional<at::Generator>& generator = std::nullopt);

// Turned by up to `degrees` either way, moved by up to `translate` of the image's height and width,
// and enlarged by a factor from `zoom`, evenly in the logarithm; around its centre, bilinearly.
// What comes in from outside is 0.
TILEWRIGHT_API at::Tensor random_affine(
    const at::Tensor& images, double degrees, double translate, at::ArrayRef<double> zoom,
    const std::optional<at::Generator>& generator = std::nullopt);

// Mirrored left to right, with chance p.
TILEWRIGHT_API at::Tensor random_horizontal_flip(
    const at::Tensor& images, double p = 0.5,
    const std::optional<at::Generator>& generator = std::nullopt);

// Brightness and contrast times a factor of up to 1 +- each, saturation likewise, and the hue
// turned by up to `hue` <= 0.5 of a circle, in this order. Contrast is the distance from the
// image's mean grey, saturation that from a pixel's; images of one channel have neither saturation
// nor hue, and these leave them as they are. Values are cut to [0, 1] after each.
TILEWRIGHT_API at::Tensor color_jitter(
    const at::Tensor& images, double brightness, double contrast, double saturation = 0,
    double hue = 0, double p = 1, const std::optional<at::Generator>& generator = std::nullopt);

// Three equal channels of 0.299 R + 0.587 G + 0.114 B, with chance p. Images of one channel stay.
TILEWRIGHT_API at::Tensor random_grayscale(
    const at::Tensor& images, double p = 0.1,
    const std::optional<at::Generator>& generator = std::nullopt);

// Weighted means of kernel_size x kernel_size pixels (odd), the weights a Gaussian of a sigma drawn
// from `sigma`, in pixels. Beyond its edge the image goes on as the edge.
TILEWRIGHT_API at::Tensor random_blur(const at::Tensor& images, int64_t kernel_size,
                                      at::ArrayRef<double> sigma, double p = 0.5,
                                      const std::optional<at::Generator>& generator = std::nullopt);

// A rectangle of each image set to `value`, of an area and a ratio as random_resized_crop draws
// them, in whole pixels (arXiv:1708.04896).
TILEWRIGHT_API at::Tensor random_erasing(
    const at::Tensor& images, at::ArrayRef<double> scale, at::ArrayRef<double> ratio,
    double p = 0.5, double value = 0, const std::optional<at::Generator>& generator = std::nullopt);

// Normal noise added to each pixel, its deviation drawn for each image from [0, sigma]; cut to
// [0, 1].
TILEWRIGHT_API at::Tensor random_noise(
    const at::Tensor& images, double sigma,
    const std::optional<at::Generator>& generator = std::nullopt);

}  // namespace tilewright
