// NMS on the CPU: sorts, loads the boxes in that order, and walks them.
#include "tilewright/detection/nms_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "tilewright/detection/nms_sort.h"
#include "tilewright/detection/nms_walk.h"

namespace tilewright {
namespace {

constexpr int64_t kLoadGrain = 16384;

// The overlap of two boxes is at most that of their sides along either axis. A thousandth is given
// away for rounding.
NmsReach reach_of(double threshold) {
  const double overlap = 0.999 * threshold;
  return {overlap, 1 + overlap};
}

template <class T, class S>
at::Tensor run(const at::Tensor& boxes, const at::Tensor& scores,
               const std::optional<at::Tensor>& idxs, double iou_threshold, int64_t max_output) {
  const T* rows = boxes.const_data_ptr<T>();
  const NmsOrder order =
      nms_order(rows, 4, scores.const_data_ptr<S>(),
                idxs.has_value() ? idxs->const_data_ptr<int64_t>() : nullptr, boxes.size(0));
  const int64_t n = order.count;
  const auto storage = uninitialized<T>(kNmsArrays * n);
  const auto keep = std::make_unique<bool[]>(n);
  NmsWalk<T> walk{};
  for (int a = 0; a < kNmsArrays; ++a) walk.boxes[a] = storage.get() + a * n;
  at::parallel_for(0, n, kLoadGrain, [&](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<T, float>) {
      nms_load_float(rows, order.box.get(), iou_threshold, begin, end, walk.boxes);
    } else {
      nms_load_double(rows, order.box.get(), iou_threshold, begin, end, walk.boxes);
    }
  });
  if constexpr (std::is_same_v<T, float>) {
    walk.kernels = nms_kernels_float();
  } else {
    walk.kernels = nms_kernels_double();
  }
  walk.threshold = nms_threshold<T>(iou_threshold);
  walk.reach = reach_of(iou_threshold);
  walk.max_output = max_output < 0 ? n : max_output;
  walk.keep = keep.get();
  nms_walk(walk, order);
  return nms_list_kept(order, keep.get(), max_output);
}

at::Tensor float_or_double(const at::Tensor& tensor) {
  return tensor.to(tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).contiguous();
}

at::Tensor keep_boxes(const at::Tensor& boxes, const at::Tensor& scores,
                      const std::optional<at::Tensor>& idxs, double iou_threshold,
                      int64_t max_output) {
  const at::Tensor b = float_or_double(boxes), s = float_or_double(scores);
  std::optional<at::Tensor> classes;
  if (idxs.has_value()) classes = idxs->to(at::kLong).contiguous();
  const bool wide_boxes = b.scalar_type() == at::kDouble, wide = s.scalar_type() == at::kDouble;
  if (wide_boxes) {
    return wide ? run<double, double>(b, s, classes, iou_threshold, max_output)
                : run<double, float>(b, s, classes, iou_threshold, max_output);
  }
  return wide ? run<float, double>(b, s, classes, iou_threshold, max_output)
              : run<float, float>(b, s, classes, iou_threshold, max_output);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { NmsKernels<keep_boxes>::add_to(m); }

}  // namespace tilewright
