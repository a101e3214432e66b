#include "tilewright/trees/tree_gradients.h"

#include <algorithm>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {

TreeGradients::TreeGradients(const at::Tensor& gradients, const at::Tensor& hessians,
                             int64_t count) {
  constexpr const char* kOp = "grow_tree";
  TILEWRIGHT_CHECK(kOp,
                   gradients.scalar_type() == hessians.scalar_type() && gradients.is_contiguous() &&
                       hessians.is_contiguous() && gradients.numel() == count &&
                       hessians.numel() == count,
                   "gradients and hessians must be contiguous, of one dtype and of ", count,
                   " rows, got ", gradients.scalar_type(), " ", shape_of(gradients), " and ",
                   hessians.scalar_type(), " ", shape_of(hessians));
  params_.gradients = gradients.const_data_ptr();
  params_.hessians = hessians.const_data_ptr();
  params_.is_double = gradients.scalar_type() == at::kDouble;
  std::vector<TreeExtremes> extremes(size_t(ceil_div(count, kGradientRows)), {0, 0, -1});
  run_tree_tasks(int64_t(extremes.size()), [&](int64_t c, int64_t) {
    extremes[size_t(c)] =
        tree_extremes(params_, c * kGradientRows, std::min((c + 1) * kGradientRows, count));
  });
  for (const TreeExtremes& part : extremes) {
    TILEWRIGHT_CHECK(kOp, part.bad < 0, "gradients must be finite and hessians finite and not ",
                     "negative; those of row ", part.bad, " are not");
    most_.gradient = std::max(most_.gradient, part.gradient);
    most_.hessian = std::max(most_.hessian, part.hessian);
  }
}

TreeWordsParams TreeGradients::scaled(int gradient_bits, int hessian_bits) const {
  TreeWordsParams params = params_;
  params.gradient_scale = tree_scale(most_.gradient, gradient_bits);
  params.hessian_scale = tree_scale(most_.hessian, hessian_bits);
  return params;
}

}  // namespace tilewright
