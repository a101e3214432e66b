// nade on CUDA: weights with rows of hidden units, tensors to params, launches.
#include <ATen/ATen.h>

#include "tilewright/core/check.h"
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/density/nade_args.h"
#include "tilewright/density/nade_kernel.cuh"

namespace tilewright {
namespace {

using at::Tensor;

// What a block may have of shared memory without asking for more.
constexpr size_t kNadeShared = 48 * 1024;
constexpr int64_t kMostBlocks = 0x7fffffff;  // of a grid

// The weights as the kernels read them.
struct NadeRowsOfUnits {
  explicit NadeRowsOfUnits(const NadeWeights& w)
      : in(w.weight_in.t().contiguous()),
        bias_in(w.bias_in.contiguous()),
        out(w.weight_out.contiguous()),
        bias_out(w.bias_out.contiguous()) {}
  Tensor in, bias_in, out, bias_out;
};

template <class T>
struct NadeLaunch {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;

  NadeLaunch(const char* op, int64_t rows, const NadeRowsOfUnits& w, at::TensorOptions sums) {
    TILEWRIGHT_CHECK(op, rows <= kMostBlocks, "at most ", kMostBlocks, " rows on CUDA, got ", rows);
    params.pixels = w.in.size(0);
    params.hidden = w.in.size(1);
    params.weight_in = const_data<T>(w.in);
    params.weight_out = const_data<T>(w.out);
    params.bias_in = const_data<T>(w.bias_in);
    params.bias_out = const_data<T>(w.bias_out);
    config.grid = dim3(unsigned(rows));
    config.block =
        dim3(unsigned(std::min(ceil_div(params.hidden, kLanes) * kLanes, int64_t(kNadeThreads))));
    config.shared_bytes = shared_bytes<NadeParts<Acc>>(params.hidden);
    if (config.shared_bytes > kNadeShared) {
      activations = at::empty({rows, params.hidden}, sums);
      params.activations = mutable_data<Acc>(activations);
      config.shared_bytes = shared_bytes<NadeParts<Acc>>(int64_t(0));
    }
  }

  NadeParams<Device> params{};
  LaunchConfig config;
  Tensor activations;
};

NadeOutput nade_cuda(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                     const Tensor& weight_out, const Tensor& bias_out) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade("nade", x, weights);
  const DeviceGuard guard(x);
  auto [log_prob, logits] = nade_output(x);
  if (x.size(0) == 0) return {log_prob, logits};
  const NadeRowsOfUnits units(weights);
  const Tensor pixels = x.contiguous(), sums = log_prob, steps = logits;
  dispatch_floating("nade", x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    NadeLaunch<T> launched("nade", x.size(0), units, sums.options());
    auto& params = launched.params;
    using Acc = typename NadeLaunch<T>::Acc;
    params.x = const_data<T>(pixels);
    params.log_prob = mutable_data<Acc>(sums);
    params.logits = mutable_data<Acc>(steps);
    launch<nade_forward_kernel<device_t<T>>>(launched.config, params);
  });
  return {log_prob, logits};
}

Tensor nade_sample_cuda(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                        const Tensor& weight_out, const Tensor& bias_out,
                        const std::optional<Tensor>& given,
                        std::optional<at::Generator> generator) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_sample(n, weights, given);
  const DeviceGuard guard(weight_in);
  const auto options = weight_in.options().dtype(nade_sums_type(weight_in.scalar_type()));
  const Tensor uniform = at::rand({n, weight_in.size(1)}, std::move(generator), options);
  const Tensor sample = at::empty(uniform.sizes(), weight_in.options());
  if (n == 0) return sample;
  const NadeRowsOfUnits units(weights);
  const Tensor known = given ? given->contiguous() : Tensor();
  dispatch_floating("nade_sample", weight_in.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    NadeLaunch<T> launched("nade_sample", n, units, options);
    auto& params = launched.params;
    if (known.defined() && known.numel() > 0) {
      params.x = const_data<T>(known);
      params.given = known.size(1);
    }
    params.uniform = const_data<typename NadeLaunch<T>::Acc>(uniform);
    params.sample = mutable_data<T>(sample);
    launch<nade_sample_kernel<device_t<T>>>(launched.config, params);
  });
  return sample;
}

NadeGrads nade_backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                             const Tensor& bias_in, const Tensor& weight_out,
                             const Tensor& bias_out, const Tensor& logits) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_backward("_nade_backward", grad, x, weights, logits);
  const DeviceGuard guard(x);
  // Shares of the samples that have gradients of their own: as few as occupy a GPU.
  constexpr int64_t kMostCopies = 16;
  const int64_t pixels = x.size(1), hidden = weight_in.size(0);
  const Tensor steps = nade_steps(grad, x, logits, kNadeRowsTogether);
  const int64_t groups = steps.size(0), copies = std::min(groups, kMostCopies);
  const auto options = steps.options();
  const Tensor grad_in = at::zeros({copies, pixels, hidden}, options);
  const Tensor grad_out = at::zeros({copies, pixels, hidden}, options);
  const Tensor grad_bias = at::empty({copies, hidden}, options);
  const Tensor places =
      at::empty({copies, ceil_div(pixels, kNadeStretch), kNadeRowsTogether, hidden}, options);
  const NadeRowsOfUnits units(weights);
  dispatch_floating("_nade_backward", x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    NadeBackwardKernelParams<device_t<T>> params{};
    params.groups = groups;
    params.pixels = pixels;
    params.hidden = hidden;
    params.weight_in = const_data<T>(units.in);
    params.weight_out = const_data<T>(units.out);
    params.bias_in = const_data<T>(units.bias_in);
    params.steps = const_data<Acc>(steps);
    params.places = mutable_data<Acc>(places);
    params.grad_weight_in = mutable_data<Acc>(grad_in);
    params.grad_weight_out = mutable_data<Acc>(grad_out);
    params.grad_bias_in = mutable_data<Acc>(grad_bias);
    LaunchConfig config{
        .grid = dim3(unsigned(ceil_div(hidden, int64_t(kNadeUnitThreads))), unsigned(copies)),
        .block = kNadeUnitThreads};
    config.shared_bytes = shared_bytes<NadeBackwardParts<Acc>>();
    launch<nade_backward_kernel<device_t<T>>>(config, params);
  });
  auto grads = nade_grads(weights);
  std::get<0>(grads).copy_(grad_in.sum(0).t());
  std::get<1>(grads).copy_(grad_bias.sum(0));
  std::get<2>(grads).copy_(grad_out.sum(0));
  std::get<3>(grads).copy_(steps.select(2, 0).sum(at::IntArrayRef{0, 2}));
  return grads;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("_nade", &nade_cuda);
  m.impl("_nade_backward", &nade_backward_cuda);
  m.impl("nade_sample", &nade_sample_cuda);
}

}  // namespace tilewright
