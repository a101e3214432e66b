// RoIPool and the position-sensitive operators as C++ programs use them: values, gradients through
// autograd, training loops, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>

#include "tilewright/detection/ps_roi_align.h"
#include "tilewright/detection/ps_roi_pool.h"
#include "tilewright/detection/roi_pool.h"

namespace {

using Pool = std::function<torch::Tensor(const torch::Tensor& input, const torch::Tensor& rois)>;

// Each of them with 2 x 2 bins, over the channels that it needs for 3 of its own.
struct Case {
  const char* name;
  int64_t channels;
  Pool pool;
};

std::vector<Case> cases() {
  return {{"roi_pool", 3,
           [](const auto& x, const auto& rois) {
             return std::get<0>(tilewright::roi_pool(x, rois, 1.0, 2, 2));
           }},
          {"ps_roi_pool", 12,
           [](const auto& x, const auto& rois) {
             return std::get<0>(tilewright::ps_roi_pool(x, rois, 1.0, 2, 2));
           }},
          {"ps_roi_align", 12, [](const auto& x, const auto& rois) {
             return std::get<0>(tilewright::ps_roi_align(x, rois, 1.0, 2, 2, 2));
           }}};
}

TEST(RoiPool, TakesTheGreatestPixelOfEachBin) {
  const auto x = torch::arange(16, torch::kFloat).view({1, 1, 4, 4});
  const auto rois = torch::tensor({{0.f, 0.f, 0.f, 3.f, 3.f}});
  const auto [out, argmax] = tilewright::roi_pool(x, rois, 1.0, 2, 2);
  EXPECT_TRUE(torch::equal(out.flatten(), torch::tensor({5.f, 7.f, 13.f, 15.f})));
  EXPECT_TRUE(torch::equal(argmax.flatten(), torch::tensor({5, 7, 13, 15}, torch::kInt)));
}

TEST(PsRoiPool, EveryBinHasItsOwnChannel) {
  const auto x = torch::arange(8, torch::kFloat).view({1, 8, 1, 1}).expand({1, 8, 6, 6});
  const auto rois = torch::tensor({{0.f, 0.f, 0.f, 4.f, 4.f}});
  const auto expected = torch::arange(8, torch::kFloat).view({1, 2, 2, 2});
  const auto [pooled, mapping] = tilewright::ps_roi_pool(x, rois, 1.0, 2, 2);
  EXPECT_TRUE(torch::allclose(pooled, expected)) << pooled;
  EXPECT_TRUE(torch::equal(mapping, expected.to(torch::kInt)));
  const auto [aligned, same] = tilewright::ps_roi_align(x, rois, 1.0, 2, 2);
  EXPECT_TRUE(torch::allclose(aligned, expected)) << aligned;
  EXPECT_TRUE(torch::equal(mapping, same));
}

TEST(RoiPooling, GradientsAreThoseOfFiniteDifferences) {
  torch::manual_seed(0);
  const auto rois = torch::tensor({{0.0, 0.3, 1.1, 5.9, 4.7}}, torch::kDouble);
  for (const Case& one : cases()) {
    auto input = torch::randn({1, one.channels, 6, 7}, torch::kDouble).requires_grad_();
    const auto weights = torch::randn({1, 3, 2, 2}, torch::kDouble);
    const auto loss = [&](const torch::Tensor& x) { return (one.pool(x, rois) * weights).sum(); };
    loss(input).backward();
    ASSERT_TRUE(input.grad().defined()) << one.name << ": autograd is not registered in C++";
    torch::NoGradGuard no_grad;
    const double step = 1e-6;
    for (int64_t i = 0; i < input.numel(); i += 5) {
      auto up = input.detach().clone(), down = input.detach().clone();
      up.view({-1})[i] += step;
      down.view({-1})[i] -= step;
      const double slope = ((loss(up) - loss(down)) / (2 * step)).item<double>();
      EXPECT_NEAR(input.grad().view({-1})[i].item<double>(), slope, 1e-7) << one.name;
    }
  }
}

TEST(RoiPooling, TrainsAConvolution) {
  const auto rois = torch::tensor({{0.f, 1.f, 1.f, 9.f, 9.f}, {1.f, 4.f, 2.f, 14.f, 12.f}});
  const auto target = torch::tensor({{1.f}, {-1.f}});
  for (const Case& one : cases()) {
    torch::manual_seed(0);
    const auto images = torch::randn({2, 3, 16, 16});
    torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, one.channels, 3).padding(1));
    torch::nn::Linear linear(3 * 2 * 2, 1);
    std::vector<torch::Tensor> parameters = conv->parameters();
    for (const auto& p : linear->parameters()) parameters.push_back(p);
    torch::optim::SGD optimizer(parameters, 0.02);
    double first = 0, last = 0;
    for (int step = 0; step < 100; ++step) {
      optimizer.zero_grad();
      const auto pooled = one.pool(conv->forward(images), rois);
      const auto loss = torch::mse_loss(linear->forward(pooled.flatten(1)), target);
      loss.backward();
      ASSERT_TRUE(conv->weight.grad().defined()) << one.name;
      optimizer.step();
      (step == 0 ? first : last) = loss.item<double>();
    }
    EXPECT_LT(last, 0.1 * first) << one.name;
  }
}

TEST(RoiPooling, HaveASecondDerivative) {
  const auto rois = torch::tensor({{0.f, 0.f, 0.f, 4.f, 4.f}});
  for (const Case& one : cases()) {
    auto input = torch::randn({1, one.channels, 6, 6}).requires_grad_();
    const auto loss = one.pool(input, rois).pow(3).sum();
    torch::autograd::grad({loss}, {input}, {}, true, true)[0].pow(2).sum().backward();
    EXPECT_GT(input.grad().abs().sum().item<double>(), 0) << one.name;
  }
}

TEST(RoiPooling, ErrorsSayWhatWasExpected) {
  const auto rois = torch::tensor({{0.f, 0.f, 0.f, 4.f, 4.f}});
  try {
    tilewright::ps_roi_pool(torch::zeros({1, 6, 4, 4}), rois, 1.0, 2, 2);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("tilewright::ps_roi_pool: input must have a multiple of pooled_height * "
                        "pooled_width (2 * 2) channels, got 6"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
