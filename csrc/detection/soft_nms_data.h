// What Soft-NMS does around its kernels on every device: checks, and moving between the input's
// boxes and the taken ones. Exported for the emulated device.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/detection/nms_sort.h"
#include "tilewright/detection/soft_nms_math.h"

namespace tilewright {

struct SoftNmsArgs {
  double iou_threshold, sigma, min_score;
  c10::string_view method;

  template <class T>
  SoftNmsRule<T> rule() const;
};

TILEWRIGHT_API void check_soft_nms(const char* op, const at::Tensor& boxes,
                                   const at::Tensor& scores, const SoftNmsArgs& args);
TILEWRIGHT_API void check_soft_nms_backward(const at::Tensor& grad, const at::Tensor& boxes,
                                            const at::Tensor& scores, const at::Tensor& keep,
                                            const SoftNmsArgs& args);
TILEWRIGHT_API SoftNmsMethod soft_nms_method(c10::string_view method);

// float64 if one of the two is, else float32.
TILEWRIGHT_API at::ScalarType soft_nms_type(const at::Tensor& boxes, const at::Tensor& scores);

// The boxes at `index` (undefined: all), (5, n) of soft_nms_type: x1, y1, x2, y2, area.
TILEWRIGHT_API at::Tensor soft_nms_boxes(const at::Tensor& boxes, const at::Tensor& index,
                                         at::ScalarType type);

// What _soft_nms_backward reads and writes, of soft_nms_type, for the taken boxes.
struct SoftNmsGradients {
  at::Tensor boxes;         // (5, M)
  at::Tensor scores, grad;  // (M,)
  at::Tensor grad_boxes;    // (M, 4), to be filled
  at::Tensor grad_scores;   // (M,), to be filled
  at::Tensor weight;        // (M,), scratch
};
TILEWRIGHT_API SoftNmsGradients soft_nms_gradients(const at::Tensor& grad, const at::Tensor& boxes,
                                                   const at::Tensor& scores,
                                                   const at::Tensor& keep);
// Back to the input's boxes, scores and dtypes; 0 for boxes that were not taken.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> soft_nms_scatter(
    const SoftNmsGradients& gradients, const at::Tensor& boxes, const at::Tensor& scores,
    const at::Tensor& keep);

template <class T>
SoftNmsRule<T> SoftNmsArgs::rule() const {
  return {soft_nms_method(method), nms_threshold<T>(iou_threshold),
          std::max(T(sigma), std::numeric_limits<T>::min()), T(min_score)};
}

// Registers soft_nms and its backward for one dispatch key, by the machine's functions
//   (keep, scores) take(SoftNmsArgs, boxes, scores)
//   (grad_boxes, grad_scores) backward(SoftNmsArgs, grad, boxes, scores, keep)
template <auto kTake, auto kBackward>
struct SoftNmsKernels {
  static std::tuple<at::Tensor, at::Tensor> take(const at::Tensor& boxes, const at::Tensor& scores,
                                                 double iou_threshold, double sigma,
                                                 double min_score, c10::string_view method) {
    const SoftNmsArgs args{iou_threshold, sigma, min_score, method};
    check_soft_nms("soft_nms", boxes, scores, args);
    return kTake(args, boxes, scores);
  }
  static std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad,
                                                     const at::Tensor& boxes,
                                                     const at::Tensor& scores,
                                                     const at::Tensor& keep, double iou_threshold,
                                                     double sigma, c10::string_view method) {
    const SoftNmsArgs args{iou_threshold, sigma, 0, method};
    check_soft_nms_backward(grad, boxes, scores, keep, args);
    return kBackward(args, grad, boxes, scores, keep);
  }
  static void add_to(torch::Library& m) {
    m.impl("soft_nms", &take);
    m.impl("_soft_nms_backward", &backward);
  }
};

}  // namespace tilewright
