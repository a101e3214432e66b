// Preparation of a detector's images and targets: schemas, checks with the index of the image,
// steps.
#include "tilewright/models/detection_inputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/models/holds_data.h"

namespace tilewright {
namespace {

// (C, 1, 1); built from scalars because a constant filled through its data pointer cannot be
// traced.
at::Tensor per_channel(at::ArrayRef<double> values, const at::Tensor& image) {
  std::vector<at::Tensor> scalars;
  for (const double value : values) {
    scalars.push_back(at::scalar_tensor(value, image.options().device(at::kCPU)));
  }
  return at::stack(scalars)
      .to(image.device(), image.scalar_type(), /*non_blocking=*/true)
      .view({-1, 1, 1});
}

struct PixelSize {
  int64_t height, width;
};

// As numbers, to which a symbolic size is bound when it is read.
PixelSize size_of(const at::Tensor& image) {
  return {image.sym_size(-2).guard_int(__FILE__, __LINE__),
          image.sym_size(-1).guard_int(__FILE__, __LINE__)};
}

// In double and cut off, as torchvision's eager code does it.
PixelSize resized_size(PixelSize size, int64_t min_size, int64_t max_size) {
  const auto shorter = static_cast<double>(std::min(size.height, size.width));
  const auto longer = static_cast<double>(std::max(size.height, size.width));
  const double scale = std::min(min_size / shorter, max_size / longer);
  const auto scaled = [scale](int64_t side) {
    return std::max<int64_t>(1, static_cast<int64_t>(std::floor(side * scale)));
  };
  return {scaled(size.height), scaled(size.width)};
}

void check_fits(const char* op, const std::string& name, const at::Tensor& image,
                const at::Tensor& parameter) {
  check_same_device(op, "the model", parameter, name.c_str(), image);
  const auto device = image.device().type();
  const bool converted = parameter.scalar_type() != at::kDouble &&
                         at::autocast::is_autocast_enabled(device) &&
                         image.scalar_type() == at::autocast::get_autocast_dtype(device);
  TILEWRIGHT_CHECK(op, converted || image.scalar_type() == parameter.scalar_type(), name,
                   " must have the dtype of the model, ", parameter.scalar_type(), ", got ",
                   image.scalar_type());
}

// Pixels that were not divided by 255. Some are above 1 after augmentations: 2 is meant to be safe.
void check_range(const char* op, const std::string& name, const at::Tensor& image) {
  constexpr double kLimit = 2;
  if (!image.is_cpu() || !holds_data(image)) return;
  const double maximum = image.max().item<double>();
  TILEWRIGHT_CHECK(op, !(maximum > kLimit), name, " must hold pixels in [0, 1], got a maximum of ",
                   maximum, " (divide images in 0..255 by 255)");
}

bool meant_for_unit_range(at::ArrayRef<double> mean, at::ArrayRef<double> deviation) {
  const auto inside = [](double value) { return value > 0 && value < 1; };
  return std::all_of(mean.begin(), mean.end(), inside) &&
         std::all_of(deviation.begin(), deviation.end(), inside);
}

std::vector<at::Tensor> resize_all(at::TensorList images, at::ArrayRef<double> mean,
                                   at::ArrayRef<double> deviation, int64_t min_size,
                                   int64_t max_size, const std::optional<at::Tensor>& parameter) {
  constexpr auto kOp = "resize_images";
  TILEWRIGHT_CHECK(kOp, !mean.empty() && mean.size() == deviation.size(),
                   "mean and std must have one number per channel, got ", mean.size(), " and ",
                   deviation.size());
  for (double value : deviation) {
    TILEWRIGHT_CHECK(kOp, value > 0, "std must be positive, got ", value);
  }
  TILEWRIGHT_CHECK(kOp, min_size > 0 && max_size > 0,
                   "min_size and max_size must be positive, got ", min_size, " and ", max_size);
  const bool unit_range = meant_for_unit_range(mean, deviation);
  std::vector<at::Tensor> resized;
  for (size_t i = 0; i < images.size(); ++i) {
    const auto& image = images[i];
    const auto name = "images[" + std::to_string(i) + "]";
    TILEWRIGHT_CHECK(kOp,
                     image.dim() == 3 && image.sym_size(0) == static_cast<int64_t>(mean.size()) &&
                         image.sym_size(1) > 0 && image.sym_size(2) > 0,
                     name, " must have shape (", mean.size(), ", H, W) and not be empty, got ",
                     shape_of(image));
    check_floating(kOp, name.c_str(), image);
    if (parameter) check_fits(kOp, name, image, *parameter);
    if (parameter && unit_range) check_range(kOp, name, image);
    const auto normalised = (image - per_channel(mean, image)) / per_channel(deviation, image);
    const auto given = size_of(image);
    const auto size = resized_size(given, min_size, max_size);
    if (size.height == given.height && size.width == given.width) {
      resized.push_back(normalised);
    } else {
      resized.push_back(at::upsample_bilinear2d(normalised.unsqueeze(0), {size.height, size.width},
                                                /*align_corners=*/false)
                            .squeeze(0));
    }
  }
  return resized;
}

at::Tensor pad_all(at::TensorList images, int64_t size_divisible) {
  constexpr auto kOp = "pad_images";
  TILEWRIGHT_CHECK(kOp, !images.empty(), "images must hold at least one image, got an empty list");
  TILEWRIGHT_CHECK(kOp, size_divisible > 0, "size_divisible must be positive, got ",
                   size_divisible);
  c10::SymInt height = 0, width = 0;
  for (size_t i = 0; i < images.size(); ++i) {
    TILEWRIGHT_CHECK(kOp, images[i].dim() == 3 && images[i].sym_size(0) == images[0].sym_size(0),
                     "images[", i, "] must have shape (C, H, W) with the channels of images[0] ",
                     shape_of(images[0]), ", got ", shape_of(images[i]));
    height = height.max(images[i].sym_size(1));
    width = width.max(images[i].sym_size(2));
  }
  height = (height + size_divisible - 1) / size_divisible * size_divisible;
  width = (width + size_divisible - 1) / size_divisible * size_divisible;
  std::vector<at::Tensor> padded;
  for (const auto& image : images) {
    padded.push_back(at::constant_pad_nd_symint(
        image, {0, width - image.sym_size(2), 0, height - image.sym_size(1)}));
  }
  return at::stack(padded);
}

void check_boxes_of_image(const char* op, size_t image, const at::Tensor& boxes) {
  const auto bad = (boxes.slice(1, 2) > boxes.slice(1, 0, 2))
                       .all(1)
                       .logical_and(boxes.isfinite().all(1))
                       .logical_not();
  if (!bad.any().item<bool>()) return;
  const int64_t row = bad.to(at::kByte).argmax().item<int64_t>();
  const auto box = boxes[row].to(at::kDouble).cpu();
  TILEWRIGHT_CHECK(op, false, "boxes[", image,
                   "] must hold finite boxes with x2 > x1 and y2 > y1, got box ", row, ": (",
                   box[0].item<double>(), ", ", box[1].item<double>(), ", ", box[2].item<double>(),
                   ", ", box[3].item<double>(), ")");
}

void check_labels_of_image(const char* op, size_t image, const at::Tensor& labels,
                           int64_t num_classes) {
  const auto bad = (labels < 1).logical_or(labels >= num_classes);
  if (!bad.any().item<bool>()) return;
  const int64_t row = bad.to(at::kByte).argmax().item<int64_t>();
  TILEWRIGHT_CHECK(op, false, "labels[", image, "] must lie in [1, ", num_classes,
                   ") (0 is the background), got ", labels[row].item<int64_t>(), " for box ", row);
}

std::vector<at::Tensor> prepare(at::TensorList boxes, at::TensorList labels, at::TensorList images,
                                at::TensorList resized, int64_t num_classes) {
  constexpr auto kOp = "prepare_targets";
  const size_t count = images.size();
  TILEWRIGHT_CHECK(kOp, boxes.size() == count && labels.size() == count && resized.size() == count,
                   "boxes, labels and resized must have one entry per image (", count, "), got ",
                   boxes.size(), ", ", labels.size(), " and ", resized.size());
  for (size_t i = 0; i < count; ++i) {
    const auto box_name = "boxes[" + std::to_string(i) + "]";
    const auto label_name = "labels[" + std::to_string(i) + "]";
    check_shape(kOp, box_name.c_str(), boxes[i], "(G, 4)", 2, 4);
    check_floating(kOp, box_name.c_str(), boxes[i]);
    TILEWRIGHT_CHECK(kOp, labels[i].dim() == 1 && labels[i].sym_size(0) == boxes[i].sym_size(0),
                     label_name, " must have shape (G,) for ", box_name, " (G, 4), got ",
                     shape_of(labels[i]), " for ", shape_of(boxes[i]));
    TILEWRIGHT_CHECK(kOp, labels[i].scalar_type() == at::kLong, label_name, " must be int64, got ",
                     labels[i].scalar_type());
    check_same_device(kOp, "images[0]", images[0], box_name.c_str(), boxes[i]);
    check_same_device(kOp, "images[0]", images[0], label_name.c_str(), labels[i]);
    if (holds_data(boxes[i])) {
      check_boxes_of_image(kOp, i, boxes[i]);
      check_labels_of_image(kOp, i, labels[i], num_classes);
    }
  }
  std::vector<at::Tensor> carried;
  for (size_t i = 0; i < count; ++i) {
    const auto from = size_of(images[i]), to = size_of(resized[i]);
    carried.push_back(resize_boxes(boxes[i], {from.height, from.width}, {to.height, to.width}));
  }
  return carried;
}

}  // namespace

std::vector<at::Tensor> resize_images(at::TensorList images, at::ArrayRef<double> mean,
                                      at::ArrayRef<double> deviation, int64_t min_size,
                                      int64_t max_size,
                                      const std::optional<at::Tensor>& parameter) {
  static const auto op = operator_handle<decltype(resize_images)>("tilewright::resize_images");
  return op.call(images, mean, deviation, min_size, max_size, parameter);
}

at::Tensor pad_images(at::TensorList images, int64_t size_divisible) {
  static const auto op = operator_handle<decltype(pad_images)>("tilewright::pad_images");
  return op.call(images, size_divisible);
}

std::vector<at::Tensor> prepare_targets(at::TensorList boxes, at::TensorList labels,
                                        at::TensorList images, at::TensorList resized,
                                        int64_t num_classes) {
  static const auto op = operator_handle<decltype(prepare_targets)>("tilewright::prepare_targets");
  return op.call(boxes, labels, images, resized, num_classes);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "resize_images(Tensor[] images, float[] mean, float[] std, int min_size, int max_size, "
      "Tensor? parameter=None) -> Tensor[]",
      tags);
  m.def("pad_images(Tensor[] images, int size_divisible=32) -> Tensor", tags);
  m.def(
      "prepare_targets(Tensor[] boxes, Tensor[] labels, Tensor[] images, Tensor[] resized, "
      "int num_classes) -> Tensor[]",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("resize_images", &tilewright::resize_all);
  m.impl("pad_images", &tilewright::pad_all);
  m.impl("prepare_targets", &tilewright::prepare);
}
