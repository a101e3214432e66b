#include "tilewright/trees/predict_args.h"

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

void check_array(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type,
                 const at::Tensor& x) {
  check_given(op, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == type, name, " must be ", type, ", got ",
                   tensor.scalar_type());
  check_same_device(op, "x", x, name, tensor);
}

}  // namespace

void check_predict_trees(const at::Tensor& x, const TreeArrays& a, const char* op) {
  check_floating(op, "x", x);
  check_shape(op, "x", x, "(N, F)", 2);
  const std::pair<const char*, const at::Tensor*> per_node[] = {
      {"feature", &a.feature}, {"threshold", &a.threshold},       {"left", &a.left},
      {"right", &a.right},     {"default_left", &a.default_left},
  };
  check_array(op, "feature", a.feature, at::kInt, x);
  check_array(op, "threshold", a.threshold, at::kFloat, x);
  check_array(op, "left", a.left, at::kInt, x);
  check_array(op, "right", a.right, at::kInt, x);
  check_array(op, "default_left", a.default_left, at::kBool, x);
  check_array(op, "value", a.value, at::kFloat, x);
  check_array(op, "tree_ptr", a.tree_ptr, at::kLong, x);
  check_array(op, "tree_output", a.tree_output, at::kInt, x);
  check_shape(op, "feature", a.feature, "(M,)", 1);
  const auto nodes = a.feature.sym_size(0);
  for (const auto& [name, tensor] : per_node) {
    TILEWRIGHT_CHECK(op, tensor->dim() == 1 && tensor->sym_size(0) == nodes, name,
                     " must have shape (", nodes, ",) as feature has, got ", shape_of(*tensor));
  }
  TILEWRIGHT_CHECK(op, a.num_outputs >= 1, "num_outputs must be positive, got ", a.num_outputs);
  const bool scalar = a.value.dim() == 1;
  TILEWRIGHT_CHECK(op,
                   a.value.dim() >= 1 && a.value.dim() <= 2 && a.value.sym_size(0) == nodes &&
                       (scalar || a.value.sym_size(1) == a.num_outputs),
                   "value must have shape (", nodes, ",) or (", nodes, ", ", a.num_outputs,
                   "), got ", shape_of(a.value));
  check_shape(op, "tree_output", a.tree_output, "(T,)", 1);
  TILEWRIGHT_CHECK(op,
                   a.tree_ptr.dim() == 1 && a.tree_ptr.sym_size(0) == a.tree_output.sym_size(0) + 1,
                   "tree_ptr must have shape (", a.tree_output.sym_size(0) + 1,
                   ",), one more than tree_output, got ", shape_of(a.tree_ptr));
  TILEWRIGHT_CHECK(op, a.category_ptr.has_value() == a.categories.has_value(),
                   "category_ptr and categories must be given together");
  if (!a.category_ptr.has_value()) return;
  check_array(op, "category_ptr", *a.category_ptr, at::kLong, x);
  check_array(op, "categories", *a.categories, at::kInt, x);
  check_shape(op, "categories", *a.categories, "(C,)", 1);
  TILEWRIGHT_CHECK(op, a.category_ptr->dim() == 1 && a.category_ptr->sym_size(0) == nodes + 1,
                   "category_ptr must have shape (", nodes + 1, ",), got ",
                   shape_of(*a.category_ptr));
}

}  // namespace tilewright
