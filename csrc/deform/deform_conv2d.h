// Deformable convolution for C++ users: a convolution whose every tap reads the map where a learnt
// offset moves it (Deformable ConvNets, arXiv:1703.06211), and with a mask weighs what it read
// (version 2, arXiv:1811.11168).
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// input:   (N, C, H, W), float64, float32, float16 or bfloat16; contiguous or channels last (the
//          result has the same layout; any other layout is copied).
// weight:  (C_out, C / groups, KH, KW), of input's dtype.
// offset:  (N, 2 * offset_groups * KH * KW, OH, OW), in pixels of the map, of input's dtype or
//          float32. Channel 2 * (g * KH * KW + tap) moves that tap down, the next one to the right.
// mask:    (N, offset_groups * KH * KW, OH, OW), of input's dtype or float32; none: 1 everywhere.
// bias:    (C_out,), of input's dtype.
// stride, padding, dilation: (vertical, horizontal), or one number for both.
// offset_groups: channels [g * C / offset_groups, ...) move together.
// Returns (N, C_out, OH, OW), OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1, of input's
// dtype. Differentiable in all five tensors, twice.
//
// Samples are bilinear on a map that goes on as zeros. Where such a surface has an edge, at whole
// coordinates, its derivative is the one to the right and below; at coordinate -1, where offsets of
// zero beside padding put taps, it is therefore not 0, as in torchvision. Offsets that are NaN,
// infinite or far outside read 0 and get no gradient.
TILEWRIGHT_API at::Tensor deform_conv2d(const at::Tensor& input, const at::Tensor& weight,
                                        const at::Tensor& offset,
                                        const std::optional<at::Tensor>& mask = {},
                                        const std::optional<at::Tensor>& bias = {},
                                        at::IntArrayRef stride = 1, at::IntArrayRef padding = 0,
                                        at::IntArrayRef dilation = 1, int64_t groups = 1,
                                        int64_t offset_groups = 1);

}  // namespace tilewright
