// Deformable aggregation for C++ users: the operator at the core of DCNv3 (InternImage,
// arXiv:2211.05778) and DCNv4 (arXiv:2401.06197). Each place adds up what the taps of a kernel read
// where learnt offsets move them, weighed by learnt masks; there are no other weights.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// input:  (N, H, W, C), float64, float32, float16 or bfloat16, channels last in memory as well
//         (other strides are copied). Group g owns channels [g * C / groups, (g + 1) * C / groups).
// offset: (N, OH, OW, groups * K * 2), K = KH * KW, of input's dtype or float32: (x, y) of each tap
//         of each group, in pixels: to the right, then down.
// mask:   (N, OH, OW, groups * K), of input's dtype or float32; taken as it is. DCNv3 applies a
//         softmax over K before, DCNv4 does not.
// kernel, stride, padding, dilation: (vertical, horizontal), or one number for both.
// Returns (N, OH, OW, C), OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1, of input's
// dtype. Differentiable in all three tensors, twice.
//
//   out[n, y, x, c] = sum over k of mask[n, y, x, g, k] * input[n, place(y, x, g, k), c]
//
// As in DCNv3, taps are counted column by column: k = kx * KH + ky. Tap k reads at
//   centre + ((kx, ky) * dilation - half + offset) * offset_scale,  centre = (x, y) * stride -
//   padding + half,  half = dilation * (kernel - 1) / 2, rounded down,
// so that offset_scale stretches the kernel's own grid as well, around its centre; of a kernel
// without a centre pixel that is the one above and left. Samples are bilinear on a map that goes on
// as zeros, with deform_conv2d's rules: at whole coordinates the derivative is the one to the right
// and below, at coordinate -1 too, and offsets that are NaN, infinite or far outside read 0 and get
// no gradient.
TILEWRIGHT_API at::Tensor deform_aggregate(const at::Tensor& input, const at::Tensor& offset,
                                           const at::Tensor& mask, at::IntArrayRef kernel,
                                           at::IntArrayRef stride, at::IntArrayRef padding,
                                           at::IntArrayRef dilation, int64_t groups,
                                           double offset_scale = 1.0);

}  // namespace tilewright
