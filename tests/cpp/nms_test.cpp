// The kinds of NMS as C++ programs use them: results, gradients through autograd, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "tilewright/detection/box_iou_rotated.h"
#include "tilewright/detection/nms.h"
#include "tilewright/detection/nms_rotated.h"
#include "tilewright/detection/soft_nms.h"

namespace {

torch::Tensor crowd(int64_t count, double size) {
  torch::manual_seed(0);
  const auto corner = torch::rand({count, 2}, torch::kDouble) * size;
  return torch::cat({corner, corner + torch::rand({count, 2}, torch::kDouble) * size + 1}, 1);
}

// Box by box, through the library's own overlaps.
torch::Tensor plain_sweep(const torch::Tensor& boxes, const torch::Tensor& overlap,
                          const torch::Tensor& scores, double threshold) {
  const auto order = std::get<1>(scores.sort(/*stable=*/true, 0, /*descending=*/true));
  std::vector<int64_t> kept;
  for (int64_t r = 0; r < order.size(0); ++r) {
    const int64_t i = order[r].item<int64_t>();
    bool stays = true;
    for (const int64_t k : kept) stays = stays && overlap[k][i].item<double>() <= threshold;
    if (stays) kept.push_back(i);
  }
  return torch::tensor(kept);
}

TEST(Nms, KeepsTheSameOfManyBoxesForAnyNumberOfThreads) {
  const auto boxes = crowd(20000, 300).to(torch::kFloat);
  const auto scores = torch::rand({20000});
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = tilewright::nms(boxes, scores, 0.6);
  at::set_num_threads(2);
  EXPECT_TRUE(torch::equal(one, tilewright::nms(boxes, scores, 0.6)));
  at::set_num_threads(before);
  EXPECT_GT(one.numel(), 512) << "too few for the index";
  EXPECT_TRUE(torch::equal(one.narrow(0, 0, 100), tilewright::nms(boxes, scores, 0.6, 100)));
}

TEST(NmsRotated, IsTheSweepOverItsOverlaps) {
  auto boxes = crowd(60, 20);
  boxes = torch::cat({boxes, torch::rand({60, 1}, torch::kDouble) * 6}, 1);
  const auto scores = torch::rand({60});
  const auto overlap = tilewright::box_iou_rotated(boxes, boxes);
  EXPECT_TRUE(torch::equal(tilewright::nms_rotated(boxes, scores, 0.3),
                           plain_sweep(boxes, overlap, scores, 0.3)));
  const auto classes = torch::arange(60) % 2;
  const auto same_class = classes.unsqueeze(0) == classes.unsqueeze(1);
  EXPECT_TRUE(torch::equal(tilewright::batched_nms_rotated(boxes, scores, classes, 0.3),
                           plain_sweep(boxes, overlap * same_class, scores, 0.3)));
}

TEST(BoxIouRotated, HasAGradient) {
  auto square = torch::tensor({{0.0, 0.0, 2.0, 2.0, 0.0}}, torch::kDouble).requires_grad_();
  const auto other = torch::tensor({{0.5, 0.0, 2.0, 4.0, 0.0}}, torch::kDouble);
  const auto overlap = tilewright::box_iou_rotated(square, other);  // 3 / (4 + 8 - 3)
  EXPECT_NEAR(overlap.item<double>(), 1.0 / 3, 1e-12);
  overlap.sum().backward();
  // The shared area grows by 2 per pixel to the right: (2 * 9 + 2 * 3) / 81.
  EXPECT_NEAR(square.grad()[0][0].item<double>(), 24.0 / 81, 1e-12);
}

TEST(SoftNms, GivesItsScoresAGradient) {
  auto boxes = torch::tensor({{0.0, 0.0, 2.0, 2.0}, {1.0, 0.0, 3.0, 2.0}}, torch::kDouble);
  auto scores = torch::tensor({0.9, 0.8}, torch::kDouble).requires_grad_();
  boxes.requires_grad_();
  const auto [keep, out] = tilewright::soft_nms(boxes, scores, 0.3, 0.5, 0.001, "linear");
  EXPECT_TRUE(torch::equal(keep, torch::tensor({0, 1})));
  EXPECT_NEAR(out[1].item<double>(), 0.8 * 2 / 3, 1e-12);
  out.sum().backward();
  ASSERT_TRUE(scores.grad().defined()) << "no gradient: autograd is not registered in C++";
  EXPECT_TRUE(torch::allclose(scores.grad(), torch::tensor({1.0, 2.0 / 3}, torch::kDouble)));
  // The second box moves to the right: intersection 2 - 2 dx, union 6 + 2 dx.
  const auto moved = boxes.grad()[1][0] + boxes.grad()[1][2];
  EXPECT_NEAR(moved.item<double>(), 0.8 * (2 * 6 + 2 * 2) / 36, 1e-12);
}

TEST(SoftNms, SaysWhatWasExpected) {
  try {
    tilewright::soft_nms(torch::zeros({1, 4}), torch::zeros({1}), 0.3, 0.5, 0.001, "soft");
    FAIL() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("method must be gaussian, linear or hard, got soft"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
