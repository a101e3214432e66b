// Every setting of contrastive predictive coding.
#pragma once
#include <torch/arg.h>

#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// Use it like other LibTorch options: CPCOptions().input("sequences").in_channels(2).
struct TILEWRIGHT_API CPCOptions {
  const char* model() const { return "CPC"; }

  // "images" (N, C, H, W), which are cut into patches; or "sequences" (N, C, T).
  TORCH_ARG(std::string, input) = "images";
  TORCH_ARG(int64_t, in_channels) = 1;
  // Of images: pixels of a square patch, and from one to the next; less where they overlap.
  TORCH_ARG(int64_t, patch_size) = 4;
  TORCH_ARG(int64_t, patch_stride) = 2;
  // Channels of the encoder's convolutions, with ReLU; the last are the features of a step. Of
  // patches they are 3x3, with a norm over each patch, and a mean over its places ends them. Of
  // sequences they have these kernels and strides, one for each, and see nothing beyond the ends.
  TORCH_ARG(std::vector<int64_t>, widths) = {64, 128};
  TORCH_ARG(std::vector<int64_t>, kernel_sizes) = {4, 4};
  TORCH_ARG(std::vector<int64_t>, strides) = {2, 2};
  // What sums up the steps so far: "gru", or "attention", causal transformer layers whose scores
  // fall with distance (ALiBi, arXiv:2108.12409), of so many heads.
  TORCH_ARG(std::string, context) = "gru";
  TORCH_ARG(int64_t, context_features) = 128;
  TORCH_ARG(int64_t, context_layers) = 1;
  TORCH_ARG(int64_t, context_heads) = 4;
  // Steps ahead that are predicted, each by a matrix of its own: the paper's K.
  TORCH_ARG(int64_t, steps) = 2;
  // Of InfoNCE. The paper has products as they are: temperature 1, not normalised.
  TORCH_ARG(double, temperature) = 0.1;
  TORCH_ARG(bool, normalize) = true;
  // What represent makes of the contexts: their "mean", or the "last", of images those of all
  // columns of patches side by side.
  TORCH_ARG(std::string, summary) = "mean";
};

// Calls visit(name, value) for each of them.
template <class Visit>
void for_each_option(CPCOptions& options, Visit&& visit) {
  visit("input", options.input());
  visit("in_channels", options.in_channels());
  visit("patch_size", options.patch_size());
  visit("patch_stride", options.patch_stride());
  visit("widths", options.widths());
  visit("kernel_sizes", options.kernel_sizes());
  visit("strides", options.strides());
  visit("context", options.context());
  visit("context_features", options.context_features());
  visit("context_layers", options.context_layers());
  visit("context_heads", options.context_heads());
  visit("steps", options.steps());
  visit("temperature", options.temperature());
  visit("normalize", options.normalize());
  visit("summary", options.summary());
}

// Throws, naming the option, where a value cannot serve.
TILEWRIGHT_API void check_options(const CPCOptions& options);

}  // namespace tilewright
