// Every setting of SimCLR.
#pragma once
#include <torch/arg.h>

#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// Use it like other LibTorch options: SimCLROptions().in_channels(3).temperature(0.5).
struct TILEWRIGHT_API SimCLROptions {
  const char* model() const { return "SimCLR"; }

  // Of the images: 1 (grey) or 3 where the encoder is a ResNet.
  TORCH_ARG(int64_t, in_channels) = 1;
  // "conv", a ConvEncoder of these widths; or "resnet", of 18, 34, 50 or 101 layers. With
  // small_images its stem is one 3x3 convolution that keeps the sides, as SimCLR has it for 32x32.
  TORCH_ARG(std::string, encoder) = "conv";
  TORCH_ARG(std::vector<int64_t>, widths) = {32, 64, 128};
  TORCH_ARG(int64_t, resnet_depth) = 18;
  TORCH_ARG(bool, small_images) = true;
  // The projection head: linear layers of so many hidden units, with batch norm and ReLU, and a
  // last one to so many features. They serve the loss alone.
  TORCH_ARG(int64_t, projection_layers) = 2;
  TORCH_ARG(int64_t, projection_hidden) = 128;
  TORCH_ARG(int64_t, projection_features) = 64;
  // By which NT-Xent divides similarities.
  TORCH_ARG(double, temperature) = 0.2;
};

// Calls visit(name, value) for each of them.
template <class Visit>
void for_each_option(SimCLROptions& options, Visit&& visit) {
  visit("in_channels", options.in_channels());
  visit("encoder", options.encoder());
  visit("widths", options.widths());
  visit("resnet_depth", options.resnet_depth());
  visit("small_images", options.small_images());
  visit("projection_layers", options.projection_layers());
  visit("projection_hidden", options.projection_hidden());
  visit("projection_features", options.projection_features());
  visit("temperature", options.temperature());
}

// Throws, naming the option, where a value cannot serve.
TILEWRIGHT_API void check_options(const SimCLROptions& options);

}  // namespace tilewright
