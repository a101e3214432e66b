// log p of binary vectors under independent pixels of given logits: what MADE, FVSBN and the
// baselines end with, and where they find pixels that are not binary.
#include "tilewright/density/binary_log_prob.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>

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
  return at::log_sigmoid(logits.to(type) * (2 * x.to(type) - 1)).sum(-1);
}

// Returns what it was given, so that compilers which drop operators without results keep it.
at::Tensor checked_binary(const at::Tensor& pixels, c10::string_view op, c10::string_view name) {
  if (has_data_at_hand(pixels)) {
    check_binary(std::string(op).c_str(), std::string(name).c_str(), pixels);
  }
  return pixels;
}

}  // namespace

at::Tensor binary_log_prob(const at::Tensor& logits, const at::Tensor& x) {
  static const auto op = operator_handle<decltype(binary_log_prob)>("tilewright::binary_log_prob");
  return op.call(logits, x);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("_checked_binary(Tensor(a) pixels, str op, str name) -> Tensor(a)");
  m.def("binary_log_prob(Tensor logits, Tensor x) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("_checked_binary", &checked_binary);
  m.impl("binary_log_prob", &binary_log_prob_composed);
}

}  // namespace tilewright
