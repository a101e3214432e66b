// The door for feature extractors: a detector takes any module that turns images into feature maps.
#pragma once
#include <torch/nn/module.h>

#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/export.h"

namespace tilewright {

// Derive from it, register your layers, and give a shared_ptr to FasterRCNN.
class TILEWRIGHT_API DetectionBackboneImpl : public torch::nn::Module {
 public:
  // images: (B, 3, H, W). Returns the maps (B, out_channels(), H_l, W_l), finest first.
  virtual std::vector<torch::Tensor> forward(const torch::Tensor& images) = 0;

  virtual int64_t out_channels() const = 0;

  // How many maps forward returns: the levels on which regions are proposed.
  virtual int64_t num_levels() const = 0;

  // Pixels per cell of the first maps, each twice the one before. Boxes are pooled from these maps
  // only; further maps serve proposals alone, like the last level of a feature pyramid.
  virtual std::vector<int64_t> roi_strides() const = 0;

  // Writes batch norms into the convolutions before them, for inference.
  virtual void fold_batch_norm() {
    TILEWRIGHT_CHECK("DetectionBackbone", false,
                     "this backbone does not say how its batch norm is folded: override "
                     "fold_batch_norm");
  }
};

}  // namespace tilewright
