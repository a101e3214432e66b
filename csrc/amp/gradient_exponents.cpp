// gradient_exponents: schema, checks, Meta; and the CPU's split into pieces.
#include "tilewright/amp/gradient_exponents.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <mutex>

#include "tilewright/amp/gradient_exponents_args.h"
#include "tilewright/amp/gradient_exponents_cpu.h"
#include "tilewright/amp/gradient_exponents_math.h"
#include "tilewright/amp/grads_args.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;
constexpr const char* kExponentsName = "gradient_exponents";
constexpr int64_t kExponentsGrain = 1 << 15;  // elements that a thread should have

Tensor exponents_meta(at::TensorList grads) {
  check_exponents(grads);
  return at::empty({kExponents}, grads[0].options().dtype(at::kLong));
}

Tensor exponents_cpu(at::TensorList grads) {
  check_exponents(grads);
  const Tensor counts = at::zeros({kExponents}, grads[0].options().dtype(at::kLong));
  auto* total = counts.mutable_data_ptr<int64_t>();
  std::mutex mutex;
  for (const Tensor& given : grads) {
    const Tensor grad = dense_of(given);
    at::parallel_for(0, grad.numel(), kExponentsGrain, [&](int64_t begin, int64_t end) {
      int64_t own[kExponents] = {};
      count_exponents(static_cast<const char*>(grad.const_data_ptr()) + begin * grad.element_size(),
                      grad.scalar_type(), end - begin, own);
      const std::lock_guard<std::mutex> lock(mutex);
      for (int i = 0; i < kExponents; ++i) total[i] += own[i];
    });
  }
  return counts;
}

// Of no tensor, of sparse ones, and where this build has no kernel.
Tensor exponents_of_none(at::TensorList grads) {
  check_exponents(grads);
  TILEWRIGHT_CHECK(kExponentsName, false, "this build has no kernel for ", grads[0].device());
}

// Counts have no gradient.
Tensor exponents_autograd(at::TensorList grads) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return gradient_exponents(grads);
}

}  // namespace

void check_exponents(at::TensorList grads) {
  TILEWRIGHT_CHECK(kExponentsName, !grads.empty(), "grads must hold at least one tensor");
  check_given(kExponentsName, "grads[0]", grads[0]);
  check_grads(kExponentsName, grads, grads[0]);
}

Tensor gradient_exponents(at::TensorList grads) {
  static const auto op =
      operator_handle<decltype(gradient_exponents)>("tilewright::gradient_exponents");
  return op.call(grads);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("gradient_exponents(Tensor[] grads) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) { m.impl("gradient_exponents", &exponents_autograd); }
TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("gradient_exponents", &exponents_meta); }
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("gradient_exponents", &exponents_cpu); }
TORCH_LIBRARY_IMPL(tilewright, CompositeExplicitAutograd, m) {
  m.impl("gradient_exponents", &exponents_of_none);
}

}  // namespace tilewright
