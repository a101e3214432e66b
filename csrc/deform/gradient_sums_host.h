// Memory and launches behind GradientSums.
#pragma once
#include <ATen/Functions.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/deform/gradient_sums.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Sums of the given sizes and type, and what they need to be reproducible where that is asked for.
template <class Acc>
class GradientSumsOnDevice {
 public:
  // addends: of one sum, at most. Undefined values where none are `wanted`.
  GradientSumsOnDevice(bool wanted, at::IntArrayRef sizes, const at::TensorOptions& options,
                       double addends) {
    if (!wanted) return;
    values = at::zeros(sizes, options);
    params.floats = mutable_data<Acc>(values);
    params.addends = addends;
    if (!deterministic()) return;
    whole_ = at::zeros(sizes, options.dtype(at::kLong));
    not_finite_ = at::zeros(sizes, options.dtype(at::kInt));
    largest_ = at::zeros({1}, options);
    params.whole = mutable_data<int64_t>(whole_);
    params.not_finite = mutable_data<int>(not_finite_);
    params.largest = mutable_data<Acc>(largest_);
  }

  // Calls pass(params), twice where sums are reproducible: with only_largest first.
  template <class Pass>
  void run(const Pass& pass) {
    if (whole_.defined()) {
      params.only_largest = true;
      pass(params);
      params.only_largest = false;
    }
    pass(params);
    if (whole_.defined()) {
      launch<gradient_sums_kernel<Acc>>(linear_config(values.numel()), params, values.numel());
    }
  }

  at::Tensor values;
  GradientSums<Acc> params{};

 private:
  at::Tensor whole_, not_finite_, largest_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
