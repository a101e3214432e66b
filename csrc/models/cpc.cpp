// The parts of contrastive predictive coding, put together.
#include "tilewright/models/cpc.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/normalization.h>

#include <vector>

#include "tilewright/contrastive/contrastive_losses.h"
#include "tilewright/models/self_supervised_internal.h"

namespace tilewright {
namespace {

bool of_images(const CPCOptions& options) { return options.input() == "images"; }

torch::nn::Sequential step_encoder(const CPCOptions& options) {
  torch::nn::Sequential layers;
  int64_t channels = options.in_channels();
  for (size_t i = 0; i < options.widths().size(); ++i) {
    const int64_t width = options.widths()[i];
    if (of_images(options)) {
      layers->push_back(
          torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, width, 3).padding(1).bias(false)));
      // Not batch norm, through which a patch would tell of others (arXiv:1905.09272).
      layers->push_back(torch::nn::GroupNorm(1, width));
    } else {
      layers->push_back(
          torch::nn::Conv1d(torch::nn::Conv1dOptions(channels, width, options.kernel_sizes()[i])
                                .stride(options.strides()[i])));
    }
    layers->push_back(torch::nn::ReLU());
    channels = width;
  }
  return layers;
}

// The least length of a sequence, or height of an image, that has so many steps.
int64_t least_length(const CPCOptions& options, int64_t steps) {
  if (of_images(options)) return (steps - 1) * options.patch_stride() + options.patch_size();
  int64_t length = steps;
  for (size_t i = options.widths().size(); i-- > 0;) {
    length = (length - 1) * options.strides()[i] + options.kernel_sizes()[i];
  }
  return length;
}

// Sequences that an input becomes.
int64_t columns_of(const torch::Tensor& x, const CPCOptions& options) {
  return of_images(options) ? (x.size(3) - options.patch_size()) / options.patch_stride() + 1 : 1;
}

}  // namespace

void check_options(const CPCOptions& options) {
  using self_supervised_internal::check_positive;
  const char* model = options.model();
  TILEWRIGHT_CHECK(model, of_images(options) || options.input() == "sequences",
                   "input must be images or sequences, got ", options.input());
  check_positive(model, "in_channels", options.in_channels());
  check_positive(model, "patch_size", options.patch_size());
  check_positive(model, "patch_stride", options.patch_stride());
  check_positive(model, "widths", options.widths());
  check_positive(model, "kernel_sizes", options.kernel_sizes());
  check_positive(model, "strides", options.strides());
  const size_t layers = options.widths().size();
  TILEWRIGHT_CHECK(
      model,
      of_images(options) ||
          (options.kernel_sizes().size() == layers && options.strides().size() == layers),
      "kernel_sizes and strides must have one number for each of the ", layers, " widths, got ",
      options.kernel_sizes().size(), " and ", options.strides().size());
  TILEWRIGHT_CHECK(model, options.context() == "gru" || options.context() == "attention",
                   "context must be gru or attention, got ", options.context());
  check_positive(model, "context_features", options.context_features());
  check_positive(model, "context_layers", options.context_layers());
  check_positive(model, "context_heads", options.context_heads());
  TILEWRIGHT_CHECK(
      model,
      options.context() == "gru" || options.context_features() % options.context_heads() == 0,
      "context_features must be a multiple of context_heads (", options.context_heads(), "), got ",
      options.context_features());
  constexpr int64_t kLargestHead = 256;  // flash_attention's
  TILEWRIGHT_CHECK(model,
                   options.context() == "gru" ||
                       options.context_features() / options.context_heads() <= kLargestHead,
                   "a head must have at most ", kLargestHead, " of the context_features, got ",
                   options.context_features() / options.context_heads());
  check_positive(model, "steps", options.steps());
  self_supervised_internal::check_temperature(model, options.temperature());
  TILEWRIGHT_CHECK(model, options.summary() == "mean" || options.summary() == "last",
                   "summary must be mean or last, got ", options.summary());
}

CPCImpl::CPCImpl(const CPCOptions& options) : options_(options) {
  check_options(options_);
  encoder_ = register_module("encoder", step_encoder(options_));
  const int64_t features = options_.widths().back(), own = options_.context_features();
  if (options_.context() == "gru") {
    gru_ = register_module("context", torch::nn::GRU(torch::nn::GRUOptions(features, own)
                                                         .num_layers(options_.context_layers())
                                                         .batch_first(true)));
  } else {
    attention_ = register_module("context", CausalContext(features, own, options_.context_layers(),
                                                          options_.context_heads()));
  }
  prediction_ = register_module(
      "prediction",
      torch::nn::Linear(torch::nn::LinearOptions(own, options_.steps() * features).bias(false)));
}

torch::Tensor CPCImpl::encode(const torch::Tensor& x) {
  const char* model = options_.model();
  if (!of_images(options_)) {
    self_supervised_internal::check_channels(model, "x", x, "(N, C, T)", 3, options_.in_channels());
    const int64_t least = least_length(options_, 1);
    TILEWRIGHT_CHECK(model, x.size(2) >= least, "x must have a length of at least ", least,
                     ", for its encoder sees so much at a step, got ", shape_of(x));
    return encoder_->forward(x).transpose(1, 2);
  }
  self_supervised_internal::check_channels(model, "x", x, "(N, C, H, W)", 4,
                                           options_.in_channels());
  const int64_t size = options_.patch_size(), stride = options_.patch_stride();
  TILEWRIGHT_CHECK(model, x.size(2) >= size && x.size(3) >= size,
                   "x must not be smaller than a patch, ", size, " x ", size, ", got ",
                   shape_of(x));
  // (N, C, rows, columns, size, size) to (N, columns, rows, C, size, size).
  const auto patches =
      x.unfold(2, size, stride).unfold(3, size, stride).permute({0, 3, 2, 1, 4, 5});
  const auto features = encoder_->forward(patches.flatten(0, 2)).mean({2, 3});
  return features.view({x.size(0) * patches.size(1), patches.size(2), features.size(1)});
}

torch::Tensor CPCImpl::contexts(const torch::Tensor& features) {
  return gru_ ? std::get<0>(gru_->forward(features)) : attention_->forward(features);
}

torch::Tensor CPCImpl::forward(const torch::Tensor& x) {
  const auto z = encode(x);  // (S, T, F)
  const int64_t length = z.size(1), steps = options_.steps();
  TILEWRIGHT_CHECK(options_.model(), length > steps, "x must have more than ", steps,
                   of_images(options_) ? " rows of patches" : " steps",
                   ", for so many are predicted, got ", length, " (the least ",
                   of_images(options_) ? "height" : "length", " is ",
                   least_length(options_, steps + 1), ")");
  const auto predicted = prediction_->forward(contexts(z)).unflatten(-1, {steps, -1});
  const auto row = torch::arange(z.size(0) * length, z.options().dtype(torch::kLong))
                       .view({-1, length});  // of each step among all
  std::vector<torch::Tensor> queries, positives;
  for (int64_t k = 1; k <= steps; ++k) {
    queries.push_back(predicted.select(2, k - 1).narrow(1, 0, length - k).flatten(0, 1));
    positives.push_back(row.narrow(1, k, length - k).flatten());
  }
  return info_nce(torch::cat(queries), z.flatten(0, 1), torch::cat(positives),
                  options_.temperature(), options_.normalize());
}

torch::Tensor CPCImpl::represent(const torch::Tensor& x) {
  const auto flat = contexts(encode(x));
  const int64_t columns = columns_of(x, options_);
  const auto context = flat.view({x.size(0), columns, flat.size(1), flat.size(2)});
  return options_.summary() == "mean" ? context.mean({1, 2}) : context.select(2, -1).flatten(1);
}

}  // namespace tilewright
