// Serves models that exist with this library's kernels, under the operators that they call already.
#pragma once
#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

class Override;

// While one stands, calls of these operators of torchvision and torch, by whoever and from Python,
// C++, TorchScript or a compiled graph, run this library's kernels in the whole process:
//   torchvision::roi_align, roi_pool, ps_roi_align, ps_roi_pool, nms, deform_conv2d, and their
//     backward operators, on the CPU, and on CUDA where this library was built for it;
//   aten::_scaled_dot_product_flash_attention_for_cpu and its backward, which
//     scaled_dot_product_attention calls on the CPU.
// Results are laid out as the original's are. What this library does not cover (attention with
// dropout or heads of more than 256, more than 1024 samples of a bin, a threshold outside [0, 1])
// goes to the kernel that was there before.
//
// Undone and made again at any time; only the first one of an operator is not to be made while
// another thread calls it. Once undone, calls go through to the original.
class TILEWRIGHT_API Acceleration {
 public:
  // operators: which of the above, by name; empty: all that the process knows at this moment. An
  // error where one is not among them or is not registered, as before torchvision is loaded.
  // devices: of "cpu" and "cuda"; empty: both. An error where nothing is to be replaced there.
  explicit Acceleration(const std::vector<std::string>& operators = {},
                        const std::vector<std::string>& devices = {});
  // The last one that stands for an operator brings the original back.
  ~Acceleration() { undo(); }
  Acceleration(const Acceleration&) = delete;
  void undo();

  // "torchvision::nms on cpu", in the order above; empty once undone.
  std::vector<std::string> replaced() const;

 private:
  std::vector<Override*> overrides_;
};

}  // namespace tilewright
