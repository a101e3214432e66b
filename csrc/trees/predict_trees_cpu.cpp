// predict_trees on the CPU.
#include <torch/library.h>

#include "tilewright/trees/packed_trees.h"

namespace tilewright {
namespace {

at::Tensor predict_trees_cpu(const at::Tensor& x, const at::Tensor& feature,
                             const at::Tensor& threshold, const at::Tensor& left,
                             const at::Tensor& right, const at::Tensor& default_left,
                             const at::Tensor& value, const at::Tensor& tree_ptr,
                             const at::Tensor& tree_output, int64_t num_outputs,
                             const std::optional<at::Tensor>& category_ptr,
                             const std::optional<at::Tensor>& categories) {
  const TreeArrays arrays{feature,  threshold,   left,        right,        default_left, value,
                          tree_ptr, tree_output, num_outputs, category_ptr, categories};
  check_predict_trees(x, arrays);
  return PackedTrees(arrays, x.size(1)).predict(x);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("predict_trees", &predict_trees_cpu); }

}  // namespace tilewright
