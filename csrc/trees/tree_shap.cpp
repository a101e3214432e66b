// The fronts of tree_shap and tree_shap_interactions: schemas, checks, shapes.
#include "tilewright/trees/tree_shap.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/trees/tree_shap_args.h"

namespace tilewright {

void check_tree_shap(const char* op, const at::Tensor& x, const TreeArrays& arrays,
                     const at::Tensor& cover) {
  check_predict_trees(x, arrays, op);
  check_given(op, "cover", cover);
  TILEWRIGHT_CHECK(op, cover.scalar_type() == at::kFloat, "cover must be Float, got ",
                   cover.scalar_type());
  check_same_device(op, "x", x, "cover", cover);
  TILEWRIGHT_CHECK(op, cover.dim() == 1 && cover.sym_size(0) == arrays.feature.sym_size(0),
                   "cover must have shape (", arrays.feature.sym_size(0), ",) as feature has, got ",
                   shape_of(cover));
}

namespace {

template <bool kPairs>
at::Tensor tree_shap_meta(const at::Tensor& x, const at::Tensor& feature,
                          const at::Tensor& threshold, const at::Tensor& left,
                          const at::Tensor& right, const at::Tensor& default_left,
                          const at::Tensor& value, const at::Tensor& cover,
                          const at::Tensor& tree_ptr, const at::Tensor& tree_output,
                          int64_t num_outputs, const std::optional<at::Tensor>& category_ptr,
                          const std::optional<at::Tensor>& categories) {
  check_tree_shap(kPairs ? "tree_shap_interactions" : "tree_shap", x,
                  {feature, threshold, left, right, default_left, value, tree_ptr, tree_output,
                   num_outputs, category_ptr, categories},
                  cover);
  const auto side = x.sym_size(1) + 1;
  std::vector<c10::SymInt> shape{x.sym_size(0), num_outputs, side};
  if (kPairs) shape.push_back(side);
  return at::empty_symint(shape, x.options().dtype(at::kFloat));
}

}  // namespace

at::Tensor tree_shap(const at::Tensor& x, const at::Tensor& feature, const at::Tensor& threshold,
                     const at::Tensor& left, const at::Tensor& right,
                     const at::Tensor& default_left, const at::Tensor& value,
                     const at::Tensor& cover, const at::Tensor& tree_ptr,
                     const at::Tensor& tree_output, int64_t num_outputs,
                     const std::optional<at::Tensor>& category_ptr,
                     const std::optional<at::Tensor>& categories) {
  static const auto op = operator_handle<decltype(tree_shap)>("tilewright::tree_shap");
  return op.call(x, feature, threshold, left, right, default_left, value, cover, tree_ptr,
                 tree_output, num_outputs, category_ptr, categories);
}

at::Tensor tree_shap_interactions(const at::Tensor& x, const at::Tensor& feature,
                                  const at::Tensor& threshold, const at::Tensor& left,
                                  const at::Tensor& right, const at::Tensor& default_left,
                                  const at::Tensor& value, const at::Tensor& cover,
                                  const at::Tensor& tree_ptr, const at::Tensor& tree_output,
                                  int64_t num_outputs,
                                  const std::optional<at::Tensor>& category_ptr,
                                  const std::optional<at::Tensor>& categories) {
  static const auto op =
      operator_handle<decltype(tree_shap_interactions)>("tilewright::tree_shap_interactions");
  return op.call(x, feature, threshold, left, right, default_left, value, cover, tree_ptr,
                 tree_output, num_outputs, category_ptr, categories);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  for (const std::string name : {"tree_shap", "tree_shap_interactions"}) {
    const std::string schema =
        name +
        "(Tensor x, Tensor feature, Tensor threshold, Tensor left, Tensor right, "
        "Tensor default_left, Tensor value, Tensor cover, Tensor tree_ptr, Tensor tree_output, "
        "int num_outputs, Tensor? category_ptr=None, Tensor? categories=None) -> Tensor";
    m.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  }
}

TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("tree_shap", &tree_shap_meta<false>);
  m.impl("tree_shap_interactions", &tree_shap_meta<true>);
}

}  // namespace tilewright
