// The fronts of tree_histogram and grow_tree: schemas, checks, shapes.
#include "tilewright/trees/grow_tree.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "tilewright/core/operator_handle.h"
#include "tilewright/trees/grow_tree_args.h"

namespace tilewright {
namespace {

std::tuple<at::Tensor, at::Tensor> tree_histogram_meta(const at::Tensor& codes,
                                                       const at::Tensor& gradients,
                                                       const at::Tensor& hessians,
                                                       const std::optional<at::Tensor>& node,
                                                       int64_t num_nodes, int64_t num_codes) {
  check_tree_histogram(codes, gradients, hessians, node, num_nodes, num_codes);
  return {at::empty_symint({num_nodes, codes.sym_size(1), num_codes, 2},
                           codes.options().dtype(at::kLong)),
          at::empty({2}, codes.options().dtype(at::kDouble))};
}

GrowTreeResult grow_tree_meta(const at::Tensor& codes, const at::Tensor& bins,
                              const at::Tensor& gradients, const at::Tensor& hessians,
                              int64_t num_codes, int64_t max_depth, double reg_lambda,
                              double reg_alpha, double gamma, double min_child_weight,
                              double max_delta_step, const std::optional<at::Tensor>& rows,
                              const std::optional<at::Tensor>& columns,
                              const std::optional<at::Tensor>& monotone) {
  const GrowTreeArgs args{codes,
                          bins,
                          gradients,
                          hessians,
                          num_codes,
                          max_depth,
                          {reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step},
                          rows,
                          columns,
                          monotone};
  check_grow_tree(args);
  return empty_grow_tree(args);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> tree_histogram(const at::Tensor& codes,
                                                  const at::Tensor& gradients,
                                                  const at::Tensor& hessians,
                                                  const std::optional<at::Tensor>& node,
                                                  int64_t num_nodes, int64_t num_codes) {
  static const auto op = operator_handle<decltype(tree_histogram)>("tilewright::tree_histogram");
  return op.call(codes, gradients, hessians, node, num_nodes, num_codes);
}

GrowTreeResult grow_tree(const at::Tensor& codes, const at::Tensor& bins,
                         const at::Tensor& gradients, const at::Tensor& hessians, int64_t num_codes,
                         int64_t max_depth, double reg_lambda, double reg_alpha, double gamma,
                         double min_child_weight, double max_delta_step,
                         const std::optional<at::Tensor>& rows,
                         const std::optional<at::Tensor>& columns,
                         const std::optional<at::Tensor>& monotone) {
  static const auto op = operator_handle<decltype(grow_tree)>("tilewright::grow_tree");
  return op.call(codes, bins, gradients, hessians, num_codes, max_depth, reg_lambda, reg_alpha,
                 gamma, min_child_weight, max_delta_step, rows, columns, monotone);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "tree_histogram(Tensor codes, Tensor gradients, Tensor hessians, Tensor? node=None, "
      "int num_nodes=1, int num_codes=256) -> (Tensor sums, Tensor units)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "grow_tree(Tensor codes, Tensor bins, Tensor gradients, Tensor hessians, *, "
      "int num_codes=256, int max_depth=6, float reg_lambda=1.0, float reg_alpha=0.0, "
      "float gamma=0.0, float min_child_weight=1.0, float max_delta_step=0.0, "
      "Tensor? rows=None, Tensor? columns=None, Tensor? monotone=None) -> (Tensor feature, "
      "Tensor code, Tensor default_left, Tensor weight, Tensor gain, Tensor cover, Tensor leaf)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("tree_histogram", &tree_histogram_meta);
  m.impl("grow_tree", &grow_tree_meta);
}

}  // namespace tilewright
