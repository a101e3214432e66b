// The layout of a model's weights, which its feature maps follow.
#pragma once
#include <c10/core/MemoryFormat.h>
#include <torch/nn/module.h>

#include "tilewright/core/export.h"

namespace tilewright {

// Lays out every four-dimensional parameter and buffer as `format`, as torch.nn.Module.to does with
// memory_format. With at::MemoryFormat::ChannelsLast convolutions, pooling and RoIAlign keep their
// maps channels last too, which is faster on the CPU; images may stay as they are.
TILEWRIGHT_API void set_memory_format(torch::nn::Module& module, at::MemoryFormat format);

}  // namespace tilewright
