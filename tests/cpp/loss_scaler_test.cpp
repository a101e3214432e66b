// The loss scaler in programs without Python: steps, what is left out, files, fused optimizers, and
// Faster R-CNN trained in bfloat16 and with gradients of float16.
#include "tilewright/amp/loss_scaler.h"

#include <torch/torch.h>

#include <cmath>
#include <sstream>

#include "scaled_steps.h"
#include "small_detector.h"
#include "support.h"
#include "tilewright/amp/autocast_guard.h"
#include "tilewright/amp/fused_optimizers.h"

namespace {

using tilewright::AutocastGuard;
using tilewright::FusedAdamW;
using tilewright::FusedSGD;
using tilewright::LossScaleError;
using tilewright::LossScaler;

TEST(LossScaler, StepsAreThoseWithoutOne) {
  Net scaled, plain;
  torch::optim::SGD first(scaled.model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::optim::SGD second(plain.model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  LossScaler scaler({.init_scale = 1024, .growth_interval = 2});
  for (int64_t step = 0; step < 6; ++step) {
    scaled_step(scaler, scaled, first, step);
    plain_step(plain, second, step);
  }
  expect_same(scaled.values(), plain.values());
  EXPECT_EQ(scaler.get_scale(), 8192);
}

TEST(LossScaler, LeavesOutStepsOfInf) {
  for (const bool fused : {false, true}) {
    Net net;
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    const auto options = torch::optim::AdamWOptions(0.1);
    if (fused) {
      optimizer = std::make_unique<FusedAdamW>(net.model->parameters(), options);
    } else {
      optimizer = std::make_unique<torch::optim::AdamW>(net.model->parameters(), options);
    }
    LossScaler scaler({.init_scale = 8});
    scaled_step(scaler, net, *optimizer);
    const auto before = net.values();
    scaled_step(scaler, net, *optimizer, 1, kOverflow);
    scaled_step(scaler, net, *optimizer, 1, std::nan(""));
    expect_same(before, net.values());
    EXPECT_EQ(scaler.get_scale(), 2);
    scaled_step(scaler, net, *optimizer, 2);
    EXPECT_FALSE(before[0].equal(net.values()[0]));
  }
}

TEST(LossScaler, SaysWhatIsStillInfiniteAtTheFloor) {
  Net net;
  torch::optim::SGD optimizer(net.model->parameters(), 0.1);
  FusedSGD fused(net.model->parameters(), 0.1);
  LossScaler scaler;
  const auto before = net.values();
  int raised = 0;
  std::string message;
  for (int64_t step = 0; step < 200; ++step) {
    try {
      scaled_step(scaler, net, optimizer, step, kOverflow);
    } catch (const LossScaleError& error) {
      message = error.what();
      ++raised;
      scaler.update();
    }
  }
  EXPECT_EQ(raised, 200 - 16 - 126);
  EXPECT_NE(message.find("parameter 0 of param_groups()[0], of shape (8, 6)"), std::string::npos)
      << message;
  scaled_step(scaler, net, fused, 0, kOverflow);  // says nothing, until it is asked
  EXPECT_THROW(scaler.get_scale(), LossScaleError);
  EXPECT_EQ(scaler.get_scale(), 0x1p-126);
  expect_same(before, net.values());
  scaled_step(scaler, net, optimizer);
  for (const auto& value : net.values()) EXPECT_TRUE(value.isfinite().all().item<bool>());
}

TEST(LossScaler, ClipsAsTorchDoes) {
  for (const bool fused : {false, true}) {
    Net scaled, plain;
    torch::optim::SGD second(plain.model->parameters(), 0.1);
    std::unique_ptr<torch::optim::Optimizer> first;
    if (fused) {
      first = std::make_unique<FusedSGD>(scaled.model->parameters(), 0.1);
    } else {
      first = std::make_unique<torch::optim::SGD>(scaled.model->parameters(), 0.1);
    }
    LossScaler scaler({.init_scale = 512});
    scaler.scale(scaled.loss()).backward();
    const auto norm = scaler.unscale_and_clip_(*first, 0.01);
    scaler.step(*first);
    scaler.update();
    plain.loss().backward();
    const double expected = torch::nn::utils::clip_grad_norm_(plain.model->parameters(), 0.01);
    second.step();
    EXPECT_NEAR(norm.item<double>(), expected, 1e-6 * expected);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_TRUE(scaled.values()[i].allclose(plain.values()[i], 1e-6, 1e-8));
    }
  }
}

TEST(LossScaler, UndoesStepsOfClosures) {
  Net scaled, plain;
  torch::optim::LBFGS first(scaled.model->parameters(), 0.1);
  torch::optim::LBFGS second(plain.model->parameters(), 0.1);
  LossScaler scaler({.init_scale = 64});
  int calls = 0, bad_from = 1000;
  const auto closure = [&] {
    first.zero_grad();
    const auto loss = scaled.loss(0, calls++ >= bad_from ? kOverflow : 1);
    scaler.scale(loss).backward();
    return loss;
  };
  const auto plainly = [&] {
    second.zero_grad();
    const auto loss = plain.loss();
    loss.backward();
    return loss;
  };
  EXPECT_TRUE(scaler.step(first, closure).defined());
  scaler.update();
  second.step(plainly);
  expect_same(scaled.values(), plain.values());
  bad_from = calls + 3;
  EXPECT_FALSE(scaler.step(first, closure).defined());
  EXPECT_EQ(calls, bad_from + 1);
  scaler.update();
  expect_same(scaled.values(), plain.values());
  bad_from = 1000;
  scaler.step(first, closure);
  scaler.update();
  second.step(plainly);
  expect_same(scaled.values(), plain.values());
  EXPECT_EQ(scaler.get_scale(), 32);
}

TEST(LossScaler, GoesThroughFilesInTheMiddleOfGrowth) {
  Net net;
  torch::optim::SGD optimizer(net.model->parameters(), 0.0);
  LossScaler scaler({.init_scale = 128, .growth_interval = 3});
  for (int64_t step = 0; step < 2; ++step) scaled_step(scaler, net, optimizer, step);
  std::stringstream file;
  torch::serialize::OutputArchive written;
  scaler.save(written);
  written.save_to(file);
  torch::serialize::InputArchive read;
  read.load_from(file);
  LossScaler loaded({.growth_interval = 3});
  loaded.load(read);
  EXPECT_EQ(loaded.get_scale(), 128);
  scaled_step(loaded, net, optimizer);
  EXPECT_EQ(loaded.get_scale(), 256);
}

TEST(LossScaler, SharesWhatRanksFind) {
  Net net;
  torch::optim::SGD optimizer(net.model->parameters(), 0.1);
  LossScaler scaler({.init_scale = 4}, [](at::Tensor found_inf) { found_inf.fill_(1); });
  const auto before = net.values();
  scaled_step(scaler, net, optimizer);
  expect_same(before, net.values());
  EXPECT_EQ(scaler.get_scale(), 2);
}

TEST(LossScaler, SaysWhatComesOutOfOrder) {
  Net net;
  torch::optim::SGD optimizer(net.model->parameters(), 0.1);
  EXPECT_MESSAGE(LossScaler({.growth_factor = 1}),
                 "growth_factor must be finite and above 1, got 1");
  EXPECT_MESSAGE(LossScaler({.hysteresis = 0}), "hysteresis must lie in [1, 2^31), got 0");
  LossScaler scaler;
  net.loss().backward();
  EXPECT_MESSAGE(scaler.step(optimizer), "gradients come after a scaled loss");
  scaler.scale(net.loss()).backward();
  EXPECT_MESSAGE(scaler.update(), "no gradient has been looked at since the last update()");
  scaler.unscale_(optimizer);
  EXPECT_MESSAGE(scaler.unscale_(optimizer), "has already been called on this optimizer");
  scaler.step(optimizer);
  EXPECT_MESSAGE(scaler.step(optimizer), "step() has already been called");
  EXPECT_MESSAGE(scaler.unscale_(optimizer), "unscale_() is being called after step()");
}

TEST(AutocastGuard, NestsAndEnds) {
  const auto a = torch::ones({2, 2});
  {
    const AutocastGuard autocast(at::kCPU);
    EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kBFloat16);
    {
      const AutocastGuard off(at::kCPU, at::kBFloat16, false);
      EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kFloat);
    }
    {
      const AutocastGuard half(at::kCPU, at::kHalf);
      EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kHalf);
    }
    EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kBFloat16);
  }
  EXPECT_EQ(torch::mm(a, a).scalar_type(), at::kFloat);
  EXPECT_MESSAGE(AutocastGuard(at::kCPU, at::kDouble), "must be bfloat16 or float16, got Double");
}

// The losses of some steps under a guard, with a scaled loss.
std::vector<double> learn_in(at::ScalarType dtype, tilewright::FasterRCNN model, double lr,
                             double* scale) {
  FusedSGD optimizer(model->parameters(), lr);
  LossScaler scaler({.growth_interval = 4});
  const auto [images, targets] = scene();
  std::vector<double> history;
  for (int step = 0; step < 10; ++step) {
    torch::manual_seed(1);
    optimizer.zero_grad();
    torch::Tensor loss;
    {
      const AutocastGuard autocast(at::kCPU, dtype);
      loss = model(images, targets).total_loss();
    }
    scaler.scale(loss).backward();
    scaler.unscale_and_clip_(optimizer, 100);
    scaler.step(optimizer);
    scaler.update();
    history.push_back(loss.item<double>());
  }
  *scale = scaler.get_scale();
  return history;
}

TEST(LossScaler, TrainsADetectorInBfloat16) {
  torch::manual_seed(0);
  double scale = 0;
  const auto losses =
      learn_in(at::kBFloat16, tilewright::FasterRCNN(small_options()), 0.005, &scale);
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  EXPECT_EQ(scale, 65536.0 * 4);  // it has float32's range
}

// With one convolution: CPUs are slow in those of float16.
TEST(LossScaler, TrainsADetectorWithGradientsOfFloat16) {
  const auto learned = [](at::ScalarType dtype, double* scale) {
    torch::manual_seed(0);
    return learn_in(dtype,
                    tilewright::FasterRCNN(std::make_shared<SingleMap>(),
                                           small_options().anchor_sizes({{16, 32}})),
                    0.05, scale);
  };
  double scale = 0;
  const auto losses = learned(at::kHalf, &scale), wide = learned(at::kBFloat16, &scale);
  EXPECT_LT(losses.back(), 0.9 * losses.front());
  EXPECT_NEAR(losses.front(), wide.front(), 0.01 * wide.front());
}

// GradScaler refuses these.
TEST(LossScaler, TrainsParametersOfFloat16) {
  for (const bool fused : {false, true}) {
    torch::manual_seed(0);
    const auto weight = torch::randn({16, 4}).to(torch::kHalf).requires_grad_();
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    if (fused) {
      optimizer = std::make_unique<FusedSGD>(std::vector<torch::Tensor>{weight}, 1.0);
    } else {
      optimizer = std::make_unique<torch::optim::SGD>(std::vector<torch::Tensor>{weight}, 1.0);
    }
    LossScaler scaler({.init_scale = 0x1p30});
    const auto x = torch::randn({32, 16}).to(torch::kHalf);
    std::vector<double> history;
    for (int step = 0; step < 40; ++step) {
      optimizer->zero_grad();
      const auto loss = x.mm(weight).to(torch::kFloat).square().mean();
      scaler.scale(loss).backward();
      EXPECT_EQ(weight.grad().scalar_type(), torch::kHalf);
      scaler.step(*optimizer);
      scaler.update();
      history.push_back(loss.item<double>());
    }
    EXPECT_EQ(history[1], history[0]);  // 2^30 is too much for float16
    EXPECT_LT(scaler.get_scale(), 0x1p20);
    EXPECT_LT(history.back(), 0.8 * history.front());
  }
}

}  // namespace
