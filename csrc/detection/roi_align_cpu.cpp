// RoIAlign on the CPU: tensors to raw pointers, and how the work is cut for threads. Serves one
// feature map (roi_align, roi_align_rotated) and a pyramid (multiscale_roi_align).
#include "tilewright/detection/roi_align_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "tilewright/core/check.h"
#include "tilewright/detection/roi_align_register.h"

namespace tilewright {
namespace {

// Output elements below which a second thread costs more than it brings.
constexpr int64_t kAlignGrain = 16384;

RoiAlignCpuParams make_params(const RoiAlignArgs& args, at::ScalarType dtype,
                              at::MemoryFormat layout, const at::Tensor& rois, int64_t batch,
                              int64_t channels) {
  RoiAlignCpuParams params{};
  params.dtype = dtype;
  params.channels_last = layout == at::MemoryFormat::ChannelsLast;
  params.rois = rois.const_data_ptr();
  params.num_rois = rois.size(0);
  params.batch = batch;
  params.channels = channels;
  params.geometry = args.geometry();
  params.pyramid = args.pyramid();
  check_image_indices(args.op, rois, batch);
  return params;
}

at::Tensor align_on_cpu(const RoiAlignArgs& args, at::TensorList features,
                        const at::Tensor& given_rois) {
  check_roi_align(args, features, given_rois);
  const auto layout = roi_align_layout(features);
  const at::Tensor rois = accumulate_type_rois(given_rois, features[0].scalar_type());
  RoiAlignCpuParams params = make_params(args, features[0].scalar_type(), layout, rois,
                                         features[0].size(0), features[0].size(1));
  std::vector<at::Tensor> maps;  // keeps copies alive
  for (size_t i = 0; i < features.size(); ++i) {
    maps.push_back(features[i].contiguous(layout));
    params.levels[i] = {const_cast<void*>(maps[i].const_data_ptr()), maps[i].size(2),
                        maps[i].size(3), args.scales[i]};
  }
  at::Tensor pooled = roi_align_output(args, features, given_rois);
  params.pooled = pooled.data_ptr();
  const int64_t pieces =
      args.rotated ? roi_align_rotated_forward_pieces(params) : roi_align_forward_pieces(params);
  const int64_t piece_elements = pooled.numel() / std::max<int64_t>(pieces, 1) + 1;
  at::parallel_for(0, pieces, 1 + kAlignGrain / piece_elements, [&](int64_t begin, int64_t end) {
    args.rotated ? roi_align_rotated_forward(params, begin, end)
                 : roi_align_forward(params, begin, end);
  });
  return pooled;
}

std::vector<at::Tensor> align_backward_on_cpu(
    const RoiAlignArgs& args, const at::Tensor& given_grad, const at::Tensor& given_rois,
    const c10::SymInt& sym_batch, const c10::SymInt& sym_channels, c10::SymIntArrayRef heights,
    c10::SymIntArrayRef widths) {
  const int64_t batch = sym_batch.expect_int(), channels = sym_channels.expect_int();
  check_roi_align_backward(args, given_grad, given_rois, channels, heights, widths);
  std::vector<at::Tensor> maps =
      roi_align_grad_inputs(given_grad, batch, channels, heights, widths);
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, given_grad.scalar_type());
  const at::Tensor grad = given_grad.contiguous(layout);
  RoiAlignCpuParams params = make_params(args, grad.scalar_type(), layout, rois, batch, channels);
  params.pooled = const_cast<void*>(grad.const_data_ptr());
  for (size_t i = 0; i < maps.size(); ++i) {
    params.levels[i] = {maps[i].data_ptr(), maps[i].size(2), maps[i].size(3), args.scales[i]};
  }
  const int64_t pieces =
      args.rotated ? roi_align_rotated_backward_pieces(params) : roi_align_backward_pieces(params);
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    args.rotated ? roi_align_rotated_backward(params, begin, end)
                 : roi_align_backward(params, begin, end);
  });
  return maps;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  RoiAlignKernels<align_on_cpu, align_backward_on_cpu>::add_to(m);
}

}  // namespace tilewright
