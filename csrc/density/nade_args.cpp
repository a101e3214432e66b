// Checks and allocations of nade: what does not depend on the device.
#include "tilewright/density/nade_args.h"

#include <ATen/ATen.h>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using at::Tensor;

// Of the dtype and device of `like`.
void check_beside(const char* op, const char* like_name, const Tensor& like, const char* name,
                  const Tensor& tensor) {
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == like.scalar_type(), name, " must have ", like_name,
                   "'s dtype (", like.scalar_type(), "), got ", tensor.scalar_type());
  check_same_device(op, like_name, like, name, tensor);
}

void check_vector(const char* op, const char* name, const Tensor& tensor, const char* size_name,
                  const c10::SymInt& size) {
  check_given(op, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.dim() == 1 && tensor.sym_size(0) == size, name, " must have shape (",
                   size_name, ",) = (", size, ",), got ", shape_of(tensor));
}

void check_weights(const char* op, const NadeWeights& w) {
  check_floating(op, "weight_in", w.weight_in);
  check_shape(op, "weight_in", w.weight_in, "(H, D)", 2);
  const auto hidden = w.weight_in.sym_size(0), pixels = w.weight_in.sym_size(1);
  TILEWRIGHT_CHECK(op, hidden > 0 && pixels > 0,
                   "weight_in must have hidden units and pixels, got ", shape_of(w.weight_in));
  check_vector(op, "bias_in", w.bias_in, "H", hidden);
  check_given(op, "weight_out", w.weight_out);
  TILEWRIGHT_CHECK(op,
                   w.weight_out.dim() == 2 && w.weight_out.sym_size(0) == pixels &&
                       w.weight_out.sym_size(1) == hidden,
                   "weight_out must have shape (D, H) = (", pixels, ", ", hidden, "), got ",
                   shape_of(w.weight_out));
  check_vector(op, "bias_out", w.bias_out, "D", pixels);
  check_beside(op, "weight_in", w.weight_in, "bias_in", w.bias_in);
  check_beside(op, "weight_in", w.weight_in, "weight_out", w.weight_out);
  check_beside(op, "weight_in", w.weight_in, "bias_out", w.bias_out);
}

}  // namespace

void check_nade(const char* op, const Tensor& x, const NadeWeights& weights) {
  check_given(op, "x", x);
  check_shape(op, "x", x, "(N, D)", 2);
  check_weights(op, weights);
  TILEWRIGHT_CHECK(op, x.sym_size(1) == weights.weight_in.sym_size(1), "x must have shape (N, ",
                   weights.weight_in.sym_size(1), "), as weight_in has pixels, got ", shape_of(x));
  check_beside(op, "weight_in", weights.weight_in, "x", x);
}

void check_nade_backward(const char* op, const Tensor& grad, const Tensor& x,
                         const NadeWeights& weights, const Tensor& logits) {
  check_nade(op, x, weights);
  check_vector(op, "grad", grad, "N", x.sym_size(0));
  check_given(op, "logits", logits);
  TILEWRIGHT_CHECK(op, logits.sym_sizes().equals(x.sym_sizes()), "logits must have x's shape, ",
                   shape_of(x), ", got ", shape_of(logits));
  const auto type = nade_sums_type(x.scalar_type());
  TILEWRIGHT_CHECK(op, grad.scalar_type() == type && logits.scalar_type() == type,
                   "grad and logits must be ", type, ", got ", grad.scalar_type(), " and ",
                   logits.scalar_type());
  check_same_device(op, "x", x, "grad", grad);
  check_same_device(op, "x", x, "logits", logits);
}

void check_nade_sample(int64_t n, const NadeWeights& weights, const std::optional<Tensor>& given) {
  const char* op = "nade_sample";
  TILEWRIGHT_CHECK(op, n >= 0, "n must not be negative, got ", n);
  check_weights(op, weights);
  if (!given) return;
  check_given(op, "given", *given);
  const auto pixels = weights.weight_in.sym_size(1);
  TILEWRIGHT_CHECK(op, given->dim() == 2 && given->sym_size(0) == n && given->sym_size(1) <= pixels,
                   "given must have shape (n, d) = (", n, ", at most ", pixels, "), got ",
                   shape_of(*given));
  check_beside(op, "weight_in", weights.weight_in, "given", *given);
}

void check_binary(const char* op, const char* name, const Tensor& pixels) {
  const Tensor wrong = pixels.ne(0).logical_and_(pixels.ne(1));
  if (!wrong.any().item<bool>()) return;
  const Tensor at = wrong.nonzero()[0];
  std::ostringstream place;
  Tensor value = pixels;
  for (int64_t i = 0; i < at.size(0); ++i) {
    const int64_t index = at[i].item<int64_t>();
    place << (i ? ", " : "") << index;
    value = value.select(0, index);
  }
  TILEWRIGHT_CHECK(op, false, "pixels must be 0 or 1, got ", value.item<double>(), " in ", name,
                   "[", place.str(), "]");
}

at::ScalarType nade_sums_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

NadeOutput nade_output(const Tensor& x) {
  const auto options = x.options()
                           .dtype(nade_sums_type(x.scalar_type()))
                           .memory_format(at::MemoryFormat::Contiguous);
  return {at::empty_symint({x.sym_size(0)}, options), at::empty_symint(x.sym_sizes(), options)};
}

NadeGrads nade_grads(const NadeWeights& w) {
  const auto like = [](const Tensor& tensor) {
    return at::empty_like(tensor, at::MemoryFormat::Contiguous);
  };
  return {like(w.weight_in), like(w.bias_in), like(w.weight_out), like(w.bias_out)};
}

Tensor nade_steps(const Tensor& grad, const Tensor& x, const Tensor& logits, int64_t rows) {
  const int64_t n = x.size(0), pixels = x.size(1), groups = (n + rows - 1) / rows;
  const Tensor steps = at::empty({groups, pixels, 2, rows}, logits.options());
  const Tensor turned = steps.permute({2, 0, 3, 1});  // (2, groups, rows, D)
  const Tensor pixel_grad = (x - logits.sigmoid()).mul_(grad.unsqueeze(1));
  const int64_t whole = n / rows;
  const auto fill = [&](int64_t which, const Tensor& from) {
    const Tensor to = turned[which];
    to.narrow(0, 0, whole).copy_(from.narrow(0, 0, whole * rows).view({whole, rows, pixels}));
    if (whole == groups) return;
    const Tensor last = to[whole], left = from.narrow(0, whole * rows, n - whole * rows);
    last.zero_();
    last.narrow(0, 0, left.size(0)).copy_(left);
  };
  fill(0, pixel_grad);
  fill(1, x.contiguous());
  return steps;
}

}  // namespace tilewright
