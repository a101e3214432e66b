// What a 3x3 convolution sees at a few cells of feature maps, so that a loss over sampled cells
// does not send its gradient through all of them.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// The 3x3 neighbourhoods of cells, with zeros outside of the maps.
//   features: maps (B, C, H_l, W_l) of one dtype. cells: (N,) int64, counted over the cells of all
//   maps of the first image, row by row and map after map, then over those of the next image: the
//   order of flatten_predictions. Returns (N, 9 * C), channels fastest:
//   linear(patches, weight.permute({0, 2, 3, 1}).flatten(1)) is the convolution with weight
//   (O, C, 3, 3) there.
// Differentiable in the maps. A cell out of range is an error on the CPU; on CUDA it gives the
// patch of some other cell.
TILEWRIGHT_API at::Tensor gather_patches(at::TensorList features, const at::Tensor& cells);

}  // namespace tilewright
