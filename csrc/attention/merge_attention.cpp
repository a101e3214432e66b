// The attention over two disjoint sets of keys from the attentions over each: what ring attention
// and split keys are composed of.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "tilewright/attention/attention_args.h"
#include "tilewright/attention/flash_attention.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "merge_attention";

void check_part(const char* out_name, const at::Tensor& out, const char* lse_name,
                const at::Tensor& lse) {
  check_floating(kOp, out_name, out);
  TILEWRIGHT_CHECK(kOp, out.dim() >= 2, out_name, " must have shape (..., S, Dv), got ",
                   shape_of(out));
  check_given(kOp, lse_name, lse);
  const auto rows = out.sym_sizes().slice(0, out.dim() - 1);
  TILEWRIGHT_CHECK(kOp, lse.sym_sizes() == rows, lse_name, " must have the shape of ", out_name,
                   " without its last dimension, ", shape_of(rows), ", got ", shape_of(lse));
  TILEWRIGHT_CHECK(kOp, lse.scalar_type() == at::kFloat || lse.scalar_type() == at::kDouble,
                   lse_name, " must be float32 or float64, got ", lse.scalar_type());
  check_same_device(kOp, out_name, out, lse_name, lse);
}

TensorPair merge_composite(const at::Tensor& out_a, const at::Tensor& lse_a,
                           const at::Tensor& out_b, const at::Tensor& lse_b) {
  check_part("out_a", out_a, "lse_a", lse_a);
  check_part("out_b", out_b, "lse_b", lse_b);
  TILEWRIGHT_CHECK(kOp, out_b.sym_sizes() == out_a.sym_sizes(),
                   "out_b must have the shape of out_a, ", shape_of(out_a), ", got ",
                   shape_of(out_b));
  check_same_device(kOp, "out_a", out_a, "out_b", out_b);

  // The maximum only scales: a constant to autograd. Rows that saw no key weigh 0, and where both
  // did not, nothing is divided by 0.
  const at::Tensor top = at::maximum(lse_a, lse_b).detach();
  const at::Tensor max = at::where(top == -HUGE_VAL, 0, top);
  const at::Tensor weight_a = at::exp(lse_a - max), weight_b = at::exp(lse_b - max);
  const at::Tensor sum = weight_a + weight_b, alive = sum.detach() != 0;
  const at::Tensor divisor = at::where(alive, sum, 1);
  const at::Tensor out =
      (weight_a / divisor).unsqueeze(-1) * out_a + (weight_b / divisor).unsqueeze(-1) * out_b;
  return {out.to(at::promote_types(out_a.scalar_type(), out_b.scalar_type())),
          at::where(alive, max + at::log(divisor), -HUGE_VAL)};
}

}  // namespace

TensorPair merge_attention(const at::Tensor& out_a, const at::Tensor& lse_a,
                           const at::Tensor& out_b, const at::Tensor& lse_b) {
  static const auto op = operator_handle<decltype(merge_attention)>("tilewright::merge_attention");
  return op.call(out_a, lse_a, out_b, lse_b);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "merge_attention(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) -> (Tensor out, "
      "Tensor lse)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("merge_attention", &merge_composite);
}

}  // namespace tilewright
