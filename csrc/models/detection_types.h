// What goes into a detector and what comes out of it.
#pragma once
#include <torch/csrc/api/include/torch/ordered_dict.h>
#include <torch/types.h>

#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// The ground truth of one image.
struct DetectionTarget {
  torch::Tensor boxes;   // (G, 4) floating, pixels of the image as given, positive width and height
  torch::Tensor labels;  // (G,) int64 in [1, num_classes)
};

// What was found in one image, best first.
struct Detection {
  torch::Tensor boxes;   // (D, 4) pixels of the image as given
  torch::Tensor labels;  // (D,) int64 in [1, num_classes)
  torch::Tensor scores;  // (D,)
};

using NamedLosses = torch::OrderedDict<std::string, torch::Tensor>;

struct DetectionOutput {
  NamedLosses losses;                 // scalars; empty in evaluation mode
  std::vector<Detection> detections;  // one per image; empty in training mode

  // The sum of the losses; undefined in evaluation mode.
  torch::Tensor total_loss() const {
    torch::Tensor sum;
    for (const auto& loss : losses) sum = sum.defined() ? sum + loss.value() : loss.value();
    return sum;
  }
};

struct ImageSize {
  int64_t height, width;
};

}  // namespace tilewright
