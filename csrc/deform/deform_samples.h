// Bilinear samples composed of ATen's operators: what the compositions of the room are made of.
#pragma once
#include <ATen/core/Tensor.h>

namespace tilewright {

// What deform_sample (deform_math.h) says, for tensors. planes: (N, groups, channels, H * W); y, x:
// (N, groups, ...), where samples lie. Returns (N, groups, channels, samples).
at::Tensor bilinear_samples(const at::Tensor& planes, int64_t height, int64_t width,
                            const at::Tensor& y, const at::Tensor& x);

}  // namespace tilewright
