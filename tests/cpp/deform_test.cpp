// Deformable convolution in a program without Python: values, training, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>

#include "support.h"
#include "tilewright/deform/deform_conv2d.h"
#include "tilewright/models/deform_conv2d_module.h"
#include "tilewright/models/state.h"

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

TEST(DeformConv, AsALayer) {
  torch::manual_seed(0);
  using tilewright::DeformConv2d;
  using tilewright::DeformConv2dOptions;
  const auto options = DeformConv2dOptions(4, 6, {3, 1}).stride(2).padding({1, 0}).groups(2);
  DeformConv2d layer(options), plain(DeformConv2dOptions(options).modulated(false).bias(false));
  const auto x = torch::randn({2, 4, 9, 8});
  const auto convolved = torch::conv2d(x, layer->weight, {}, 2, {1, 0}, 1, 2);
  // Offsets of 0, masks of 1/2.
  EXPECT_TRUE(layer(x).allclose(convolved / 2 + layer->bias.view({-1, 1, 1}), 1e-4, 1e-5));
  EXPECT_EQ(tilewright::state_dict(*layer).keys(),
            (std::vector<std::string>{"weight", "bias", "conv_offset.weight", "conv_offset.bias"}));
  EXPECT_EQ(tilewright::state_dict(*plain).keys(),
            (std::vector<std::string>{"weight", "conv_offset.weight", "conv_offset.bias"}));
  EXPECT_TRUE(plain(x).allclose(torch::conv2d(x, plain->weight, {}, 2, {1, 0}, 1, 2), 1e-4, 1e-5));
  {
    torch::NoGradGuard no_grad;
    layer->conv_offset->weight.normal_();
  }
  const auto [offset, mask] = layer->predict(x);
  EXPECT_EQ(offset.sizes(), (std::vector<int64_t>{2, 6, 5, 4}));
  EXPECT_EQ(mask.sizes(), (std::vector<int64_t>{2, 3, 5, 4}));
  const auto expected = deform_conv2d(x, layer->weight, offset, mask, layer->bias, 2, {1, 0}, 1, 2);
  EXPECT_TRUE(torch::equal(layer(x), expected));
  EXPECT_TRUE(torch::equal(layer->forward(x, offset, mask), expected));
  EXPECT_FALSE(torch::equal(layer->forward(x, offset), expected));
  layer(x).square().sum().backward();
  for (const auto& parameter : layer->named_parameters()) {
    EXPECT_GT(parameter.value().grad().abs().sum().item<float>(), 0) << parameter.key();
  }
  const auto copy = std::dynamic_pointer_cast<tilewright::DeformConv2dImpl>(layer->clone());
  EXPECT_TRUE(torch::equal(copy->forward(x), layer(x)));
  EXPECT_TRUE(torch::equal(torch::nn::Sequential(layer)->forward(x), layer(x)));
  std::ostringstream text;
  text << *layer;
  EXPECT_NE(text.str().find("DeformConv2d(4, 6, kernel_size=[3, 1], stride=[2, 2]"),
            std::string::npos)
      << text.str();
  EXPECT_MESSAGE(layer->forward(x, {}, mask), "mask needs an offset beside it");
  EXPECT_MESSAGE(DeformConv2d(DeformConv2dOptions(4, 6, 3).groups(4)),
                 "DeformConv2d: groups (4) must divide out_channels (6)");
  EXPECT_MESSAGE(DeformConv2d(DeformConv2dOptions(4, 6, 3).offset_groups(3)),
                 "offset_groups (3) must divide in_channels (4)");
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
