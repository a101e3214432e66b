// NMS of rotated boxes on the CPU: the walk of upright boxes, with another exact test.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cmath>

#include "tilewright/detection/nms_sort.h"
#include "tilewright/detection/nms_walk.h"

namespace tilewright {
namespace {

constexpr int64_t kRotatedGrain = 4096;

// What two boxes share is at least `threshold` of the area of each, and a slab of a convex shape
// that holds a share t of its area is at least 1 - sqrt(1 - t) as wide as the shape (a triangle is
// the worst); so much the upright boxes around them overlap along either axis. A thousandth is
// given away for rounding.
NmsReach rotated_reach(double threshold) { return {1 - std::sqrt(1 - 0.999 * threshold), 1}; }

template <class S>
at::Tensor run(const at::Tensor& boxes, const at::Tensor& scores,
               const std::optional<at::Tensor>& idxs, double iou_threshold, int64_t max_output) {
  const double* rows = boxes.const_data_ptr<double>();
  const NmsOrder order =
      nms_order(rows, 5, scores.const_data_ptr<S>(),
                idxs.has_value() ? idxs->const_data_ptr<int64_t>() : nullptr, boxes.size(0));
  const int64_t n = order.count;
  const auto storage = uninitialized<double>(kNmsArrays * n);
  const auto shapes = uninitialized<RotatedBox<double>>(n);
  const auto origin = uninitialized<int64_t>(n);
  const auto keep = std::make_unique<bool[]>(n);
  NmsWalk<double> walk{};
  for (int a = 0; a < kNmsArrays; ++a) walk.boxes[a] = storage.get() + a * n;
  at::parallel_for(0, n, kRotatedGrain, [&](int64_t begin, int64_t end) {
    nms_load_rotated(rows, order.box.get(), iou_threshold, begin, end, walk.boxes, shapes.get());
  });
  walk.kernels = nms_rotated_kernels();
  walk.threshold = iou_threshold;
  walk.reach = rotated_reach(iou_threshold);
  walk.max_output = max_output < 0 ? n : max_output;
  walk.shapes = shapes.get();
  walk.origin = origin.get();
  walk.keep = keep.get();
  nms_walk(walk, order);
  return nms_list_kept(order, keep.get(), max_output);
}

at::Tensor keep_rotated_boxes(const at::Tensor& boxes, const at::Tensor& scores,
                              const std::optional<at::Tensor>& idxs, double iou_threshold,
                              int64_t max_output) {
  const at::Tensor wide = boxes.to(at::kDouble).contiguous();
  std::optional<at::Tensor> classes;
  if (idxs.has_value()) classes = idxs->to(at::kLong).contiguous();
  return scores.scalar_type() == at::kDouble
             ? run<double>(wide, scores.contiguous(), classes, iou_threshold, max_output)
             : run<float>(wide, scores.to(at::kFloat).contiguous(), classes, iou_threshold,
                          max_output);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  NmsKernels<keep_rotated_boxes, /*kRotated=*/true>::add_to(m);
}

}  // namespace tilewright
