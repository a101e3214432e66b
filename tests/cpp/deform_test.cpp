// Deformable convolution and aggregation in a program without Python: values, training, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>

#include "support.h"
#include "tilewright/deform/deform_aggregate.h"
#include "tilewright/deform/deform_conv2d.h"
#include "tilewright/models/deform_conv2d_module.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::deform_aggregate;
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
  EXPECT_MESSAGE(DeformConv2d(DeformConv2dOptions(4, 6, {3, 0})),
                 "DeformConv2d: kernel_size must be at least 1, got [3, 0]");
  EXPECT_MESSAGE(DeformConv2d(DeformConv2dOptions(4, 0, 3)), "out_channels must be at least 1");
  EXPECT_MESSAGE(DeformConv2d(DeformConv2dOptions(4, 6, 3).padding(-1)),
                 "padding must be at least 0, got [-1, -1]");
}

TEST(DeformConv, ErrorsSayWhatWasExpected) {
  const auto x = torch::randn({1, 4, 5, 5}), weight = torch::randn({2, 4, 3, 3});
  EXPECT_MESSAGE(deform_conv2d(x, weight, torch::zeros({1, 18, 5, 5})),
                 "offset must have shape (N, 2 * offset_groups * kernel height * width, output "
                 "height, output width) = (1, 18, 3, 3), got (1, 18, 5, 5)");
  EXPECT_MESSAGE(deform_conv2d(x, weight, torch::zeros({1, 18, 3, 3}), {}, {}, 0),
                 "stride must be at least 1, got 0");
}

// Without offsets a mask that is the same everywhere is a kernel, counted column by column.
TEST(DeformAggregate, IsAConvolutionWithoutOffsets) {
  torch::manual_seed(0);
  const auto x = torch::randn({2, 9, 8, 6}), kernel = torch::randn({3, 2});
  const auto mask = kernel.t().reshape({1, 1, 1, 6}).repeat({2, 5, 7, 2});
  const auto weight = kernel.repeat({6, 1, 1, 1});
  const auto expected =
      torch::conv2d(x.permute({0, 3, 1, 2}), weight, {}, {2, 1}, {1, 0}, {1, 1}, 6)
          .permute({0, 2, 3, 1});
  const auto found = deform_aggregate(x, torch::zeros({2, 5, 7, 24}), mask, {3, 2}, {2, 1}, {1, 0},
                                      1, /*groups=*/2);
  EXPECT_TRUE(found.allclose(expected, 1e-4, 1e-5));
}

// Offsets and masks learn to undo a shift and a factor.
TEST(DeformAggregate, LearnsAShift) {
  torch::manual_seed(0);
  const auto coarse = torch::randn({1, 1, 6, 6});
  const auto x = torch::upsample_bilinear2d(coarse, {24, 24}, true).permute({0, 2, 3, 1});
  const auto target = x.roll({1, -1}, {1, 2}).slice(1, 4, 20).slice(2, 4, 20) * 2;
  auto shift = torch::zeros({1, 1, 1, 2}, torch::requires_grad());
  auto factor = torch::ones({1, 1, 1, 1}, torch::requires_grad());
  torch::optim::Adam optimizer({shift, factor}, torch::optim::AdamOptions(0.05));
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    const auto seen = deform_aggregate(x, shift.expand({1, 24, 24, 2}),
                                       factor.expand({1, 24, 24, 1}), 1, 1, 0, 1, 1);
    (seen.slice(1, 4, 20).slice(2, 4, 20) - target).square().mean().backward();
    optimizer.step();
  }
  EXPECT_NEAR(shift.flatten()[0].item<float>(), 1, 0.1);  // to the right
  EXPECT_NEAR(shift.flatten()[1].item<float>(), -1, 0.1);
  EXPECT_NEAR(factor.item<float>(), 2, 0.1);
}

TEST(DeformAggregate, ErrorsSayWhatWasExpected) {
  const auto x = torch::randn({1, 5, 5, 4}), mask = torch::ones({1, 3, 3, 18});
  EXPECT_MESSAGE(deform_aggregate(x, torch::zeros({1, 3, 3, 18}), mask, 3, 1, 0, 1, 2),
                 "offset must have shape (N, output height, output width, groups * kernel height * "
                 "kernel width * 2) = (1, 3, 3, 36), got (1, 3, 3, 18)");
  EXPECT_MESSAGE(deform_aggregate(x, torch::zeros({1, 3, 3, 36}), mask, 3, 1, 0, 1, 3),
                 "groups (3) must divide input's channels (4)");
}

}  // namespace
