// Detectors that a test trains in a second, and a scene for them.
#pragma once
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "tilewright/models/faster_rcnn.h"

inline tilewright::FasterRCNNOptions small_options() {
  return tilewright::FasterRCNNOptions(3)
      .min_size(64)
      .max_size(96)
      .fpn_channels(32)
      .representation_size(64)
      .anchor_sizes({{8}, {16}, {32}, {64}, {128}})
      .rpn_pre_nms_top_n_train(200)
      .rpn_post_nms_top_n_train(60)
      .rpn_batch_size_per_image(64)
      .box_batch_size_per_image(32);
}

// One map for proposals and boxes: what another backbone has to say of itself.
class SingleMap : public tilewright::DetectionBackboneImpl {
 public:
  SingleMap() : layer_(torch::nn::Conv2dOptions(3, 8, 16).stride(16)) {
    register_module("layer", layer_);
  }
  std::vector<torch::Tensor> forward(const torch::Tensor& images) override {
    return {layer_(images)};
  }
  int64_t out_channels() const override { return 8; }
  int64_t num_levels() const override { return 1; }
  std::vector<int64_t> roi_strides() const override { return {16}; }

 private:
  torch::nn::Conv2d layer_;
};

struct Scene {
  std::vector<torch::Tensor> images;
  std::vector<tilewright::DetectionTarget> targets;
};

// A bright square and a dark one on grey.
inline Scene scene() {
  auto image = torch::full({3, 64, 64}, 0.5);
  using torch::indexing::Slice;
  image.index_put_({Slice(), Slice(8, 30), Slice(10, 32)}, 1.0);
  image.index_put_({Slice(), Slice(36, 60), Slice(34, 58)}, 0.0);
  return {{image},
          {{torch::tensor({{10.f, 8.f, 32.f, 30.f}, {34.f, 36.f, 58.f, 60.f}}),
            torch::tensor({1, 2})}}};
}

// The losses of so many steps on the scene, whose draws are alike.
template <class Model>
std::vector<double> learn_scene(Model& model, torch::optim::Optimizer& optimizer, int steps) {
  const auto [images, targets] = scene();
  std::vector<double> history;
  for (int step = 0; step < steps; ++step) {
    torch::manual_seed(1);
    optimizer.zero_grad();
    const auto output = model(images, targets);
    EXPECT_EQ(output.losses.keys(),
              (std::vector<std::string>{"loss_classifier", "loss_box_reg", "loss_objectness",
                                        "loss_rpn_box_reg"}));
    EXPECT_TRUE(output.detections.empty());
    output.total_loss().backward();
    for (const auto& parameter : model->named_parameters()) {
      const auto& grad = parameter.value().grad();
      EXPECT_TRUE(grad.defined() && grad.isfinite().all().template item<bool>()) << parameter.key();
    }
    optimizer.step();
    history.push_back(output.total_loss().template item<double>());
  }
  return history;
}
