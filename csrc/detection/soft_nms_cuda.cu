// Soft-NMS on CUDA: nothing is copied to the host until the result's size is known.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <type_traits>

#include "tilewright/core/cuda/host.h"
#include "tilewright/detection/soft_nms_data.h"
#include "tilewright/detection/soft_nms_kernel.cuh"

namespace tilewright {
namespace {

template <class T>
std::tuple<at::Tensor, at::Tensor> take_all(const SoftNmsArgs& args, const at::Tensor& boxes,
                                            const at::Tensor& scores) {
  const auto type = c10::CppTypeToScalarType<T>::value;
  const int64_t n = boxes.size(0);
  const auto options = boxes.options().dtype(type);
  at::Tensor keep = at::empty({n}, options.dtype(at::kLong)), kept_scores = at::empty({n}, options);
  if (n == 0) return {keep, kept_scores};
  const at::Tensor all = soft_nms_boxes(boxes, {}, type);  // (5, n)
  const at::Tensor given = scores.detach().to(type);
  const at::Tensor plays =
      boxes.detach().isfinite().all(1).logical_and_(given >= T(args.min_score));
  at::Tensor in_play = at::where(plays, given, at::Scalar(kSoftNmsOut)).to(type).contiguous();
  at::Tensor taken = at::empty({1}, options.dtype(at::kLong));
  SoftNmsParams<T> params{};
  params.boxes = const_data<T>(all);
  params.scores = mutable_data<T>(in_play);
  params.count = n;
  params.rule = args.rule<T>();
  params.keep = mutable_data<int64_t>(keep);
  params.kept_scores = mutable_data<T>(kept_scores);
  params.taken = mutable_data<int64_t>(taken);
  LaunchConfig config;
  config.block = kSoftNmsThreads;
  config.shared_bytes = shared_bytes<SoftNmsParts<T>>();
  launch<soft_nms_kernel<T>>(config, params);
  const int64_t count = taken.item<int64_t>();
  return {keep.narrow(0, 0, count).clone(), kept_scores.narrow(0, 0, count).clone()};
}

std::tuple<at::Tensor, at::Tensor> take(const SoftNmsArgs& args, const at::Tensor& boxes,
                                        const at::Tensor& scores) {
  const DeviceGuard guard(boxes);
  auto [keep, kept_scores] = soft_nms_type(boxes, scores) == at::kDouble
                                 ? take_all<double>(args, boxes, scores)
                                 : take_all<float>(args, boxes, scores);
  return {keep, kept_scores.to(scores.scalar_type())};
}

template <class T>
void fill(const SoftNmsArgs& args, const SoftNmsGradients& g) {
  SoftNmsGradParams<T> params{};
  params.boxes = const_data<T>(g.boxes);
  params.scores = const_data<T>(g.scores);
  params.grad = const_data<T>(g.grad);
  params.count = g.scores.size(0);
  params.rule = args.rule<T>();
  params.weight = mutable_data<T>(g.weight);
  params.grad_scores = mutable_data<T>(g.grad_scores);
  params.grad_boxes = mutable_data<T>(g.grad_boxes);
  constexpr int kThreads = 128;
  launch<soft_nms_grad_scores_kernel<T>>(linear_config(params.count, kThreads), params);
  launch<soft_nms_grad_boxes_kernel<T>>(linear_config(params.count, kThreads), params);
}

std::tuple<at::Tensor, at::Tensor> backward(const SoftNmsArgs& args, const at::Tensor& grad,
                                            const at::Tensor& boxes, const at::Tensor& scores,
                                            const at::Tensor& keep) {
  const DeviceGuard guard(boxes);
  const SoftNmsGradients g = soft_nms_gradients(grad, boxes, scores, keep);
  g.scores.scalar_type() == at::kDouble ? fill<double>(args, g) : fill<float>(args, g);
  return soft_nms_scatter(g, boxes, scores, keep);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { SoftNmsKernels<take, backward>::add_to(m); }

}  // namespace tilewright
