// Deformable convolution in a program without Python: values, training, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support.h"
#include "tilewright/deform/deform_conv2d.h"

namespace {

using tilewright::deform_conv2d;

TEST(DeformConv, IsAConvolutionWithoutOffsets) {
  torch::manual_seed(0);
  const auto x = torch::randn({2, 6, 9, 8}), weight = torch::randn({4, 3, 3, 3}),
             bias = torch::randn(4);
  const auto offset = torch::zeros({2, 18, 5, 4}), mask = torch::ones({2, 9, 5, 4});
  const auto expected = torch::conv2d(x, weight, bias, 2, 1, 1, 2);
  EXPECT_TRUE(
      deform_conv2d(x, weight, offset, mask, bias, 2, 1, 1, 2).allclose(expected, 1e-4, 1e-5));
  EXPECT_TRUE(deform_conv2d(x, weight, offset, {}, bias, {2, 2}, {1, 1}, {1, 1}, 2)
                  .allclose(expected, 1e-4, 1e-5));
}

// Offsets learn to look where the picture was moved to.
TEST(DeformConv, LearnsAShift) {
  torch::manual_seed(0);
  const auto coarse = torch::randn({1, 1, 6, 6});
  const auto x = torch::upsample_bilinear2d(coarse, {24, 24}, true);
  const auto target = x.roll({1, -1}, {2, 3}).slice(2, 4, 20).slice(3, 4, 20);
  const auto weight = torch::ones({1, 1, 1, 1});
  auto shift = torch::zeros({1, 2, 1, 1}, torch::requires_grad());
  torch::optim::Adam optimizer({shift}, torch::optim::AdamOptions(0.05));
  for (int step = 0; step < 120; ++step) {
    optimizer.zero_grad();
    const auto seen = deform_conv2d(x, weight, shift.expand({1, 2, 24, 24}));
    (seen.slice(2, 4, 20).slice(3, 4, 20) - target).square().mean().backward();
    optimizer.step();
  }
  EXPECT_NEAR(shift[0][0].item<float>(), -1, 0.1);
  EXPECT_NEAR(shift[0][1].item<float>(), 1, 0.1);
}

TEST(DeformConv, ErrorsSayWhatWasExpected) {
  const auto x = torch::randn({1, 4, 5, 5}), weight = torch::randn({2, 4, 3, 3});
  EXPECT_MESSAGE(deform_conv2d(x, weight, torch::zeros({1, 18, 5, 5})),
                 "offset must have shape (N, 2 * offset_groups * kernel height * width, output "
                 "height, output width) = (1, 18, 3, 3), got (1, 18, 5, 5)");
  EXPECT_MESSAGE(deform_conv2d(x, weight, torch::zeros({1, 18, 3, 3}), {}, {}, 0),
                 "stride must be at least 1, got 0");
}

}  // namespace
