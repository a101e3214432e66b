// Registers ps_roi_align, ps_roi_pool and their backward passes for one dispatch key. A machine
// (CPU, CUDA, Meta) gives two functions:
//   Tensor pool(PsRoiArgs, Tensor input, Tensor rois)
//   Tensor pool_backward(PsRoiArgs, Tensor grad, Tensor rois, SymInt batch, SymInt channels,
//                        SymInt height, SymInt width)
#pragma once
#include <torch/library.h>

#include "tilewright/detection/ps_roi_shapes.h"

namespace tilewright {

template <auto kPool, auto kPoolBackward>
struct PsRoiKernels {
  using Outputs = std::tuple<at::Tensor, at::Tensor>;

  static Outputs run(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& rois) {
    at::Tensor output = kPool(args, input, rois);
    return {output, channel_mapping(args, input, rois)};
  }

  static Outputs align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                       int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
    return run({"ps_roi_align", spatial_scale, {pooled_height, pooled_width, true, sampling_ratio}},
               input, rois);
  }

  static Outputs pool(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                      int64_t pooled_height, int64_t pooled_width) {
    return run({"ps_roi_pool", spatial_scale, {pooled_height, pooled_width, false, 0}}, input,
               rois);
  }

  static at::Tensor align_backward(const at::Tensor& grad, const at::Tensor& rois,
                                   double spatial_scale, int64_t pooled_height,
                                   int64_t pooled_width, c10::SymInt batch, c10::SymInt channels,
                                   c10::SymInt height, c10::SymInt width, int64_t sampling_ratio) {
    return kPoolBackward({"_ps_roi_align_backward",
                          spatial_scale,
                          {pooled_height, pooled_width, true, sampling_ratio}},
                         grad, rois, batch, channels, height, width);
  }

  static at::Tensor pool_backward(const at::Tensor& grad, const at::Tensor& rois,
                                  double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                                  c10::SymInt batch, c10::SymInt channels, c10::SymInt height,
                                  c10::SymInt width) {
    return kPoolBackward(
        {"_ps_roi_pool_backward", spatial_scale, {pooled_height, pooled_width, false, 0}}, grad,
        rois, batch, channels, height, width);
  }

  static void add_to(torch::Library& m) {
    m.impl("ps_roi_align", &align);
    m.impl("_ps_roi_align_backward", &align_backward);
    m.impl("ps_roi_pool", &pool);
    m.impl("_ps_roi_pool_backward", &pool_backward);
  }
};

}  // namespace tilewright
