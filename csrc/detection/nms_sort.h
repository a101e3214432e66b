// What NMS does around its kernels: checks and registration for every machine, and for CUDA sorting
// by score, grouping by class, and turning flags into indices. Exported for the emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// The candidates of NMS on CUDA: boxes with finite coordinates and a score that is a number, by
// class, within a class by descending score.
struct NmsSorted {
  at::Tensor boxes;    // (n, columns); float32 or float64
  at::Tensor order;    // (n,) int64: which box of the input
  at::Tensor rank;     // (n,) int64: place by descending score among all; undefined for one class
  at::Tensor classes;  // (n,) int64; undefined for one class
};

// `columns` coordinates make a box: 4, or 5 for rotated ones.
TILEWRIGHT_API void check_nms(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                              const std::optional<at::Tensor>& idxs, double iou_threshold,
                              int64_t max_output, int64_t columns = 4);

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

// Registers nms and batched_nms, or the two of rotated boxes, for one dispatch key, by the
// machine's function
//   Tensor keep_boxes(boxes, scores, idxs or nullopt, iou_threshold, max_output)
template <auto kKeepBoxes, bool kRotated = false>
struct NmsKernels {
  static constexpr const char* kSingle = kRotated ? "nms_rotated" : "nms";
  static constexpr const char* kBatched = kRotated ? "batched_nms_rotated" : "batched_nms";

  static at::Tensor single(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                           int64_t max_output) {
    check_nms(kSingle, boxes, scores, std::nullopt, iou_threshold, max_output, kRotated ? 5 : 4);
    return kKeepBoxes(boxes, scores, std::nullopt, iou_threshold, max_output);
  }
  static at::Tensor batched(const at::Tensor& boxes, const at::Tensor& scores,
                            const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
    check_nms(kBatched, boxes, scores, idxs, iou_threshold, max_output, kRotated ? 5 : 4);
    return kKeepBoxes(boxes, scores, idxs, iou_threshold, max_output);
  }
  static void add_to(torch::Library& m) {
    m.impl(kSingle, &single);
    m.impl(kBatched, &batched);
  }
};

}  // namespace tilewright
