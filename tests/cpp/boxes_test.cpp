// The box operators as C++ programs call them: values, gradients, and the steps of a training loop.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tilewright/detection/anchors.h"
#include "tilewright/detection/box_coder.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/matcher.h"
#include "tilewright/detection/postprocess.h"
#include "tilewright/detection/proposals.h"
#include "tilewright/detection/sampler.h"

namespace {

const torch::Tensor& two_boxes() {
  static const auto boxes = torch::tensor({{0.f, 0.f, 10.f, 10.f}, {20.f, 20.f, 30.f, 40.f}});
  return boxes;
}

TEST(Boxes, OverlapsOfPairs) {
  const auto half = torch::tensor({{0.f, 0.f, 5.f, 10.f}});
  EXPECT_TRUE(torch::allclose(tilewright::box_area(two_boxes()), torch::tensor({100.f, 200.f})));
  EXPECT_TRUE(
      torch::allclose(tilewright::box_iou(two_boxes(), half), torch::tensor({{0.5f}, {0.0f}})));
  EXPECT_TRUE(torch::allclose(tilewright::generalized_box_iou(two_boxes(), half)[0],
                              torch::tensor({0.5f})));
  EXPECT_TRUE(torch::equal(tilewright::clip_boxes(two_boxes(), 25, 28)[1],
                           torch::tensor({20.f, 20.f, 28.f, 25.f})));
}

TEST(Boxes, GeneralizedIouPullsABoxToItsTarget) {
  auto box = torch::tensor({{6.f, 7.f, 14.f, 19.f}}).requires_grad_();
  torch::optim::Adam optimizer({box}, 0.2);
  const auto target = two_boxes().slice(0, 0, 1);
  for (int step = 0; step < 150; ++step) {
    optimizer.zero_grad();
    const auto loss = (1 - tilewright::generalized_box_iou(box, target)).sum();
    loss.backward();
    ASSERT_TRUE(box.grad().isfinite().all().item<bool>());
    optimizer.step();
  }
  EXPECT_GT(tilewright::box_iou(box, target).item<double>(), 0.8);
}

TEST(BoxCoder, DecodesWhatItEncoded) {
  const auto boxes = two_boxes() + 3;
  const auto codes = tilewright::encode_boxes(two_boxes(), boxes, tilewright::kHeadBoxWeights);
  EXPECT_TRUE(torch::allclose(tilewright::decode_boxes(codes, boxes, tilewright::kHeadBoxWeights),
                              two_boxes(), 1e-4, 1e-4));
}

TEST(Anchors, StandOnTheGrid) {
  const std::vector<torch::Tensor> features{torch::zeros({1, 8, 2, 3})};
  const auto anchors = tilewright::grid_anchors(features, {32.0}, {1.0}, 32, 48);
  ASSERT_EQ(anchors.sizes(), (std::vector<int64_t>{6, 4}));
  EXPECT_TRUE(torch::equal(anchors[4], torch::tensor({0.f, 0.f, 32.f, 32.f})));
}

TEST(Targets, AreMatchedAndSampled) {
  const auto labels = torch::tensor({2, 1});
  const auto candidates = torch::cat({two_boxes() + 1, two_boxes() + 100});
  const auto [label, matched] =
      tilewright::assign_targets(two_boxes(), labels, candidates, 0.5, 0.5);
  EXPECT_TRUE(torch::equal(label, torch::tensor({2, 1, 0, 0})));
  EXPECT_TRUE(torch::equal(matched.slice(0, 0, 2), two_boxes()));
  const auto noise = torch::tensor({0.9f, 0.1f, 0.5f, 0.2f});
  const auto [positive, negative] = tilewright::sample_balanced(label, noise, 2, 0.5);
  EXPECT_TRUE(torch::equal(positive, torch::tensor({false, true, false, false})));
  EXPECT_TRUE(torch::equal(negative, torch::tensor({false, false, false, true})));
}

TEST(Proposals, AreTheBestOfEachLevel) {
  const auto anchors = torch::cat({two_boxes(), two_boxes() + 1});
  const auto [boxes, scores] = tilewright::generate_proposals(
      torch::tensor({1.f, 3.f, 2.f, 0.f}), torch::zeros({4, 4}), anchors, {2, 2}, 100, 100);
  // Each level is suppressed for itself, so the shifted copies of the second level stay.
  EXPECT_TRUE(torch::equal(boxes, anchors.index({torch::tensor({1, 2, 0, 3})})));
  EXPECT_NEAR(scores[3].item<double>(), 0.5, 1e-6);
}

TEST(Detections, AreSuppressedPerClass) {
  const auto scores = torch::tensor({{0.1f, 0.6f, 0.3f}, {0.2f, 0.7f, 0.1f}});
  const auto boxes = two_boxes().slice(0, 0, 1).repeat({2, 3});
  const auto [kept, score, label] = tilewright::postprocess_detections(scores, boxes, 50, 50);
  EXPECT_TRUE(torch::equal(label, torch::tensor({1, 2})));
  EXPECT_TRUE(torch::allclose(score, torch::tensor({0.7f, 0.3f})));
  EXPECT_EQ(kept.sizes(), (std::vector<int64_t>{2, 4}));
}

}  // namespace
