// ps_roi_align and ps_roi_pool on the CPU: tensors to raw pointers, and how the work is cut for
// threads.
#include "tilewright/detection/ps_roi_cpu.h"

#include <ATen/Parallel.h>

#include "tilewright/detection/ps_roi_register.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

// Output elements below which a second thread costs more than it brings.
constexpr int64_t kPsGrain = 4096;

PsRoiCpuParams make_params(const PsRoiArgs& args, const at::Tensor& map, const at::Tensor& rois,
                           const at::Tensor& pooled, at::MemoryFormat layout) {
  PsRoiCpuParams params{};
  params.dtype = map.scalar_type();
  params.channels_last = layout == at::MemoryFormat::ChannelsLast;
  params.rois = rois.const_data_ptr();
  params.num_rois = rois.size(0);
  params.batch = map.size(0);
  params.channels = map.size(1);
  params.height = map.size(2);
  params.width = map.size(3);
  params.geometry = args.geometry;
  params.spatial_scale = args.spatial_scale;
  params.map = const_cast<void*>(map.const_data_ptr());
  params.pooled = const_cast<void*>(pooled.const_data_ptr());
  return params;
}

template <class Body>
void for_pieces(const PsRoiCpuParams& params, int64_t elements, const Body& body) {
  const int64_t pieces = params.batch * ceil_div(params.channels, kPsRoiPieceChannels);
  const int64_t piece_elements = elements / std::max<int64_t>(pieces, 1) + 1;
  at::parallel_for(0, pieces, 1 + kPsGrain / piece_elements, body);
}

at::Tensor pool(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& given_rois) {
  check_ps_roi(args, input, given_rois);
  const auto layout = input.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, input.scalar_type());
  check_image_indices(args.op, rois, input.size(0));
  const at::Tensor map = input.contiguous(layout);
  at::Tensor pooled = ps_roi_output(args, input, given_rois);
  if (pooled.numel() == 0) return pooled;
  const auto params = make_params(args, map, rois, pooled, layout);
  for_pieces(params, pooled.numel(),
             [&](int64_t begin, int64_t end) { ps_roi_forward(params, begin, end); });
  return pooled;
}

at::Tensor pool_backward(const PsRoiArgs& args, const at::Tensor& given_grad,
                         const at::Tensor& given_rois, const c10::SymInt& batch,
                         const c10::SymInt& channels, const c10::SymInt& height,
                         const c10::SymInt& width) {
  check_ps_roi_backward(args, given_grad, given_rois, channels);
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, given_grad.scalar_type());
  check_image_indices(args.op, rois, batch.expect_int());
  const at::Tensor grad = given_grad.contiguous(layout);
  at::Tensor map = empty_grad_input(grad, batch, channels, height, width);
  if (map.numel() == 0) return map;
  const auto params = make_params(args, map, rois, grad, layout);
  for_pieces(params, map.numel() + grad.numel(),
             [&](int64_t begin, int64_t end) { ps_roi_backward(params, begin, end); });
  return map;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { PsRoiKernels<pool, pool_backward>::add_to(m); }

}  // namespace tilewright
