// The door for feature extractors: a detector takes any module that turns images into feature maps.
#pragma once
#include <torch/nn/module.h>

#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/export.h"

namespace tilewright {

// Derive from it, register your layers, and give a shared_ptr to FasterRCNN or RFCN.
class TILEWRIGHT_API DetectionBackboneImpl : public torch::nn::Module {
 public:
  // images: (B, 3, H, W). Returns the maps (B, out_channels(), H_l, W_l), finest first; after them
  // there may be one of last_channels().
  virtual std::vector<torch::Tensor> forward(const torch::Tensor& images) = 0;

  virtual int64_t out_channels() const = 0;

  // Of the last map that forward returns, from which R-FCN makes its position-sensitive maps.
  virtual int64_t last_channels() const { return out_channels(); }

  // How many of the maps are levels on which regions are proposed.
  virtual int64_t num_levels() const = 0;

  // Pixels per cell of the first maps, each twice the one before. Boxes are pooled from these maps
  // only; further maps serve proposals alone, like the last level of a feature pyramid. R-FCN: of
  // the last map alone.
  virtual std::vector<int64_t> roi_strides() const = 0;

  // Writes batch norms into the convolutions before them, for inference.
  virtual void fold_batch_norm() {
    TILEWRIGHT_CHECK("DetectionBackbone", false,
                     "this backbone does not say how its batch norm is folded: override "
                     "fold_batch_norm");
  }
};

}  // namespace tilewright
