// MultiheadAttention in a program without Python: torch's parameters, results and clones; training.
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support.h"
#include "tilewright/models/multihead_attention.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::MultiheadAttention;
using tilewright::MultiheadAttentionOptions;
using tilewright::state_dict;

// The state of LibTorch's own module, whose missing parameters are undefined.
tilewright::StateDict state_of(const torch::nn::MultiheadAttention& module) {
  tilewright::StateDict out;
  for (const auto& item : module->named_parameters()) {
    if (item.value().defined()) out.insert(item.key(), item.value().detach());
  }
  return out;
}

TEST(MultiheadAttention, GivesWhatLibTorchGives) {
  torch::manual_seed(0);
  for (const bool more : {false, true}) {
    torch::nn::MultiheadAttention theirs(torch::nn::MultiheadAttentionOptions(24, 4)
                                             .kdim(more ? 10 : 24)
                                             .vdim(more ? 10 : 24)
                                             .add_bias_kv(more)
                                             .add_zero_attn(more));
    MultiheadAttention ours(MultiheadAttentionOptions(24, 4)
                                .kdim(more ? 10 : 0)
                                .vdim(more ? 10 : 0)
                                .add_bias_kv(more)
                                .add_zero_attn(more));
    const auto state = state_of(theirs);
    EXPECT_EQ(state_dict(*ours).size(), state.size());
    tilewright::load_state_dict(*ours, state);
    const auto query = torch::randn({5, 2, 24}), key = torch::randn({6, 2, more ? 10 : 24});
    const auto value = torch::randn({6, 2, more ? 10 : 24});
    auto padding = torch::zeros({2, 6}, torch::kBool);
    padding[1].slice(0, 4).fill_(true);
    const auto [expected, expected_weights] = theirs(query, key, value, padding);
    const auto [out, weights] = ours(query, key, value, padding);
    EXPECT_TRUE(torch::allclose(out, expected, 1e-5, 1e-6));
    EXPECT_TRUE(torch::allclose(weights, expected_weights, 1e-5, 1e-6));
    const auto [lean, none] = ours(query, key, value, padding, /*need_weights=*/false);
    EXPECT_TRUE(torch::allclose(lean, expected, 1e-5, 1e-6));
    EXPECT_FALSE(none.defined());
  }
}

TEST(MultiheadAttention, ClonesAndSaves) {
  MultiheadAttention module(MultiheadAttentionOptions(16, 2).batch_first(true).dropout(0.1));
  const auto clone = std::dynamic_pointer_cast<tilewright::MultiheadAttentionImpl>(module->clone());
  ASSERT_TRUE(clone);
  module->eval();
  clone->eval();
  const auto x = torch::randn({2, 7, 16});
  const auto expected = std::get<0>(module(x, x, x, torch::Tensor(), false));
  EXPECT_TRUE(torch::equal(std::get<0>(clone->forward(x, x, x, {}, false)), expected));
  {
    torch::NoGradGuard no_grad;
    clone->in_proj_weight.zero_();
  }
  EXPECT_TRUE(torch::equal(std::get<0>(module(x, x, x, torch::Tensor(), false)), expected));
}

TEST(MultiheadAttention, TrainsUnderAutocast) {
  torch::manual_seed(0);
  MultiheadAttention module(MultiheadAttentionOptions(32, 4).batch_first(true).dropout(0.2));
  torch::optim::SGD optimizer(module->parameters(), 0.5);
  const auto x = torch::randn({2, 40, 32});
  const auto target = x.roll(1, 1);  // each row asks for the one before
  double first = 0, last = 0;
  for (int step = 0; step < 30; ++step) {
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const auto out =
        std::get<0>(module(x, x, x, torch::Tensor(), /*need_weights=*/false, torch::Tensor(), true,
                           /*is_causal=*/true));
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    EXPECT_EQ(out.scalar_type(), at::kBFloat16);
    const auto loss = (out.to(torch::kFloat) - target).square().mean();
    optimizer.zero_grad();
    loss.backward();
    for (const auto& parameter : module->parameters()) {
      ASSERT_TRUE(parameter.grad().defined() && parameter.grad().isfinite().all().item<bool>());
    }
    optimizer.step();
    (step == 0 ? first : last) = loss.item<double>();
  }
  EXPECT_LT(last, 0.97 * first);
}

TEST(MultiheadAttention, NamesWhatIsWrong) {
  EXPECT_MESSAGE(MultiheadAttention(10, 3), "embed_dim must be a positive multiple of num_heads");
  EXPECT_MESSAGE(MultiheadAttention(514, 2),
                 "embed_dim / num_heads must be at most 256, got 514 / 2");
  EXPECT_MESSAGE(MultiheadAttention(MultiheadAttentionOptions(8, 2).dropout(1.0)),
                 "dropout must lie in [0, 1), got 1");
  MultiheadAttention module(8, 2);
  const auto x = torch::randn({3, 2, 8});
  EXPECT_MESSAGE(module(x, x, x, torch::zeros({2, 4}, torch::kBool)),
                 "key_padding_mask must have shape (2, 3), got (2, 4)");
}

}  // namespace
