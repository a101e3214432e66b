// SHAP values on the CPU: packs the trees and shares the rows.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "tilewright/core/math.h"
#include "tilewright/trees/tree_shap_args.h"
#include "tilewright/trees/tree_shap_pack.h"

namespace tilewright {
namespace {

// Edges times points that a thread should have.
constexpr int64_t kGrain = 1 << 15;

ShapParams params_of(const at::Tensor& x, int64_t outputs, const ShapPacker& packer,
                     const at::Tensor& out) {
  ShapParams params{};
  params.x = x.const_data_ptr();
  params.dtype = x.scalar_type();
  params.rows = x.size(0);
  params.row = x.stride(0);
  params.column = x.stride(1);
  params.features = x.size(1);
  params.outputs = outputs;
  params.out = out.mutable_data_ptr<float>();
  packer.fill(params);
  return params;
}

template <class Kernel>
void share_rows(const ShapParams& params, int64_t steps_per_row, Kernel kernel) {
  const int64_t grain = ceil_div(kGrain, steps_per_row * kShapRows + 1);
  at::parallel_for(0, ceil_div(params.rows, kShapRows), grain, [&](int64_t begin, int64_t end) {
    kernel(params, begin * kShapRows, std::min(end * kShapRows, params.rows));
  });
}

at::Tensor tree_shap_cpu(const at::Tensor& x, const at::Tensor& feature,
                         const at::Tensor& threshold, const at::Tensor& left,
                         const at::Tensor& right, const at::Tensor& default_left,
                         const at::Tensor& value, const at::Tensor& cover,
                         const at::Tensor& tree_ptr, const at::Tensor& tree_output,
                         int64_t num_outputs, const std::optional<at::Tensor>& category_ptr,
                         const std::optional<at::Tensor>& categories) {
  const TreeArrays arrays{feature,  threshold,   left,        right,        default_left, value,
                          tree_ptr, tree_output, num_outputs, category_ptr, categories};
  check_tree_shap("tree_shap", x, arrays, cover);
  const ShapPacker packer("tree_shap", arrays, cover, x.size(1));
  const at::Tensor out =
      at::zeros({x.size(0), num_outputs, x.size(1) + 1}, x.options().dtype(at::kFloat));
  share_rows(
      params_of(x, num_outputs, packer, out), packer.steps_per_row(),
      [](const ShapParams& p, int64_t begin, int64_t end) { tree_shap_rows(p, begin, end); });
  return out;
}

at::Tensor tree_shap_interactions_cpu(const at::Tensor& x, const at::Tensor& feature,
                                      const at::Tensor& threshold, const at::Tensor& left,
                                      const at::Tensor& right, const at::Tensor& default_left,
                                      const at::Tensor& value, const at::Tensor& cover,
                                      const at::Tensor& tree_ptr, const at::Tensor& tree_output,
                                      int64_t num_outputs,
                                      const std::optional<at::Tensor>& category_ptr,
                                      const std::optional<at::Tensor>& categories) {
  constexpr const char* kOp = "tree_shap_interactions";
  const TreeArrays arrays{feature,  threshold,   left,        right,        default_left, value,
                          tree_ptr, tree_output, num_outputs, category_ptr, categories};
  check_tree_shap(kOp, x, arrays, cover);
  const ShapPacker packer(kOp, arrays, cover, x.size(1));
  const int64_t side = x.size(1) + 1;
  const at::Tensor out =
      at::zeros({x.size(0), num_outputs, side, side}, x.options().dtype(at::kFloat));
  const ShapParams params = params_of(x, num_outputs, packer, out);
  share_rows(
      params, packer.steps_per_row() * (1 + params.used_count),
      [](const ShapParams& p, int64_t begin, int64_t end) { tree_shap_pair_rows(p, begin, end); });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("tree_shap", &tree_shap_cpu);
  m.impl("tree_shap_interactions", &tree_shap_interactions_cpu);
}

}  // namespace tilewright
