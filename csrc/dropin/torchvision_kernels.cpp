// torchvision's operators by this library's, argument by argument.
#include <ATen/ATen.h>

#include "tilewright/core/operator_handle.h"
#include "tilewright/deform/deform_calls.h"
#include "tilewright/detection/nms.h"
#include "tilewright/detection/ps_roi_align.h"
#include "tilewright/detection/ps_roi_pool.h"
#include "tilewright/detection/roi_align.h"
#include "tilewright/detection/roi_align_math.h"
#include "tilewright/detection/roi_pool.h"
#include "tilewright/dropin/original_kernels.h"
#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

using at::Tensor;
using c10::SymInt;
using Pair = std::tuple<Tensor, Tensor>;

// torchvision's autograd stands above these kernels; ours has nothing to record below it.
using Below = at::AutoDispatchBelowADInplaceOrView;

int64_t whole(const SymInt& number) { return number.expect_int(); }

template <class Function, class... Args>
auto call_ours(const char* op, const Args&... args) {
  return operator_handle<Function>(op).call(args...);
}

// A function per dispatch key: each must know which original stands behind it.
template <c10::DispatchKey kKey>
struct TorchvisionKernels {
  template <class Result, class... Args>
  static Result original(const char* op, const Args&... args) {
    return OriginalKernels::instance().call<Result>(op, kKey, args...);
  }

  static Tensor align(const Tensor& input, const Tensor& rois, double scale, SymInt height,
                      SymInt width, int64_t sampling_ratio, bool aligned) {
    if (sampling_ratio > kMaxSamplingRatio) {
      return original<Tensor>("torchvision::roi_align", input, rois, scale, height, width,
                              sampling_ratio, aligned);
    }
    const Below guard;
    return roi_align(input, rois, scale, whole(height), whole(width), sampling_ratio, aligned);
  }
  static Tensor align_backward(const Tensor& grad, const Tensor& rois, double scale, SymInt height,
                               SymInt width, SymInt batch, SymInt channels, SymInt map_height,
                               SymInt map_width, int64_t sampling_ratio, bool aligned) {
    if (sampling_ratio > kMaxSamplingRatio) {
      return original<Tensor>("torchvision::_roi_align_backward", grad, rois, scale, height, width,
                              batch, channels, map_height, map_width, sampling_ratio, aligned);
    }
    const Below guard;
    return call_ours<Tensor(const Tensor&, const Tensor&, double, int64_t, int64_t, SymInt, SymInt,
                            SymInt, SymInt, int64_t, bool)>(
        "tilewright::_roi_align_backward", grad, rois, scale, whole(height), whole(width), batch,
        channels, map_height, map_width, sampling_ratio, aligned);
  }

  static Pair pool(const Tensor& input, const Tensor& rois, double scale, SymInt height,
                   SymInt width) {
    const Below guard;
    return roi_pool(input, rois, scale, whole(height), whole(width));
  }
  static Tensor pool_backward(const Tensor& grad, const Tensor& rois, const Tensor& argmax,
                              double scale, SymInt height, SymInt width, SymInt batch,
                              SymInt channels, SymInt map_height, SymInt map_width) {
    const Below guard;
    return call_ours<Tensor(const Tensor&, const Tensor&, const Tensor&, double, int64_t, int64_t,
                            SymInt, SymInt, SymInt, SymInt)>(
        "tilewright::_roi_pool_backward", grad, rois, argmax, scale, whole(height), whole(width),
        batch, channels, map_height, map_width);
  }

  static Pair ps_align(const Tensor& input, const Tensor& rois, double scale, SymInt height,
                       SymInt width, int64_t sampling_ratio) {
    if (sampling_ratio > kMaxSamplingRatio) {
      return original<Pair>("torchvision::ps_roi_align", input, rois, scale, height, width,
                            sampling_ratio);
    }
    const Below guard;
    return ps_roi_align(input, rois, scale, whole(height), whole(width), sampling_ratio);
  }
  static Tensor ps_align_backward(const Tensor& grad, const Tensor& rois, const Tensor& mapping,
                                  double scale, SymInt height, SymInt width,
                                  int64_t sampling_ratio, SymInt batch, SymInt channels,
                                  SymInt map_height, SymInt map_width) {
    if (sampling_ratio > kMaxSamplingRatio) {
      return original<Tensor>("torchvision::_ps_roi_align_backward", grad, rois, mapping, scale,
                              height, width, sampling_ratio, batch, channels, map_height,
                              map_width);
    }
    const Below guard;
    return call_ours<Tensor(const Tensor&, const Tensor&, double, int64_t, int64_t, SymInt, SymInt,
                            SymInt, SymInt, int64_t)>(
        "tilewright::_ps_roi_align_backward", grad, rois, scale, whole(height), whole(width),
        batch, channels, map_height, map_width, sampling_ratio);
  }

  static Pair ps_pool(const Tensor& input, const Tensor& rois, double scale, SymInt height,
                      SymInt width) {
    const Below guard;
    return ps_roi_pool(input, rois, scale, whole(height), whole(width));
  }
  static Tensor ps_pool_backward(const Tensor& grad, const Tensor& rois, const Tensor&,
                                 double scale, SymInt height, SymInt width, SymInt batch,
                                 SymInt channels, SymInt map_height, SymInt map_width) {
    const Below guard;
    return call_ours<Tensor(const Tensor&, const Tensor&, double, int64_t, int64_t, SymInt, SymInt,
                            SymInt, SymInt)>("tilewright::_ps_roi_pool_backward", grad, rois,
                                             scale, whole(height), whole(width), batch, channels,
                                             map_height, map_width);
  }

  static Tensor suppress(const Tensor& boxes, const Tensor& scores, double threshold) {
    return nms(boxes, scores, threshold);
  }

  static Tensor convolve(const Tensor& input, const Tensor& weight, const Tensor& offset,
                         const Tensor& mask, const Tensor& bias, SymInt stride_h, SymInt stride_w,
                         SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w,
                         SymInt groups, SymInt offset_groups, bool use_mask) {
    const Below guard;
    return call_deform_conv2d(input, weight, offset, if_used(mask, use_mask), bias,
                              {stride_h, stride_w}, {pad_h, pad_w}, {dilation_h, dilation_w},
                              groups, offset_groups);
  }
  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> convolve_backward(
      const Tensor& grad, const Tensor& input, const Tensor& weight, const Tensor& offset,
      const Tensor& mask, const Tensor& bias, SymInt stride_h, SymInt stride_w, SymInt pad_h,
      SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups,
      bool use_mask) {
    const Below guard;
    auto grads = call_deform_conv2d_backward(
        grad, input, weight, offset, if_used(mask, use_mask), {stride_h, stride_w}, {pad_h, pad_w},
        {dilation_h, dilation_w}, groups, offset_groups, {true, true, true, use_mask, true});
    if (!use_mask) std::get<3>(grads) = at::zeros_like(mask);
    return grads;
  }
  static std::optional<Tensor> if_used(const Tensor& mask, bool used) {
    return used ? std::optional<Tensor>(mask) : std::nullopt;
  }
};

template <c10::DispatchKey kKey>
void append(std::vector<Replacement>& all) {
  using Kernels = TorchvisionKernels<kKey>;
  const auto add = [&](const char* name, void (*registers)(torch::Library&)) {
    all.push_back({"torchvision", name, kKey, registers});
  };
  add("roi_align", [](torch::Library& m) { m.impl("roi_align", &Kernels::align); });
  add("_roi_align_backward",
      [](torch::Library& m) { m.impl("_roi_align_backward", &Kernels::align_backward); });
  add("roi_pool", [](torch::Library& m) { m.impl("roi_pool", &Kernels::pool); });
  add("_roi_pool_backward",
      [](torch::Library& m) { m.impl("_roi_pool_backward", &Kernels::pool_backward); });
  add("ps_roi_align", [](torch::Library& m) { m.impl("ps_roi_align", &Kernels::ps_align); });
  add("_ps_roi_align_backward",
      [](torch::Library& m) { m.impl("_ps_roi_align_backward", &Kernels::ps_align_backward); });
  add("ps_roi_pool", [](torch::Library& m) { m.impl("ps_roi_pool", &Kernels::ps_pool); });
  add("_ps_roi_pool_backward",
      [](torch::Library& m) { m.impl("_ps_roi_pool_backward", &Kernels::ps_pool_backward); });
  add("nms", [](torch::Library& m) { m.impl("nms", &Kernels::suppress); });
  add("deform_conv2d", [](torch::Library& m) { m.impl("deform_conv2d", &Kernels::convolve); });
  add("_deform_conv2d_backward",
      [](torch::Library& m) { m.impl("_deform_conv2d_backward", &Kernels::convolve_backward); });
}

}  // namespace

std::vector<Replacement> torchvision_replacements() {
  std::vector<Replacement> all;
  append<c10::DispatchKey::CPU>(all);
  append<c10::DispatchKey::CUDA>(all);
  return all;
}

}  // namespace tilewright
