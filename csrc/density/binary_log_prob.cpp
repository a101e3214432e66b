// log p of binary vectors under independent pixels of given logits: what MADE, FVSBN and the
// baselines end with, and where they find pixels that are not binary.
#include "tilewright/density/binary_log_prob.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/density/nade_args.h"

namespace tilewright {
namespace {

at::Tensor binary_log_prob_composed(const at::Tensor& logits, const at::Tensor& x) {
  const char* op = "binary_log_prob";
  check_floating(op, "logits", logits);
  check_given(op, "x", x);
  TILEWRIGHT_CHECK(op, x.dim() >= 1 && logits.sym_sizes().equals(x.sym_sizes()),
                   "logits and x must have one shape (..., D), got ", shape_of(logits), " and ",
                   shape_of(x));
  check_same_device(op, "logits", logits, "x", x);
  if (has_data_at_hand(x)) check_binary(op, "x", x);
  const auto type = nade_sums_type(logits.scalar_type());
  return at::binary_cross_entropy_with_logits(logits.to(type), x.to(type), {}, {},
                                              at::Reduction::None)
      .sum(-1)
      .neg();
}

}  // namespace

at::Tensor binary_log_prob(const at::Tensor& logits, const at::Tensor& x) {
  static const auto op = operator_handle<decltype(binary_log_prob)>("tilewright::binary_log_prob");
  return op.call(logits, x);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("binary_log_prob(Tensor logits, Tensor x) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("binary_log_prob", &binary_log_prob_composed);
}

}  // namespace tilewright
