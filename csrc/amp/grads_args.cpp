#include "tilewright/amp/grads_args.h"

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "tilewright/core/check.h"

namespace tilewright {

using at::Tensor;

std::string place_in(const char* list, size_t index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

void check_grads(const char* op, at::TensorList grads, const Tensor& beside) {
  for (size_t i = 0; i < grads.size(); ++i) {
    const Tensor& grad = grads[i];
    TILEWRIGHT_CHECK(op, grad.defined(), place_in("grads", i),
                     " must be a tensor, got None: leave out parameters without a gradient");
    TILEWRIGHT_CHECK(op, grad.layout() == at::kStrided, place_in("grads", i),
                     " must be dense, got layout ", grad.layout(),
                     ": give the values of a coalesced gradient");
    const auto type = grad.scalar_type();
    const bool floating =
        type == at::kFloat || type == at::kHalf || type == at::kBFloat16 || type == at::kDouble;
    TILEWRIGHT_CHECK(op, floating, place_in("grads", i),
                     " must be float64, float32, float16 or bfloat16, got ", type);
    TILEWRIGHT_CHECK(op, grad.device() == beside.device(), place_in("grads", i),
                     " must be on the device of the others (", beside.device(), "), got ",
                     grad.device());
  }
}

void check_number(const char* op, const char* name, const Tensor& tensor, at::ScalarType dtype,
                  const Tensor& beside) {
  check_given(op, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == dtype && tensor.sym_numel() == 1, name,
                   " must be one number of ", dtype, ", got shape ", shape_of(tensor), " of ",
                   tensor.scalar_type());
  TILEWRIGHT_CHECK(op, tensor.device() == beside.device(), name, " must be on the device of ",
                   "found_inf (", beside.device(), "), got ", tensor.device());
}

void check_no_grad(const char* op, const std::string& name, const Tensor& tensor) {
  TILEWRIGHT_CHECK(op, !tensor.defined() || !tensor.requires_grad() || !at::GradMode::is_enabled(),
                   name,
                   " requires grad, but is changed in place without a backward; call it under "
                   "torch.no_grad()");
}

void check_changeable(const char* op, const Tensor& tensor) {
  TILEWRIGHT_CHECK(op,
                   c10::InferenceMode::is_enabled() || !tensor.defined() || !tensor.is_inference(),
                   "tensors made in inference mode can only be changed in inference mode");
}

bool check_apart(const char* op, const char* list, at::TensorList tensors) {
  struct Range {
    const char *begin, *end;
    size_t index;
  };
  std::vector<Range> ranges;
  ranges.reserve(tensors.size());
  bool gaps = false;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    if (tensor.numel() == 0) continue;
    TILEWRIGHT_CHECK(op, at::has_internal_overlap(tensor) != at::MemOverlap::Yes, place_in(list, i),
                     " must have memory of its own for each element, got an expanded tensor: give "
                     "a clone()");
    const auto* begin = static_cast<const char*>(tensor.const_data_ptr());
    // Tensors with gaps may lie within each other's; of them only the same beginning is told.
    const bool dense = tensor.is_non_overlapping_and_dense();
    gaps = gaps || !dense;
    const size_t bytes = dense ? tensor.nbytes() : 1;
    ranges.push_back({begin, begin + bytes, i});
  }
  const auto before = [](const Range& a, const Range& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.index < b.index;
  };
  // As most were allocated one after the other, they often lie so.
  if (!std::is_sorted(ranges.begin(), ranges.end(), before)) {
    std::sort(ranges.begin(), ranges.end(), before);
  }
  for (size_t i = 1; i < ranges.size(); ++i) {
    const auto [first, second] = std::minmax(ranges[i - 1].index, ranges[i].index);
    TILEWRIGHT_CHECK(op, ranges[i].begin >= ranges[i - 1].end, place_in(list, first), " and ",
                     place_in(list, second), " share memory: give each tensor once");
  }
  return gaps;
}

DenseGrads::DenseGrads(const char* op, at::TensorList grads) : given_(grads) {
  if (!check_apart(op, "grads", grads)) return;
  copies_.reserve(grads.size());
  for (const Tensor& grad : grads) copies_.push_back(dense_of(grad));
}

void DenseGrads::copy_back() const {
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!copies_[i].is_same(given_[i])) given_[i].copy_(copies_[i]);
  }
}

}  // namespace tilewright
