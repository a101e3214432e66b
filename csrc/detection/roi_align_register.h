// Registers roi_align, roi_align_rotated, multiscale_roi_align and their backward passes for one
// dispatch key. A machine (CPU, CUDA, Meta) gives two functions, over one or more levels:
//   Tensor pool(RoiAlignArgs, TensorList features, Tensor rois)
//   Tensor[] pool_backward(RoiAlignArgs, Tensor grad, Tensor rois, SymInt batch, SymInt channels,
//                          SymInt[] heights, SymInt[] widths)
#pragma once
#include <torch/library.h>

#include <vector>

#include "tilewright/detection/roi_align_levels.h"

namespace tilewright {

template <auto kPool, auto kPoolBackward>
struct RoiAlignKernels {
  template <bool kRotated>
  static at::Tensor single(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                           int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                           bool aligned) {
    return kPool(arguments(kRotated ? "roi_align_rotated" : "roi_align", spatial_scale,
                           pooled_height, pooled_width, sampling_ratio, aligned, kRotated),
                 input, rois);
  }

  template <bool kRotated>
  static at::Tensor single_backward(const at::Tensor& grad, const at::Tensor& rois,
                                    double spatial_scale, int64_t pooled_height,
                                    int64_t pooled_width, c10::SymInt batch, c10::SymInt channels,
                                    c10::SymInt height, c10::SymInt width, int64_t sampling_ratio,
                                    bool aligned) {
    return kPoolBackward(
        arguments(kRotated ? "_roi_align_rotated_backward" : "_roi_align_backward", spatial_scale,
                  pooled_height, pooled_width, sampling_ratio, aligned, kRotated),
        grad, rois, batch, channels, height, width)[0];
  }

  static RoiAlignArgs arguments(const char* op, double spatial_scale, int64_t pooled_height,
                                int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                                bool rotated) {
    RoiAlignArgs args{op, {spatial_scale}, pooled_height, pooled_width, sampling_ratio, aligned};
    args.rotated = rotated;
    return args;
  }

  static at::Tensor multiscale(at::TensorList features, const at::Tensor& rois,
                               at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                               int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                               int64_t canonical_scale, int64_t canonical_level) {
    return kPool({"multiscale_roi_align", spatial_scales.vec(), pooled_height, pooled_width,
                  sampling_ratio, aligned, canonical_scale, canonical_level},
                 features, rois);
  }

  static std::vector<at::Tensor> multiscale_backward(
      const at::Tensor& grad, const at::Tensor& rois, at::ArrayRef<double> spatial_scales,
      int64_t pooled_height, int64_t pooled_width, c10::SymInt batch, c10::SymInt channels,
      c10::SymIntArrayRef heights, c10::SymIntArrayRef widths, int64_t sampling_ratio, bool aligned,
      int64_t canonical_scale, int64_t canonical_level) {
    return kPoolBackward({"_multiscale_roi_align_backward", spatial_scales.vec(), pooled_height,
                          pooled_width, sampling_ratio, aligned, canonical_scale, canonical_level},
                         grad, rois, batch, channels, heights, widths);
  }

  static void add_to(torch::Library& m) {
    m.impl("roi_align", &single<false>);
    m.impl("_roi_align_backward", &single_backward<false>);
    m.impl("roi_align_rotated", &single<true>);
    m.impl("_roi_align_rotated_backward", &single_backward<true>);
    m.impl("multiscale_roi_align", &multiscale);
    m.impl("_multiscale_roi_align_backward", &multiscale_backward);
  }
};

}  // namespace tilewright
