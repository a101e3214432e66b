// The ways to build and run a detector in C++: depths, frozen and folded batch norm, one map,
// channels last, autocast.
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "small_detector.h"
#include "support.h"
#include "tilewright/models/feature_pyramid.h"
#include "tilewright/models/layout.h"
#include "tilewright/models/resnet.h"
#include "tilewright/models/resnet_backbone.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::Detection;
using tilewright::FasterRCNN;
using tilewright::FasterRCNNOptions;

// Statistics that a batch norm must use, else results differ.
void randomise(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  for (const auto& item : tilewright::state_dict(module)) {
    const auto ends_with = [&](const std::string& end) {
      return item.key().size() > end.size() &&
             item.key().compare(item.key().size() - end.size(), end.size(), end) == 0;
    };
    auto value = item.value();
    if (ends_with("running_var")) value.uniform_(0.75, 1.25);
    if (ends_with("running_mean")) value.normal_(0, 0.2);
    if (ends_with("cls_score.weight")) value.mul_(20);
    if (ends_with("conv_offset.weight")) value.normal_(0, 0.002);
  }
}

std::vector<torch::Tensor> two_images() {
  return {torch::rand({3, 50, 80}), torch::rand({3, 40, 30})};
}

// Detections come by their scores; of two whose scores are equal but for rounding either is first.
void expect_near(const std::vector<Detection>& found, const std::vector<Detection>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_GT(expected[i].boxes.size(0), 5);
    ASSERT_EQ(found[i].boxes.sizes(), expected[i].boxes.sizes());
    EXPECT_LE((found[i].scores - expected[i].scores).abs().max().item<double>(), 5e-4);
    const auto between = [](const torch::Tensor& a, const torch::Tensor& b) {
      return (a.unsqueeze(1) - b.unsqueeze(0)).abs();
    };
    const auto another = between(found[i].labels, expected[i].labels).ne(0) |
                         between(found[i].scores, expected[i].scores).gt(5e-4);
    const auto apart = between(found[i].boxes, expected[i].boxes).amax(2) + 1e6 * another;
    for (const int64_t side : {0, 1}) {
      EXPECT_LE(apart.amin(side).max().item<double>(), 1e-2);
    }
  }
}

class Settings : public ::testing::TestWithParam<FasterRCNNOptions> {};

TEST_P(Settings, FoldedBatchNormAndChannelsLastDetectTheSame) {
  torch::manual_seed(0);
  FasterRCNN model(GetParam());
  randomise(*model);
  model->eval();
  torch::NoGradGuard no_grad;
  const auto images = two_images();
  const auto expected = model->forward(images).detections;
  tilewright::set_memory_format(*model, at::MemoryFormat::ChannelsLast);
  EXPECT_TRUE(model->named_parameters()["backbone.body.layer1.0.conv2.weight"].is_contiguous(
      at::MemoryFormat::ChannelsLast));
  expect_near(model->forward(images).detections, expected);
  model->fold_batch_norm();
  expect_near(model->forward(images).detections, expected);
  EXPECT_FALSE(tilewright::state_dict(*model).contains("backbone.body.bn1.running_mean"));
  EXPECT_TRUE(tilewright::state_dict(*model).contains("backbone.body.bn1.bias"));
  EXPECT_MESSAGE(model->train(), "this model cannot train any more");
}

TEST_P(Settings, TrainsInBfloat16Autocast) {
  torch::manual_seed(0);
  FasterRCNN model(GetParam());
  const auto [images, targets] = scene();
  tilewright::set_memory_format(*model, at::MemoryFormat::ChannelsLast);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const auto loss = model(images, targets).total_loss();
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  loss.backward();
  for (const auto& parameter : model->named_parameters()) {
    if (!parameter.value().requires_grad()) continue;
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Settings,
    ::testing::Values(
        small_options().box_score_thresh(0.0),
        small_options().box_score_thresh(0.0).resnet_depth(50).frozen_batch_norm(true),
        small_options().box_score_thresh(0.0).resnet_depth(34).feature_level(3).anchor_sizes(
            {{16, 32}}),
        small_options().box_score_thresh(0.0).deformable_stages(2),
        small_options()
            .box_score_thresh(0.0)
            .resnet_depth(50)
            .frozen_batch_norm(true)
            .feature_level(4)
            .dilate_last_stage(true)
            .deformable_stages(1)
            .modulated_deformation(true)
            .anchor_sizes({{16, 32}})));

TEST(Models, DeformableFasterRCNNLearnsAScene) {
  torch::manual_seed(0);
  FasterRCNN model(small_options().deformable_stages(2));
  torch::optim::SGD optimizer(model->parameters(), 0.005);
  const auto history = learn_scene(model, optimizer, 10);
  EXPECT_LT(history.back(), 0.7 * history.front());
  const auto offsets = model->named_parameters()["backbone.body.layer4.1.conv2.conv_offset.weight"];
  EXPECT_GT(offsets.abs().max().item<float>(), 0);
}

TEST(Models, FrozenLayersGetNoGradient) {
  FasterRCNN model(small_options().frozen_batch_norm(true).trainable_backbone_layers(2));
  const auto before = tilewright::state_dict(*model)["backbone.body.bn1.running_mean"].clone();
  const auto [images, targets] = scene();
  model(images, targets).total_loss().backward();
  const auto parameters = model->named_parameters();
  EXPECT_FALSE(parameters["backbone.body.conv1.weight"].grad().defined());
  EXPECT_FALSE(parameters["backbone.body.layer2.0.conv1.weight"].grad().defined());
  EXPECT_TRUE(parameters["backbone.body.layer3.0.conv1.weight"].grad().defined());
  EXPECT_FALSE(parameters.contains("backbone.body.bn1.weight"));  // buffers
  EXPECT_TRUE(
      torch::equal(tilewright::state_dict(*model)["backbone.body.bn1.running_mean"], before));
}

TEST(Models, BackbonesOfOneMapSayTheirStride) {
  for (const auto& [stages, stride, channels] :
       {std::tuple{1, 4, 256}, std::tuple{3, 16, 1024}, std::tuple{4, 32, 2048}}) {
    tilewright::ResNetBackbone backbone(tilewright::ResNetOptions(50).stages(stages));
    EXPECT_EQ(backbone->roi_strides(), std::vector<int64_t>{stride});
    EXPECT_EQ(backbone->out_channels(), channels);
    torch::NoGradGuard no_grad;
    EXPECT_EQ(backbone->forward(torch::rand({1, 3, 64, 96}))[0].sizes(),
              (std::vector<int64_t>{1, channels, 64 / stride, 96 / stride}));
  }
}

TEST(Models, DilationKeepsTheStride) {
  tilewright::ResNetBackbone backbone(tilewright::ResNetOptions(18).dilate_last_stage(true));
  EXPECT_EQ(backbone->roi_strides(), std::vector<int64_t>{16});
  torch::NoGradGuard no_grad;
  EXPECT_EQ(backbone->forward(torch::rand({1, 3, 64, 96}))[0].sizes(),
            (std::vector<int64_t>{1, 512, 4, 6}));
}

TEST(Models, NameWhatIsWrong) {
  EXPECT_MESSAGE(FasterRCNN(small_options().resnet_depth(19)), "depth must be 18, 34, 50 or 101");
  EXPECT_MESSAGE(FasterRCNN(small_options().feature_level(5)), "feature_level must be 0");
  EXPECT_MESSAGE(FasterRCNN(small_options().feature_level(3)), "each of the 1 levels, got 5");
  EXPECT_MESSAGE(FasterRCNN(small_options().trainable_backbone_layers(6)),
                 "trainable_layers must lie in [0, 5], got 6");
  EXPECT_MESSAGE(FasterRCNN(small_options().deformable_stages(5)),
                 "deformable_stages must lie in [0, 4], the stages that are built, got 5");
  EXPECT_MESSAGE(FasterRCNN(std::make_shared<tilewright::ResNetFpnBackboneImpl>(
                                tilewright::ResNetOptions(), /*out_channels=*/8),
                            small_options().deformable_stages(1)),
                 "deformable_stages is the default backbone's, got 1 beside a backbone");
  EXPECT_MESSAGE(FasterRCNN(small_options().dilate_last_stage(true)),
                 "dilate_last_stage needs feature_level=4, got 0");
  EXPECT_MESSAGE(tilewright::ResNet(tilewright::ResNetOptions().stages(1).dilate_last_stage(true)),
                 "dilate_last_stage needs at least 2 stages, got 1");
  EXPECT_MESSAGE(tilewright::ResNetFpnBackbone(tilewright::ResNetOptions().dilate_last_stage(true)),
                 "dilate_last_stage must be false");
  FasterRCNN model(small_options());
  EXPECT_MESSAGE(model->fold_batch_norm(), "call eval() first");
  model->eval();
  EXPECT_MESSAGE(model->forward({torch::rand({3, 20, 20}, torch::kDouble)}),
                 "images[0] must have the dtype of the model, Float, got Double");
  EXPECT_MESSAGE(model->forward({torch::rand({3, 20, 20}) * 255}),
                 "images[0] must hold pixels in [0, 1]");
}

}  // namespace
