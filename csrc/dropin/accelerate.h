// A drop-in: programs that call torchvision's operators, or PyTorch's attention on the CPU, get
// this library's kernels under the names they call.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// The replacement of kernels in torch's dispatcher, for the whole process, while it lives:
//   torchvision::roi_align, roi_pool, ps_roi_align, ps_roi_pool, deform_conv2d and their backward
//   operators, and nms, on CPU and CUDA, of operators that are registered (torchvision is loaded);
//   aten::_scaled_dot_product_flash_attention_for_cpu and its backward, which
//   scaled_dot_product_attention calls on the CPU.
// Models, TorchScript and compiled programs need no change; autograd and autocast stay those of the
// operators. What this library does not cover goes to the kernel that was there before. Kernels of
// other keys stay as they are. Accelerations may overlap: the one that began last serves, and each
// ends on its own.
class TILEWRIGHT_API Acceleration {
 public:
  Acceleration();
  ~Acceleration();
  Acceleration(const Acceleration&) = delete;
  Acceleration& operator=(const Acceleration&) = delete;

  // "torchvision::nms (CPU)" and so on; empty after undo().
  std::vector<std::string> replaced() const;
  // Gives the kernels that were there before their places back. No operator may be running.
  void undo();

 private:
  struct Overrides;
  std::unique_ptr<Overrides> overrides_;
};

}  // namespace tilewright
