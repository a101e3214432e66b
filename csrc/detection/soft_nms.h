// Soft-NMS for C++ users: overlapping boxes lose score instead of being dropped.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// Bodla et al. 2017 (arXiv:1704.04503). The box of the highest score is taken (of equal scores that
// of the lower index), and the scores of all that remain are multiplied by a factor of their
// intersection over union with it; and so on, while the highest score is at least min_score.
//
// boxes:  (N, 4): x1, y1, x2, y2; float64, float32, float16 or bfloat16 (16 bits: computed in
//         float32).
// scores: (N,), floating.
// method: the factor. "gaussian": exp(-iou^2 / sigma). "linear": 1 - iou where iou > iou_threshold,
//         else 1. "hard": 0 where iou > iou_threshold, which is nms.
// Boxes with a NaN or infinite coordinate or a NaN score are dropped and suppress nothing; the
// rules for pairs without area are those of nms.
// Returns the indices of the taken boxes in the order of their taking, (M,) int64, and their scores
// by then, (M,), in the dtype of `scores`. The scores are differentiable in `scores` and `boxes`,
// once; which boxes are taken, and in which order, is a constant.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> soft_nms(
    const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold = 0.3,
    double sigma = 0.5, double min_score = 0.001, c10::string_view method = "gaussian");

}  // namespace tilewright
