// Fused optimizers against torch::optim's, and master weights.
#include "tilewright/amp/fused_optimizers.h"

#include <torch/torch.h>

#include <sstream>

#include "scaled_steps.h"
#include "support.h"
#include "tilewright/amp/master_weights.h"

namespace {

using tilewright::FusedAdamW;
using tilewright::FusedSGD;
using tilewright::LossScaler;

template <class Fused, class Plain, class Options>
void expect_the_same_steps(const Options& options) {
  Net ours, torchs;
  Fused first(ours.model->parameters(), options);
  Plain second(torchs.model->parameters(), options);
  for (int64_t step = 0; step < 5; ++step) {
    plain_step(ours, first, step);
    plain_step(torchs, second, step);
    if (step == 2) {  // through a file
      std::stringstream file;
      torch::save(first, file);
      Fused loaded(ours.model->parameters(), options);
      torch::load(loaded, file);
      plain_step(ours, loaded, step);
      plain_step(torchs, second, step);
      // The file goes on as the optimizer did.
      torch::save(loaded, file = std::stringstream());
      torch::load(first, file);
    }
  }
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(ours.values()[i].allclose(torchs.values()[i], 1e-4, 1e-6)) << i;
  }
}

TEST(FusedOptimizers, AreTorchs) {
  using torch::optim::AdamWOptions, torch::optim::SGDOptions;
  expect_the_same_steps<FusedAdamW, torch::optim::AdamW>(AdamWOptions(0.01).weight_decay(0.1));
  expect_the_same_steps<FusedAdamW, torch::optim::AdamW>(AdamWOptions(0.01).amsgrad(true));
  expect_the_same_steps<FusedSGD, torch::optim::SGD>(SGDOptions(0.1));
  expect_the_same_steps<FusedSGD, torch::optim::SGD>(
      SGDOptions(0.1).momentum(0.9).weight_decay(0.01).nesterov(true));
}

TEST(FusedOptimizers, MoveParametersOfSixteenBits) {
  for (const auto dtype : {torch::kHalf, torch::kBFloat16}) {
    for (const double momentum : {0.0, 0.5}) {
      const auto p = torch::ones({67}, dtype).requires_grad_();
      FusedSGD optimizer({p}, torch::optim::SGDOptions(0.5).momentum(momentum));
      for (int step = 0; step < 2; ++step) {
        p.mutable_grad() = torch::full({67}, 4.0, dtype);
        optimizer.set_amp(torch::zeros({1}), torch::full({1}, 8.0));
        optimizer.step();
        EXPECT_TRUE(p.grad().eq(0.5).all().item<bool>());
      }
      EXPECT_TRUE(p.eq(1 - 0.25 * (2 + momentum)).all().item<bool>()) << p;
      optimizer.set_amp(torch::ones({1}), torch::full({1}, 8.0));
      optimizer.step();
      EXPECT_TRUE(p.eq(1 - 0.25 * (2 + momentum)).all().item<bool>());
      const auto q = torch::ones({67}, dtype).requires_grad_();
      q.mutable_grad() = torch::ones({67}, dtype);
      FusedAdamW other({q}, torch::optim::AdamWOptions(0.25).weight_decay(0));
      other.step();
      EXPECT_TRUE(q.eq(0.75).all().item<bool>());
    }
  }
}

TEST(FusedOptimizers, CountStepsThatWereDone) {
  Net ours, plain;
  FusedAdamW first(ours.model->parameters(), torch::optim::AdamWOptions(0.01));
  FusedAdamW second(plain.model->parameters(), torch::optim::AdamWOptions(0.01));
  LossScaler scaler({.init_scale = 8});
  scaled_step(scaler, ours, first, 0, kOverflow);
  for (int64_t step = 0; step < 3; ++step) {
    scaled_step(scaler, ours, first, step);
    plain_step(plain, second, step);
  }
  expect_same(ours.values(), plain.values());
}

TEST(FusedOptimizers, SayWhatTheyDoNotTake) {
  const auto table = torch::ones({4, 2}).requires_grad_();
  table.mutable_grad() = torch::ones({4, 2}).to_sparse();
  FusedSGD sgd({table}, 0.1);
  EXPECT_MESSAGE(sgd.step(), "FusedSGD: takes dense gradients, got one of layout Sparse");
  FusedSGD dampened({table}, torch::optim::SGDOptions(0.1).momentum(0.9).dampening(0.5));
  EXPECT_MESSAGE(dampened.step(), "FusedSGD: takes no dampening, got 0.5");
}

TEST(MasterWeights, LearnWhatSixteenBitsRoundAway) {
  for (const bool stochastic : {false, true}) {
    const auto weight = torch::ones({64}, torch::kBFloat16).requires_grad_();
    const auto wide = torch::ones({2}).requires_grad_();
    tilewright::MasterWeights masters({weight, wide}, {.stochastic = stochastic, .seed = 3});
    FusedSGD optimizer(masters.parameters(), 0x1p-12);
    EXPECT_TRUE(masters.parameters()[1].is_same(wide));
    std::stringstream file;
    for (int step = 0; step < 96; ++step) {
      weight.mutable_grad() = torch::ones_like(weight);
      masters.take_gradients();
      EXPECT_FALSE(weight.grad().defined());
      optimizer.step();
      optimizer.zero_grad();
      masters.give_back();
    }
    const double expected = 1 - 96 * 0x1p-12;
    EXPECT_TRUE(masters.parameters()[0].eq(expected).all().item<bool>());
    EXPECT_NEAR(weight.to(torch::kFloat).mean().item<double>(), expected, 0x1p-9);
    torch::serialize::OutputArchive written;
    masters.save(written);
    written.save_to(file);
    torch::serialize::InputArchive read;
    read.load_from(file);
    const auto other = torch::zeros({64}, torch::kBFloat16), second = torch::zeros({2});
    tilewright::MasterWeights loaded({other, second});
    loaded.load(read);
    EXPECT_TRUE(loaded.parameters()[0].eq(expected).all().item<bool>());
    EXPECT_TRUE(other.eq(at::scalar_tensor(expected, torch::kBFloat16)).all().item<bool>());
  }
  const auto one = torch::ones({2}), other = torch::ones({2});
  EXPECT_MESSAGE(tilewright::MasterWeights({one, one}), "parameter 1 is parameter 0 again");
  std::stringstream file;
  torch::serialize::OutputArchive written;
  tilewright::MasterWeights({one, other}).save(written);
  written.save_to(file);
  torch::serialize::InputArchive read;
  read.load_from(file);
  EXPECT_MESSAGE(tilewright::MasterWeights({one}).load(read),
                 "expected an archive of 1 masters, seed and rounds, got 4 entries");
  EXPECT_MESSAGE(tilewright::MasterWeights({torch::ones({2}, torch::kLong)}),
                 "parameter 0 must be floating, got Long");
}

}  // namespace
