// gradient_exponents on CUDA: tensors to launches.
#include <ATen/ATen.h>

#include "tilewright/amp/gradient_exponents_args.h"
#include "tilewright/amp/gradient_exponents_kernel.cuh"
#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/tensor_list.h"

namespace tilewright {
namespace {

at::Tensor exponents_cuda(at::TensorList grads) {
  check_exponents(grads);
  const DeviceGuard guard(grads[0]);
  std::vector<at::Tensor> dense;
  for (const at::Tensor& grad : grads) dense.push_back(dense_of(grad));
  const at::Tensor counts = at::zeros({kExponents}, grads[0].options().dtype(at::kLong));
  LaunchConfig config{.block = kExponentsThreads};
  config.shared_bytes = shared_bytes<ExponentsParts>();
  for_tensor_lists(dense, kExponentsPiece, false,
                   [&](auto tag, const TensorList& list, int blocks) {
                     config.grid = dim3(unsigned(blocks));
                     launch<exponents_kernel<device_t<typename decltype(tag)::type>>>(
                         config, ExponentsParams{list, mutable_data<int64_t>(counts)});
                   });
  return counts;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("gradient_exponents", &exponents_cuda); }

}  // namespace tilewright
