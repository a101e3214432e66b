// unscale_ and unscale_and_norm_ on CUDA: a launch for some hundred gradients of one dtype.
#include <ATen/ATen.h>

#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/tensor_list.h"
#include "tilewright/amp/unscale_args.h"
#include "tilewright/amp/unscale_kernel.cuh"

namespace tilewright {
namespace {

using at::Tensor;

int64_t count_pieces(at::TensorList grads) {
  int64_t count = 0;
  for (const Tensor& grad : grads) count += ceil_div(grad.numel(), kUnscalePiece);
  return count;
}

// squares: (pieces,) float64, or undefined.
void unscale_all_cuda(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                      const std::optional<Tensor>& first_bad, const Tensor& squares, bool write) {
  LaunchConfig config{.block = kUnscaleThreads};
  config.shared_bytes = shared_bytes<UnscaleParts>();
  int64_t done = 0;
  for_tensor_lists(grads, kUnscalePiece, true, [&](auto tag, const TensorList& list, int blocks) {
    UnscaleParams params{list,
                         const_data<float>(inv_scale),
                         mutable_data<float>(found_inf),
                         first_bad ? mutable_data<int64_t>(*first_bad) : nullptr,
                         nullptr,
                         write};
    using T = device_t<typename decltype(tag)::type>;
    config.grid = dim3(unsigned(blocks));
    if (squares.defined()) {
      params.squares = mutable_data<double>(squares) + done;
      launch<unscale_kernel<T, true>>(config, params);
    } else {
      launch<unscale_kernel<T, false>>(config, params);
    }
    done += blocks;
  });
}

void unscale_cuda(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                  const std::optional<Tensor>& first_bad, bool write) {
  check_unscale(unscale_name(false), grads, found_inf, inv_scale, first_bad);
  const DeviceGuard guard(found_inf);
  const DenseGrads dense(unscale_name(false), grads);
  unscale_all_cuda(dense.tensors(), found_inf, inv_scale, first_bad, Tensor(), write);
  if (write) dense.copy_back();
}

Tensor unscale_and_norm_cuda(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                             const std::optional<Tensor>& first_bad, bool write) {
  check_unscale(unscale_name(true), grads, found_inf, inv_scale, first_bad);
  const DeviceGuard guard(found_inf);
  const DenseGrads dense(unscale_name(true), grads);
  const Tensor norm = empty_norm(grads, found_inf);
  const int64_t pieces = count_pieces(dense.tensors());
  const Tensor squares = at::empty({pieces}, found_inf.options().dtype(at::kDouble));
  unscale_all_cuda(dense.tensors(), found_inf, inv_scale, first_bad, squares, write);
  LaunchConfig config{.block = kUnscaleThreads};
  config.shared_bytes = shared_bytes<UnscaleParts>();
  const auto finish = [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch<norm_kernel<T>>(
        config, NormParams<T>{const_data<double>(squares), pieces, mutable_data<T>(norm)});
  };
  norm.scalar_type() == at::kDouble ? finish(TypeTag<double>()) : finish(TypeTag<float>());
  if (write) dense.copy_back();
  return norm;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("unscale_", &unscale_cuda);
  m.impl("unscale_and_norm_", &unscale_and_norm_cuda);
}

}  // namespace tilewright
