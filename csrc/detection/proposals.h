// From the predictions of a region proposal network to the boxes that its detector looks at.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// The proposals of one image: the `pre_nms_top_n` best anchors of each level, decoded and clipped
// to the image, without boxes whose side is below `min_size` pixels or whose score is below
// `score_threshold`, non-maximum suppression level by level, the `post_nms_top_n` best of the rest.
//   objectness: (A,) logits; deltas: (A, 4); anchors: (A, 4), all in the order of grid_anchors.
//   level_sizes: anchors per level, A in sum.
//   Returns boxes (P, 4) and scores (P,) (sigmoid of the logits) in descending order of score,
//   float32 or float64, cut off from the graph: a detector does not train through its proposals.
// Predictions that are NaN are never proposed. (Ren et al. 2015, arXiv:1506.01497; the per-level
// rule is that of Lin et al. 2017, arXiv:1612.03144.)
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> generate_proposals(
    const at::Tensor& objectness, const at::Tensor& deltas, const at::Tensor& anchors,
    c10::SymIntArrayRef level_sizes, c10::SymInt image_height, c10::SymInt image_width,
    int64_t pre_nms_top_n = 1000, int64_t post_nms_top_n = 1000, double nms_threshold = 0.7,
    double score_threshold = 0.0, double min_size = 1e-3);

}  // namespace tilewright
