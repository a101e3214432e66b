// R-FCN in a program without Python: it trains, detects, is saved and loaded, and says what is
// wrong with its options.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>

#include "small_detector.h"
#include "support.h"
#include "tilewright/models/layout.h"
#include "tilewright/models/position_sensitive_heads.h"
#include "tilewright/models/rfcn.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::RFCN;
using tilewright::RFCNOptions;

RFCNOptions small_rfcn_options() {
  return RFCNOptions(3)
      .min_size(64)
      .max_size(96)
      .anchor_sizes({{16, 32}})
      .rpn_pre_nms_top_n_train(200)
      .rpn_post_nms_top_n_train(60)
      .rpn_batch_size_per_image(64)
      .box_batch_size_per_image(32)
      .head_channels(48)
      .pooled_size(3);
}

class RFCNTest : public ::testing::TestWithParam<RFCNOptions> {};

TEST_P(RFCNTest, LearnsAScene) {
  torch::manual_seed(0);
  RFCN model(GetParam());
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.01).momentum(0.9));
  const auto history = learn_scene(model, optimizer, 25);
  EXPECT_LT(history.back(), 0.8 * history.front());
}

INSTANTIATE_TEST_SUITE_P(Options, RFCNTest,
                         ::testing::Values(small_rfcn_options(),
                                           small_rfcn_options().pooling("ps_roi_pool"),
                                           small_rfcn_options().pooling("deform_ps_roi_pool"),
                                           small_rfcn_options().deformable_stages(1)));

TEST(RFCN, DetectsTheSameFoldedAndChannelsLast) {
  torch::manual_seed(0);
  RFCN model(small_rfcn_options().box_score_thresh(0.0).box_detections_per_img(7));
  model->eval();
  torch::NoGradGuard no_grad;
  const std::vector<torch::Tensor> images{torch::rand({3, 50, 80}), torch::rand({3, 40, 30})};
  const auto expected = model->forward(images);
  EXPECT_TRUE(expected.losses.is_empty());
  tilewright::set_memory_format(*model, at::MemoryFormat::ChannelsLast);
  model->fold_batch_norm();
  const auto found = model->forward(images).detections;
  ASSERT_EQ(found.size(), 2);
  for (int i = 0; i < 2; ++i) {
    const auto& [boxes, labels, scores] = expected.detections[i];
    EXPECT_EQ(boxes.sizes(), (std::vector<int64_t>{7, 4}));
    EXPECT_TRUE((boxes.select(1, 2) <= images[i].size(2) + 0.01).all().item<bool>());
    EXPECT_TRUE((scores.diff() <= 0).all().item<bool>());
    EXPECT_TRUE(torch::allclose(found[i].scores, scores, 0, 1e-4));
  }
  EXPECT_MESSAGE(model->train(), "tilewright::RFCN: batch norm was folded");
}

// The definition: bin (i, j) of output c reads channel (c k + i) k + j, and the bins are averaged.
TEST(RFCN, BinsVoteFromMapsOfTheirOwn) {
  const auto options = small_rfcn_options().head_channels(18);
  tilewright::PositionSensitiveVote vote(2, 16, options);
  torch::NoGradGuard no_grad;
  vote->named_parameters()["maps.weight"].copy_(torch::eye(18).view({18, 18, 1, 1}));
  const auto map = torch::arange(18, torch::kFloat).view({1, 18, 1, 1}).expand({1, 18, 12, 12});
  const auto rois = torch::tensor({{0.f, 32.f, 16.f, 150.f, 120.f}});
  const auto found = vote(map, rois);
  EXPECT_TRUE(torch::allclose(found, torch::tensor({{4.f, 13.f}})));  // of 0..8 and 9..17
}

TEST(RFCN, IsSavedAndLoaded) {
  const auto path = temporary("rfcn.pt");
  RFCN model(small_rfcn_options().deformable_stages(1)), copy(model->options());
  tilewright::save_module(*model, path);
  tilewright::load_module(*copy, path);
  const auto state = tilewright::state_dict(*model);
  EXPECT_TRUE(state.contains("roi_heads.cls_score.maps.weight"));
  EXPECT_TRUE(state.contains("backbone.body.layer4.1.conv2.conv_offset.bias"));
  for (const auto& item : state) {
    EXPECT_TRUE(torch::equal(item.value(), tilewright::state_dict(*copy)[item.key()]));
  }
  RFCN plain(small_rfcn_options());
  EXPECT_MESSAGE(tilewright::load_module(*plain, path), "is not in the model");
  // Plain weights go in by name; offsets stay as they are.
  auto weights = tilewright::state_dict(*plain);
  for (const auto& item : state) {
    if (item.key().find("conv_offset") != std::string::npos) {
      weights.insert(item.key(), item.value());
    }
  }
  tilewright::load_state_dict(*copy, weights);
  const auto key = "backbone.body.layer4.1.conv2.weight";
  EXPECT_TRUE(
      torch::equal(tilewright::state_dict(*copy)[key], tilewright::state_dict(*plain)[key]));
  std::remove(path.c_str());
}

class Levels : public tilewright::DetectionBackboneImpl {
 public:
  std::vector<torch::Tensor> forward(const torch::Tensor& images) override { return {images}; }
  int64_t out_channels() const override { return 3; }
  int64_t num_levels() const override { return 2; }
  std::vector<int64_t> roi_strides() const override { return {16, 32}; }
};

TEST(RFCN, NamesWhatIsWrong) {
  RFCN model(small_rfcn_options());
  const auto [images, targets] = scene();
  EXPECT_MESSAGE(model(images), "tilewright::RFCN: targets must be given in training mode");
  EXPECT_MESSAGE(RFCN(RFCNOptions(1)), "tilewright::RFCN: num_classes counts the background");
  EXPECT_MESSAGE(RFCN(small_rfcn_options().pooling("max")),
                 "pooling must be ps_roi_align, ps_roi_pool or deform_ps_roi_pool, got max");
  EXPECT_MESSAGE(RFCN(small_rfcn_options().pooled_size(0)), "pooled_size must be positive, got 0");
  EXPECT_MESSAGE(RFCN(small_rfcn_options().anchor_sizes({{8}, {16}})), "each of the 1 levels");
  EXPECT_MESSAGE(RFCN(std::make_shared<Levels>(), small_rfcn_options().anchor_sizes({{8}, {16}})),
                 "backbone must have one level and one stride, got 2 and 2");
  EXPECT_MESSAGE(RFCN(std::make_shared<Levels>(), small_rfcn_options().deformable_stages(1)),
                 "deformable_stages is the default backbone's, got 1 beside a backbone");
  EXPECT_MESSAGE(RFCN(nullptr, small_rfcn_options()), "RFCN: backbone must not be null");
}

}  // namespace
