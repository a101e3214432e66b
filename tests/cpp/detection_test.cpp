// The pooling ops and NMS as C++ programs use them: values, gradients through autograd, a training
// loop, TorchScript, errors.
#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/torch.h>

#include "tilewright/core/version.h"
#include "tilewright/detection/multiscale_roi_align.h"
#include "tilewright/detection/nms.h"
#include "tilewright/detection/roi_align.h"

namespace {

torch::Tensor one_box(std::vector<double> corners) {
  corners.insert(corners.begin(), 0.0);
  return torch::tensor(corners, torch::kDouble).unsqueeze(0);
}

// A linear image: its bilinear samples are the plane itself, so every bin is the plane at its
// centre.
torch::Tensor plane(int64_t height, int64_t width) {
  const auto y = torch::arange(height, torch::kDouble).view({1, 1, height, 1});
  const auto x = torch::arange(width, torch::kDouble).view({1, 1, 1, width});
  return 10 * y + x;
}

TEST(RoiAlign, ReproducesAPlane) {
  const auto out =
      tilewright::roi_align(plane(16, 16), one_box({2, 4, 10, 8}), 1.0, 2, 2, 2, false);
  const auto expected = torch::tensor({54.0, 58.0, 74.0, 78.0}, torch::kDouble).view({1, 1, 2, 2});
  EXPECT_TRUE(torch::allclose(out, expected)) << out;
}

TEST(RoiAlign, GradientIsThatOfFiniteDifferences) {
  torch::manual_seed(0);
  auto input = torch::randn({1, 2, 6, 7}, torch::kDouble).requires_grad_();
  const auto rois = one_box({0.3, 1.1, 5.9, 4.7});
  const auto weights = torch::randn({1, 2, 3, 2}, torch::kDouble);
  const auto loss = [&](const torch::Tensor& x) {
    return (tilewright::roi_align(x, rois, 1.0, 3, 2, 2, true) * weights).sum();
  };
  loss(input).backward();
  ASSERT_TRUE(input.grad().defined()) << "no gradient: autograd is not registered in C++";
  torch::NoGradGuard no_grad;
  const double step = 1e-6;
  for (int64_t i = 0; i < input.numel(); ++i) {
    auto up = input.detach().clone(), down = input.detach().clone();
    up.view({-1})[i] += step;
    down.view({-1})[i] -= step;
    const double slope = ((loss(up) - loss(down)) / (2 * step)).item<double>();
    EXPECT_NEAR(input.grad().view({-1})[i].item<double>(), slope, 1e-7);
  }
}

TEST(RoiAlign, TrainsAConvolution) {
  torch::manual_seed(0);
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 4, 3).padding(1));
  torch::nn::Linear linear(4 * 2 * 2, 1);
  std::vector<torch::Tensor> parameters = conv->parameters();
  for (const auto& p : linear->parameters()) parameters.push_back(p);
  torch::optim::SGD optimizer(parameters, 0.05);
  const auto images = torch::randn({2, 3, 16, 16});
  const auto rois = torch::tensor({{0.f, 1.f, 1.f, 9.f, 9.f}, {1.f, 4.f, 2.f, 15.f, 12.f}});
  const auto target = torch::tensor({{1.f}, {-1.f}});
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    optimizer.zero_grad();
    const auto pooled = tilewright::roi_align(conv->forward(images), rois, 1.0, 2, 2);
    const auto loss = torch::mse_loss(linear->forward(pooled.flatten(1)), target);
    loss.backward();
    optimizer.step();
    (step == 0 ? first : last) = loss.item<double>();
  }
  EXPECT_LT(last, 0.05 * first);
}

TEST(RoiAlign, HasASecondDerivative) {
  auto input = torch::randn({1, 1, 5, 5}, torch::kDouble).requires_grad_();
  const auto out = tilewright::roi_align(input, one_box({0, 0, 4, 4}), 1.0, 2, 2, 2);
  const auto grad = torch::autograd::grad({out.pow(3).sum()}, {input}, {}, true, true)[0];
  grad.pow(2).sum().backward();
  EXPECT_GT(input.grad().abs().sum().item<double>(), 0);
}

TEST(MultiscaleRoiAlign, GivesEveryLevelItsGradient) {
  std::vector<torch::Tensor> maps;
  for (int64_t side : {32, 16}) maps.push_back(torch::randn({1, 3, side, side}).requires_grad_());
  const auto rois = torch::tensor({{0.f, 1.f, 1.f, 9.f, 9.f}, {0.f, 0.f, 0.f, 30.f, 30.f}});
  const auto out = tilewright::multiscale_roi_align(maps, rois, {1.0, 0.5}, 2, 2, 2, false, 16, 1);
  out.sum().backward();
  for (const auto& map : maps) {
    ASSERT_TRUE(map.grad().defined());
    EXPECT_NEAR(map.grad().sum().item<double>(), 3 * 4, 1e-3);  // one box each, weights sum to 1
  }
}

TEST(Nms, KeepsTheBestOfEachHeap) {
  const auto boxes =
      torch::tensor({{0.f, 0.f, 10.f, 10.f}, {1.f, 1.f, 10.f, 10.f}, {20.f, 20.f, 30.f, 30.f}});
  const auto scores = torch::tensor({0.5f, 0.9f, 0.7f});
  EXPECT_TRUE(torch::equal(tilewright::nms(boxes, scores, 0.5), torch::tensor({1, 2})));
  const auto classes = torch::tensor({0, 1, 0});
  EXPECT_TRUE(
      torch::equal(tilewright::batched_nms(boxes, scores, classes, 0.5), torch::tensor({1, 2, 0})));
}

// A TorchScript graph as a file holds it; a whole scripted detector is loaded by
// examples/cpp_detector.
TEST(TorchScript, CallsTheOperators) {
  auto graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR(R"IR(
    graph(%x : Tensor, %rois : Tensor):
      %scale : float = prim::Constant[value=1.]()
      %two : int = prim::Constant[value=2]()
      %aligned : bool = prim::Constant[value=0]()
      %y : Tensor = tilewright::roi_align(%x, %rois, %scale, %two, %two, %two, %aligned)
      return (%y))IR",
                      graph.get());
  torch::jit::GraphExecutor executor(graph, "pool");
  const auto x = plane(8, 8).to(torch::kFloat);
  const auto rois = torch::tensor({{0.f, 1.f, 1.f, 6.f, 6.f}});
  torch::jit::Stack stack{x, rois};
  executor.run(stack);
  EXPECT_TRUE(torch::equal(stack.back().toTensor(), tilewright::roi_align(x, rois, 1.0, 2, 2, 2)));
}

TEST(Errors, SayWhatWasExpected) {
  try {
    tilewright::roi_align(torch::zeros({1, 1, 4, 4}), torch::zeros({3, 4}), 1.0, 2, 2);
    FAIL() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("tilewright::roi_align: rois must have shape (K, 5), got (3, 4)"),
              std::string::npos)
        << error.what();
  }
}

TEST(Version, IsKnown) {
  EXPECT_EQ(std::string(tilewright::built_torch_version()).substr(0, 4),
            std::string(TORCH_VERSION).substr(0, 4));
  EXPECT_FALSE(tilewright::cpu_instruction_set().empty());
}

}  // namespace
