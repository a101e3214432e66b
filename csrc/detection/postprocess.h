// From the class scores and boxes of a detector to its list of detections.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// The detections of one image: boxes clipped to the image, classes whose score exceeds
// `score_threshold`, without boxes whose side is below `min_size` pixels, non-maximum suppression
// class by class, the `max_detections` best of the rest.
//   scores: (P, C) probabilities, class 0 being the background; boxes: (P, 4 * C), four per class.
//   Returns boxes (D, 4), scores (D,) and labels (D,) int64 in [1, C), in descending order of
//   score; scores and boxes are float32 or float64, and differentiable.
// Scores or boxes that are NaN are never detected.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor, at::Tensor> postprocess_detections(
    const at::Tensor& scores, const at::Tensor& boxes, c10::SymInt image_height,
    c10::SymInt image_width, double score_threshold = 0.05, double nms_threshold = 0.5,
    int64_t max_detections = 100, double min_size = 1e-2);

}  // namespace tilewright
