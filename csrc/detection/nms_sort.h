// What NMS does around its kernel on every device: checks, sorting by score, grouping by class, and
// turning flags into indices. Exported for the emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// The candidates of NMS: boxes with finite coordinates and a score that is a number, by class,
// within a class by descending score.
struct NmsSorted {
  at::Tensor boxes;  // (5, n): x1, y1, x2, y2, area; float32 or float64
  at::Tensor order;  // (n,) int64: which box of the input
  at::Tensor
      rank;  // (n,) int64: place among all candidates by descending score; undefined for one class
  at::Tensor classes;                 // (n,) int64; undefined for one class
  std::vector<int64_t> group_begins;  // CPU only: where each class begins, and n
};

TILEWRIGHT_API void check_nms(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                              const std::optional<at::Tensor>& idxs, double iou_threshold,
                              int64_t max_output);

TILEWRIGHT_API NmsSorted nms_sort(const at::Tensor& boxes, const at::Tensor& scores,
                                  const std::optional<at::Tensor>& idxs);

// keep: (n,) bool. The input's indices of the kept candidates by descending score.
TILEWRIGHT_API at::Tensor nms_kept(const NmsSorted& sorted, const at::Tensor& keep,
                                   int64_t max_output);

// The largest T that is not above the threshold: overlap > threshold then decides as it would in
// real numbers, and as torchvision's CPU kernel does.
template <class T>
T nms_threshold(double threshold) {
  const T nearest = T(threshold);
  return double(nearest) > threshold ? std::nextafter(nearest, -std::numeric_limits<T>::infinity())
                                     : nearest;
}

// Registers nms and batched_nms for one dispatch key, by the machine's function
//   Tensor keep_boxes(const char* op, boxes, scores, idxs or nullopt, iou_threshold, max_output)
template <auto kKeepBoxes>
struct NmsKernels {
  static at::Tensor single(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                           int64_t max_output) {
    return kKeepBoxes("nms", boxes, scores, std::nullopt, iou_threshold, max_output);
  }
  static at::Tensor batched(const at::Tensor& boxes, const at::Tensor& scores,
                            const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
    return kKeepBoxes("batched_nms", boxes, scores, idxs, iou_threshold, max_output);
  }
  static void add_to(torch::Library& m) {
    m.impl("nms", &single);
    m.impl("batched_nms", &batched);
  }
};

}  // namespace tilewright
