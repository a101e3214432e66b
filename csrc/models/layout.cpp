// Relayout of weights in place.
#include "tilewright/models/layout.h"

namespace tilewright {

void set_memory_format(torch::nn::Module& module, at::MemoryFormat format) {
  constexpr int64_t kDimensions = 4;  // of convolution weights
  const auto lay_out = [format](torch::Tensor tensor) {
    if (tensor.dim() == kDimensions) tensor.set_data(tensor.detach().contiguous(format));
  };
  for (const auto& parameter : module.parameters()) lay_out(parameter);
  for (const auto& buffer : module.buffers()) lay_out(buffer);
}

}  // namespace tilewright
