// NMS's host side on CUDA, for upright and rotated boxes: a chunk of rows of the overlap matrix at
// a time, no copy to the host until the result's size is known.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/detection/nms_kernel.cuh"
#include "tilewright/detection/nms_sort.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Memory for the chunk of the overlap matrix; a matrix of 16 thousand boxes is one chunk.
constexpr int64_t kNmsMaskBytes = 32 << 20;

// Which boxes of `sorted` are kept, (n,) bool.
template <class Shape>
at::Tensor nms_keep(const NmsSorted& sorted, double iou_threshold) {
  using T = typename Shape::Coordinate;
  NmsParams<Shape> params{};
  params.count = sorted.order.numel();
  params.words = ceil_div(params.count, kNmsTile);
  const auto options = sorted.boxes.options();
  at::Tensor keep = at::empty({params.count}, options.dtype(at::kBool));
  if (params.count == 0) return keep;
  const int64_t chunk = std::max<int64_t>(
      kNmsTile, kNmsMaskBytes / int64_t(params.words * sizeof(uint64_t)) / kNmsTile * kNmsTile);
  const int64_t rows = std::min(chunk, params.words * kNmsTile);
  at::Tensor mask = at::empty({rows, params.words}, options.dtype(at::kLong));
  at::Tensor removed = at::zeros({params.words}, options.dtype(at::kLong));
  params.boxes = const_data<T>(sorted.boxes);
  params.columns = sorted.boxes.size(1);
  params.classes = sorted.classes.defined() ? const_data<int64_t>(sorted.classes) : nullptr;
  params.threshold = nms_threshold<T>(iou_threshold);
  params.mask = reinterpret_cast<uint64_t*>(mutable_data<int64_t>(mask));
  params.removed = reinterpret_cast<uint64_t*>(mutable_data<int64_t>(removed));
  params.keep = mutable_data<bool>(keep);
  for (int64_t first = 0; first < params.count; first += chunk) {
    params.first_row = first;
    params.rows = std::min(chunk, params.count - first);
    LaunchConfig config;
    config.grid =
        dim3(unsigned(params.words - first / kNmsTile), unsigned(ceil_div(params.rows, kNmsTile)));
    config.block = kNmsTile;
    config.shared_bytes = shared_bytes<NmsTileParts<Shape>>();
    launch<nms_mask_kernel<Shape>>(config, params);
    LaunchConfig reduce;
    reduce.block = kNmsReduceThreads;
    reduce.shared_bytes = shared_bytes<NmsReduceParts>();
    launch<nms_reduce_kernel<Shape>>(reduce, params);
  }
  return keep;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
