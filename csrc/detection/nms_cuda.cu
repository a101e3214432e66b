// NMS on CUDA: a chunk of rows of the overlap matrix at a time, no copy to the host until the
// result's size is known.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <type_traits>

#include "tilewright/core/cuda/host.h"
#include "tilewright/detection/nms_kernel.cuh"
#include "tilewright/detection/nms_sort.h"

namespace tilewright {
namespace {

// Memory for the chunk of the overlap matrix; a matrix of 16 thousand boxes is one chunk.
constexpr int64_t kMaskBytes = 32 << 20;

template <class T>
at::Tensor run(const NmsSorted& sorted, double iou_threshold, int64_t max_output) {
  NmsParams<T> params{};
  params.count = sorted.order.numel();
  params.words = ceil_div(params.count, kNmsTile);
  const auto options = sorted.boxes.options();
  at::Tensor keep = at::empty({params.count}, options.dtype(at::kBool));
  if (params.count > 0) {
    const int64_t chunk = std::max<int64_t>(
        kNmsTile, kMaskBytes / int64_t(params.words * sizeof(uint64_t)) / kNmsTile * kNmsTile);
    const int64_t rows = std::min(chunk, params.words * kNmsTile);
    at::Tensor mask = at::empty({rows, params.words}, options.dtype(at::kLong));
    at::Tensor removed = at::zeros({params.words}, options.dtype(at::kLong));
    params.boxes = const_data<T>(sorted.boxes);
    params.classes = sorted.classes.defined() ? const_data<int64_t>(sorted.classes) : nullptr;
    params.threshold = nms_threshold<T>(iou_threshold);
    params.mask = reinterpret_cast<uint64_t*>(mutable_data<int64_t>(mask));
    params.removed = reinterpret_cast<uint64_t*>(mutable_data<int64_t>(removed));
    params.keep = mutable_data<bool>(keep);
    for (int64_t first = 0; first < params.count; first += chunk) {
      params.first_row = first;
      params.rows = std::min(chunk, params.count - first);
      LaunchConfig config;
      config.grid = dim3(unsigned(params.words - first / kNmsTile),
                         unsigned(ceil_div(params.rows, kNmsTile)));
      config.block = kNmsTile;
      config.shared_bytes = shared_bytes<NmsTileParts<T>>();
      launch<nms_mask_kernel<T>>(config, params);
      LaunchConfig reduce;
      reduce.block = kNmsReduceThreads;
      reduce.shared_bytes = shared_bytes<NmsReduceParts>();
      launch<nms_reduce_kernel<T>>(reduce, params);
    }
  }
  return nms_kept(sorted, keep, max_output);
}

at::Tensor keep_boxes(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                      const std::optional<at::Tensor>& idxs, double iou_threshold,
                      int64_t max_output) {
  check_nms(op, boxes, scores, idxs, iou_threshold, max_output);
  const DeviceGuard guard(boxes);
  const NmsSorted sorted = nms_sort(boxes, scores, idxs);
  return sorted.boxes.scalar_type() == at::kDouble ? run<double>(sorted, iou_threshold, max_output)
                                                   : run<float>(sorted, iou_threshold, max_output);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { NmsKernels<keep_boxes>::add_to(m); }

}  // namespace tilewright
