// Prediction on CUDA: the caller's arrays go to the kernel as they are, which keeps within them
// whatever they say.
#include <ATen/ops/empty.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/trees/predict_args.h"
#include "tilewright/trees/predict_kernel.cuh"

namespace tilewright {
namespace {

at::Tensor predict_trees_cuda(const at::Tensor& x, const at::Tensor& feature,
                              const at::Tensor& threshold, const at::Tensor& left,
                              const at::Tensor& right, const at::Tensor& default_left,
                              const at::Tensor& value, const at::Tensor& tree_ptr,
                              const at::Tensor& tree_output, int64_t num_outputs,
                              const std::optional<at::Tensor>& category_ptr,
                              const std::optional<at::Tensor>& categories) {
  check_predict_trees(x, {feature, threshold, left, right, default_left, value, tree_ptr,
                          tree_output, num_outputs, category_ptr, categories});
  const DeviceGuard guard(x);
  const at::Tensor out = at::empty({x.size(0), num_outputs}, x.options().dtype(at::kFloat));
  const at::Tensor features = feature.contiguous(), thresholds = threshold.contiguous(),
                   lefts = left.contiguous(), rights = right.contiguous(),
                   defaults = default_left.contiguous(), values = value.contiguous(),
                   pointers = tree_ptr.contiguous(), outputs = tree_output.contiguous();
  at::Tensor ranges, all_categories;
  if (category_ptr.has_value()) {
    ranges = category_ptr->contiguous();
    all_categories = categories->contiguous();
  }
  dispatch_floating("predict_trees", x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    PredictTreesParams<device_t<T>> params{};
    params.x = const_data<T>(x);
    params.row = x.stride(0);
    params.column = x.stride(1);
    params.rows = x.size(0);
    params.features = x.size(1);
    params.feature = const_data<int32_t>(features);
    params.left = const_data<int32_t>(lefts);
    params.right = const_data<int32_t>(rights);
    params.threshold = const_data<float>(thresholds);
    params.default_left = const_data<bool>(defaults);
    params.value = const_data<float>(values);
    params.nodes = feature.size(0);
    params.vectors = value.dim() == 2;
    params.values = params.vectors ? num_outputs : 1;
    params.tree_ptr = const_data<int64_t>(pointers);
    params.tree_output = const_data<int32_t>(outputs);
    params.trees = tree_output.size(0);
    if (ranges.defined()) {
      params.category_ptr = const_data<int64_t>(ranges);
      params.categories = const_data<int32_t>(all_categories);
      params.category_count = all_categories.size(0);
    }
    params.out = mutable_data<float>(out);
    params.outputs = num_outputs;
    launch<predict_trees_kernel<device_t<T>>>(linear_config(params.rows, kPredictThreads), params);
  });
  return out;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("predict_trees", &predict_trees_cuda); }

}  // namespace tilewright
