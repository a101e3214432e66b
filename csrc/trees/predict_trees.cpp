// The front of predict_trees: schema, checks, shape.
#include "tilewright/trees/predict_trees.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "tilewright/core/operator_handle.h"
#include "tilewright/trees/predict_args.h"

namespace tilewright {
namespace {

at::Tensor predict_trees_meta(const at::Tensor& x, const at::Tensor& feature,
                              const at::Tensor& threshold, const at::Tensor& left,
                              const at::Tensor& right, const at::Tensor& default_left,
                              const at::Tensor& value, const at::Tensor& tree_ptr,
                              const at::Tensor& tree_output, int64_t num_outputs,
                              const std::optional<at::Tensor>& category_ptr,
                              const std::optional<at::Tensor>& categories) {
  check_predict_trees(x, {feature, threshold, left, right, default_left, value, tree_ptr,
                          tree_output, num_outputs, category_ptr, categories});
  return at::empty_symint({x.sym_size(0), num_outputs}, x.options().dtype(at::kFloat));
}

}  // namespace

at::Tensor predict_trees(const at::Tensor& x, const at::Tensor& feature,
                         const at::Tensor& threshold, const at::Tensor& left,
                         const at::Tensor& right, const at::Tensor& default_left,
                         const at::Tensor& value, const at::Tensor& tree_ptr,
                         const at::Tensor& tree_output, int64_t num_outputs,
                         const std::optional<at::Tensor>& category_ptr,
                         const std::optional<at::Tensor>& categories) {
  static const auto op = operator_handle<decltype(predict_trees)>("tilewright::predict_trees");
  return op.call(x, feature, threshold, left, right, default_left, value, tree_ptr, tree_output,
                 num_outputs, category_ptr, categories);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "predict_trees(Tensor x, Tensor feature, Tensor threshold, Tensor left, Tensor right, "
      "Tensor default_left, Tensor value, Tensor tree_ptr, Tensor tree_output, int num_outputs, "
      "Tensor? category_ptr=None, Tensor? categories=None) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("predict_trees", &predict_trees_meta); }

}  // namespace tilewright
