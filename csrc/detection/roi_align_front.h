// The front that roi_align and roi_align_rotated share: autograd and autocast of an operator that
// is linear in its input. Its backward is the transposed map, and the backward of that is the
// forward. Boxes are data, not variables.
#pragma once
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {

// Op names the operator:
//   static constexpr const char *kName, *kBackwardName;  "roi_align", "_roi_align_backward"
//   static constexpr const char *kOperator, *kBackwardOperator;  the same with the namespace
template <class Op>
struct RoiAlignFront {
  using Context = torch::autograd::AutogradContext;
  using Variables = torch::autograd::variable_list;

  static at::Tensor call(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                         int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                         bool aligned) {
    static const auto op =
        operator_handle<at::Tensor(const at::Tensor&, const at::Tensor&, double, int64_t, int64_t,
                                   int64_t, bool)>(Op::kOperator);
    return op.call(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio,
                   aligned);
  }

  static at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& rois,
                                  double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                                  const c10::SymInt& batch, const c10::SymInt& channels,
                                  const c10::SymInt& height, const c10::SymInt& width,
                                  int64_t sampling_ratio, bool aligned) {
    static const auto op = operator_handle<at::Tensor(
        const at::Tensor&, const at::Tensor&, double, int64_t, int64_t, c10::SymInt, c10::SymInt,
        c10::SymInt, c10::SymInt, int64_t, bool)>(Op::kBackwardOperator);
    return op.call(grad, rois, spatial_scale, pooled_height, pooled_width, batch, channels, height,
                   width, sampling_ratio, aligned);
  }

  static void save(Context* ctx, const at::Tensor& rois, double spatial_scale,
                   int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                   bool aligned) {
    ctx->save_for_backward({rois});
    ctx->saved_data["spatial_scale"] = spatial_scale;
    ctx->saved_data["pooled_height"] = pooled_height;
    ctx->saved_data["pooled_width"] = pooled_width;
    ctx->saved_data["sampling_ratio"] = sampling_ratio;
    ctx->saved_data["aligned"] = aligned;
  }

  struct Function : torch::autograd::Function<Function> {
    static constexpr bool is_traceable = true;

    static at::Tensor forward(Context* ctx, const at::Tensor& input, const at::Tensor& rois,
                              double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                              int64_t sampling_ratio, bool aligned) {
      save(ctx, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned);
      TILEWRIGHT_CHECK(Op::kName, input.dim() == 4, "input must have shape (N, C, H, W), got ",
                       shape_of(input));
      ctx->saved_data["batch"] = input.sym_size(0);
      ctx->saved_data["channels"] = input.sym_size(1);
      ctx->saved_data["height"] = input.sym_size(2);
      ctx->saved_data["width"] = input.sym_size(3);
      at::AutoDispatchBelowADInplaceOrView guard;
      return call(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned);
    }

    static Variables backward(Context* ctx, Variables grads) {
      const auto& data = ctx->saved_data;
      at::Tensor grad_input = call_backward(
          grads[0], ctx->get_saved_variables()[0], data.at("spatial_scale").toDouble(),
          data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
          data.at("batch").toSymInt(), data.at("channels").toSymInt(), data.at("height").toSymInt(),
          data.at("width").toSymInt(), data.at("sampling_ratio").toInt(),
          data.at("aligned").toBool());
      return {grad_input, {}, {}, {}, {}, {}, {}};
    }
  };

  struct BackwardFunction : torch::autograd::Function<BackwardFunction> {
    static constexpr bool is_traceable = true;

    static at::Tensor forward(Context* ctx, const at::Tensor& grad, const at::Tensor& rois,
                              double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                              const c10::SymInt& batch, const c10::SymInt& channels,
                              const c10::SymInt& height, const c10::SymInt& width,
                              int64_t sampling_ratio, bool aligned) {
      save(ctx, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned);
      at::AutoDispatchBelowADInplaceOrView guard;
      return call_backward(grad, rois, spatial_scale, pooled_height, pooled_width, batch, channels,
                           height, width, sampling_ratio, aligned);
    }

    static Variables backward(Context* ctx, Variables grads) {
      const auto& data = ctx->saved_data;
      at::Tensor grad_grad =
          call(grads[0], ctx->get_saved_variables()[0], data.at("spatial_scale").toDouble(),
               data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
               data.at("sampling_ratio").toInt(), data.at("aligned").toBool());
      return {grad_grad, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    }
  };

  static at::Tensor autograd(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                             bool aligned) {
    return Function::apply(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio,
                           aligned);
  }

  static at::Tensor backward_autograd(const at::Tensor& grad, const at::Tensor& rois,
                                      double spatial_scale, int64_t pooled_height,
                                      int64_t pooled_width, c10::SymInt batch, c10::SymInt channels,
                                      c10::SymInt height, c10::SymInt width, int64_t sampling_ratio,
                                      bool aligned) {
    return BackwardFunction::apply(grad, rois, spatial_scale, pooled_height, pooled_width, batch,
                                   channels, height, width, sampling_ratio, aligned);
  }

  // Features stay in the dtype that autocast gave them, boxes keep their precision.
  template <c10::DispatchKey kKey>
  static at::Tensor autocast(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                             bool aligned) {
    c10::impl::ExcludeDispatchKeyGuard guard(kKey);
    return call(input, boxes_beside(rois, input.scalar_type()), spatial_scale, pooled_height,
                pooled_width, sampling_ratio, aligned);
  }

  static void add_autograd(torch::Library& m) {
    m.impl(Op::kName, &autograd);
    m.impl(Op::kBackwardName, &backward_autograd);
  }
  template <c10::DispatchKey kKey>
  static void add_autocast(torch::Library& m) {
    m.impl(Op::kName, &autocast<kKey>);
  }
};

}  // namespace tilewright
