// Autograd of the position-sensitive RoI operators, which are linear in their input: the backward
// is the transposed map, and the backward of that is the forward. Boxes are data, not variables.
#pragma once
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/check.h"

namespace tilewright {

// `Op` gives
//   kName
//   static tuple<Tensor, Tensor> forward(Tensor input, Tensor rois, PsRoiCall)
//   static Tensor backward(Tensor grad, Tensor rois, PsRoiCall, SymInt batch, ..., SymInt width)
// which enter the dispatcher.
struct PsRoiCall {
  double spatial_scale;
  int64_t pooled_height, pooled_width, sampling_ratio;

  void save(torch::autograd::AutogradContext* ctx) const {
    ctx->saved_data["spatial_scale"] = spatial_scale;
    ctx->saved_data["pooled_height"] = pooled_height;
    ctx->saved_data["pooled_width"] = pooled_width;
    ctx->saved_data["sampling_ratio"] = sampling_ratio;
  }
  static PsRoiCall saved(const torch::autograd::AutogradContext* ctx) {
    const auto& data = ctx->saved_data;
    return {data.at("spatial_scale").toDouble(), data.at("pooled_height").toInt(),
            data.at("pooled_width").toInt(), data.at("sampling_ratio").toInt()};
  }
};

template <class Op>
class PsRoiFunction : public torch::autograd::Function<PsRoiFunction<Op>> {
 public:
  static constexpr bool is_traceable = true;

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& input, const at::Tensor& rois,
                                                PsRoiCall call) {
    TILEWRIGHT_CHECK(Op::kName, input.dim() == 4, "input must have shape (N, C, H, W), got ",
                     shape_of(input));
    call.save(ctx);
    ctx->save_for_backward({rois});
    ctx->saved_data["batch"] = input.sym_size(0);
    ctx->saved_data["channels"] = input.sym_size(1);
    ctx->saved_data["height"] = input.sym_size(2);
    ctx->saved_data["width"] = input.sym_size(3);
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, mapping] = Op::forward(input, rois, call);
    ctx->mark_non_differentiable({mapping});
    return {output, mapping};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    return {Op::backward(grads[0], ctx->get_saved_variables()[0], PsRoiCall::saved(ctx),
                         data.at("batch").toSymInt(), data.at("channels").toSymInt(),
                         data.at("height").toSymInt(), data.at("width").toSymInt()),
            {},
            {}};
  }
};

template <class Op>
class PsRoiBackwardFunction : public torch::autograd::Function<PsRoiBackwardFunction<Op>> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& grad,
                            const at::Tensor& rois, PsRoiCall call, const c10::SymInt& batch,
                            const c10::SymInt& channels, const c10::SymInt& height,
                            const c10::SymInt& width) {
    call.save(ctx);
    ctx->save_for_backward({rois});
    at::AutoDispatchBelowADInplaceOrView guard;
    return Op::backward(grad, rois, call, batch, channels, height, width);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto outputs =
        Op::forward(grads[0], ctx->get_saved_variables()[0], PsRoiCall::saved(ctx));
    return {std::get<0>(outputs), {}, {}, {}, {}, {}, {}};
  }
};

template <class Op>
std::tuple<at::Tensor, at::Tensor> ps_roi_autograd(const at::Tensor& input, const at::Tensor& rois,
                                                   const PsRoiCall& call) {
  auto outputs = PsRoiFunction<Op>::apply(input, rois, call);
  return {outputs[0], outputs[1]};
}

}  // namespace tilewright
