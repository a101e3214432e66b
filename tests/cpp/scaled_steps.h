// A small network and its steps with a loss scaler, and without.
#pragma once
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <limits>
#include <vector>

#include "tilewright/amp/loss_scaler.h"

inline constexpr double kOverflow = std::numeric_limits<double>::infinity();

struct Net {
  Net() {
    torch::manual_seed(1);
    model =
        torch::nn::Sequential(torch::nn::Linear(6, 8), torch::nn::Tanh(), torch::nn::Linear(8, 2));
  }
  torch::Tensor loss(int64_t step = 0, double factor = 1) {
    torch::manual_seed(uint64_t(100 + step));
    return model->forward(torch::randn({5, 6})).square().mean() * factor;
  }
  std::vector<torch::Tensor> values() const {
    std::vector<torch::Tensor> copies;
    for (const auto& p : model->parameters()) copies.push_back(p.detach().clone());
    return copies;
  }
  torch::nn::Sequential model;
};

inline void expect_same(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].equal(b[i])) << i;
}

inline void scaled_step(tilewright::LossScaler& scaler, Net& net,
                        torch::optim::Optimizer& optimizer, int64_t step = 0, double factor = 1) {
  optimizer.zero_grad();
  scaler.scale(net.loss(step, factor)).backward();
  scaler.step(optimizer);
  scaler.update();
}
inline void plain_step(Net& net, torch::optim::Optimizer& optimizer, int64_t step = 0) {
  optimizer.zero_grad();
  net.loss(step).backward();
  optimizer.step();
}
