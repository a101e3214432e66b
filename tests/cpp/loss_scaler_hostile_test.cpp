// What else can go wrong around a loss scaler: exceptions, optimizers that are gone, other ranks,
// layouts that ATen's kernels do not check.
#include <torch/torch.h>

#include <memory>

#include "scaled_steps.h"
#include "support.h"
#include "tilewright/amp/fused_optimizers.h"

namespace {

using tilewright::FusedAdamW;
using tilewright::FusedSGD;
using tilewright::LossScaleError;
using tilewright::LossScaler;
using Tensors = std::vector<torch::Tensor>;

torch::Tensor parameter_of(torch::Tensor values) { return values.detach().requires_grad_(); }

TEST(LossScalerHostile, AStepThatThrowsLeavesNothingBehind) {
  const auto dense = parameter_of(torch::ones({2})), sparse = parameter_of(torch::ones({2}));
  FusedSGD optimizer(
      {torch::optim::OptimizerParamGroup({dense}), torch::optim::OptimizerParamGroup({sparse})},
      1.0);
  LossScaler scaler({.init_scale = 4});
  scaler.scale(dense.sum() + sparse.sum()).backward();
  sparse.mutable_grad() = sparse.grad().to_sparse();
  EXPECT_MESSAGE(scaler.step(optimizer), "FusedSGD: takes dense gradients");
  EXPECT_TRUE(dense.eq(1).all().item<bool>());  // the first group neither
  sparse.mutable_grad() = torch::full({2}, 4.0);
  dense.mutable_grad() = torch::full({2}, 4.0);
  scaler.step(optimizer);  // again: the gradients are still scaled
  EXPECT_TRUE(dense.eq(0).all().item<bool>());
  scaler.update();
  dense.mutable_grad() = torch::full({2}, 3.0);
  optimizer.step();  // by itself it divides by nothing
  EXPECT_TRUE(dense.eq(-3).all().item<bool>());
}

TEST(LossScalerHostile, NamesParametersOfAnOptimizerThatIsGone) {
  LossScaler scaler({.init_scale = 1, .min_scale = 1});
  {
    const auto p = parameter_of(torch::ones({2, 3}));
    auto optimizer = std::make_unique<FusedSGD>(Tensors{p}, 1.0);
    scaler.scale((p * kOverflow).sum()).backward();
    scaler.step(*optimizer);
    scaler.update();
  }
  try {
    scaler.get_scale();
    FAIL();
  } catch (const LossScaleError& error) {
    EXPECT_NE(std::string(error.what()).find("of shape (2, 3)"), std::string::npos);
  }
}

// A floor that float32 rounds up is one that is reached.
TEST(LossScalerHostile, FloorsBetweenTwoNumbersOfFloat32) {
  const auto p = parameter_of(torch::ones({2}));
  torch::optim::SGD optimizer({p}, 1.0);
  LossScaler scaler({.init_scale = 0.1, .min_scale = 0.1, .max_scale = 0.1});
  scaler.scale((p * kOverflow).sum()).backward();
  EXPECT_THROW(scaler.step(optimizer), LossScaleError);
  scaler.update();
  scaler.update(scaler.get_scale());
  EXPECT_EQ(scaler.get_scale(), double(0.1f));
  EXPECT_MESSAGE(scaler.scale(torch::Tensor()), "the loss must be a tensor, got None");
  static_assert(!std::is_copy_constructible_v<LossScaler>);  // two would share one scale
}

TEST(LossScalerHostile, OtherRanksStopToo) {
  for (const double shared : {1.0, 2.0}) {  // a sum in place of the greatest
    const auto p = parameter_of(torch::ones({2})), q = parameter_of(torch::ones({2}));
    torch::optim::SGD plain({p}, 1.0);
    FusedAdamW fused({q});
    LossScaler scaler({.init_scale = 1, .min_scale = 1},
                      [&](at::Tensor found_inf) { found_inf.fill_(shared); });
    scaler.scale(p.sum() + q.sum()).backward();
    scaler.step(fused);
    EXPECT_THROW(scaler.step(plain), LossScaleError);
    scaler.update();
    EXPECT_THROW(scaler.get_scale(), LossScaleError);
    EXPECT_TRUE(p.eq(1).all().item<bool>() && q.eq(1).all().item<bool>());
  }
}

TEST(LossScalerHostile, AParameterOfThisRankIsNamedBesideThoseOfOthers) {
  const auto p = parameter_of(torch::ones({2, 5})), q = parameter_of(torch::ones({2}));
  FusedSGD first({p}, 1.0), second({q}, 1.0);
  LossScaler scaler({.init_scale = 1, .min_scale = 1},
                    [](at::Tensor found_inf) { found_inf.fill_(1); });
  scaler.scale((p * kOverflow).sum() + q.sum()).backward();
  scaler.step(first);
  scaler.step(second);
  scaler.update();
  try {
    scaler.get_scale();
    FAIL();
  } catch (const LossScaleError& error) {
    EXPECT_NE(std::string(error.what()).find("of shape (2, 5)"), std::string::npos) << error.what();
  }
}

TEST(LossScalerHostile, AClosureThatThrowsLocksNothing) {
  Net net;
  torch::optim::SGD optimizer(net.model->parameters(), 0.1);
  LossScaler scaler({.init_scale = 4});
  const auto broken = [&]() -> torch::Tensor {
    scaler.scale(net.loss()).backward();
    throw std::runtime_error("no data");
  };
  EXPECT_THROW(scaler.step(optimizer, broken), std::runtime_error);
  scaled_step(scaler, net, optimizer);
}

TEST(LossScalerHostile, NormsBeyondFloat32LeaveTheStepOut) {
  for (const double max_norm : {1.0, std::numeric_limits<double>::infinity()}) {
    const auto p = parameter_of(torch::ones({200}));
    FusedSGD optimizer({p}, 1.0);
    LossScaler scaler({.init_scale = 4});
    scaler.scale(p.sum());
    p.mutable_grad() = torch::full({200}, 3e38);
    scaler.unscale_and_clip_(optimizer, max_norm);
    scaler.step(optimizer);
    scaler.update();
    EXPECT_TRUE(p.eq(1).all().item<bool>());
    EXPECT_EQ(scaler.get_scale(), 2);
  }
}

TEST(LossScalerHostile, AStepWithoutGradientsIsACleanOne) {
  const auto p = parameter_of(torch::ones({2}));
  torch::optim::SGD optimizer({p}, 1.0);
  LossScaler scaler({.init_scale = 2, .growth_interval = 1});
  scaler.scale(p.sum());
  scaler.step(optimizer);
  scaler.update();
  EXPECT_EQ(scaler.get_scale(), 4);
}

TEST(FusedOptimizers, GiveGradientsTheLayoutOfTheirParameters) {
  const auto p = parameter_of(torch::zeros({2, 3}));
  const auto grad = torch::arange(6, torch::kFloat).view({3, 2}).t();
  p.mutable_grad() = grad;
  FusedSGD optimizer({p}, 1.0);
  optimizer.step();
  EXPECT_TRUE(p.equal(-grad));
  const auto gaps = parameter_of(torch::zeros({2, 6}).narrow(1, 0, 3));
  gaps.mutable_grad() = torch::ones({2, 3});
  FusedAdamW other({gaps});
  EXPECT_MESSAGE(other.step(),
                 "FusedAdamW: takes parameters without gaps in memory, got one of "
                 "shape (2, 3) and strides [6, 1]");
}

}  // namespace
