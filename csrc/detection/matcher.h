// Which ground truth each box answers for, and the training targets that follow from it.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

inline constexpr int64_t kMatchBackground = -1;  // best overlap below low_threshold
inline constexpr int64_t kMatchIgnored = -2;     // between the thresholds

// For each box the ground truth that overlaps it most, or why there is none.
//   iou: (G, M) overlap of G ground truths with M boxes; G and M may be 0.
//   Returns (M,) int64: an index in [0, G), kMatchBackground or kMatchIgnored.
// With allow_low_quality every ground truth also keeps the boxes that tie for its highest overlap,
// however low: those boxes get their own best ground truth. A box with a NaN in its column is
// background. The first ground truth wins a tie. (Detectron2's and torchvision's matcher, but for
// one case: a ground truth that overlaps no box keeps none, where theirs would give it all of
// them.)
TILEWRIGHT_API at::Tensor match_boxes(const at::Tensor& iou, double high_threshold,
                                      double low_threshold, bool allow_low_quality = false);

// match_boxes over box_iou(gt_boxes, boxes), turned into targets.
//   gt_boxes: (G, 4), gt_labels: (G,) int64 >= 1, boxes: (M, 4); G may be 0.
//   Returns labels (M,) int64: the label of the match, 0 background, -1 ignored; and matched boxes
//   (M, 4), which mean nothing where the label is not positive (zeros if G is 0).
// Needs memory for a few (G, M) matrices.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> assign_targets(
    const at::Tensor& gt_boxes, const at::Tensor& gt_labels, const at::Tensor& boxes,
    double high_threshold, double low_threshold, bool allow_low_quality = false);

}  // namespace tilewright
