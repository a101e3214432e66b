// Gradients and hessians as growers take them: checked, with what their fixed point is scaled by.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {

// Rows whose gradients a thread looks at together.
inline constexpr int64_t kGradientRows = 65536;

class TreeGradients {
 public:
  // (N,) float32 or float64, contiguous, of one dtype and of `count` rows; an error names the first
  // row whose gradient is not finite, or whose hessian is not or is negative. They must outlive the
  // object.
  TreeGradients(const at::Tensor& gradients, const at::Tensor& hessians, int64_t count);
  // The scales by which the greatest fill so many bits.
  TreeWordsParams scaled(int gradient_bits, int hessian_bits) const;

 private:
  TreeWordsParams params_{};
  TreeExtremes most_{0, 0, -1};
};

}  // namespace tilewright
