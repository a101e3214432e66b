// Densities in a C++ program: NADE that learns and completes, a TorchScript file, and errors.
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <sstream>

#include "support.h"
#include "tilewright/density/binary_log_prob.h"
#include "tilewright/density/nade.h"

namespace {

using tilewright::nade;
using tilewright::nade_sample;

struct Weights {
  torch::Tensor in, bias_in, out, bias_out;
  Weights(int64_t pixels, int64_t hidden, double spread = 0.1)
      : in(torch::randn({hidden, pixels}) * spread),
        bias_in(torch::randn({hidden}) * spread),
        out(torch::randn({pixels, hidden}) * spread),
        bias_out(torch::randn({pixels}) * spread) {
    for (auto* each : {&in, &bias_in, &out, &bias_out}) each->requires_grad_();
  }
  torch::Tensor log_prob(const torch::Tensor& x) const {
    return nade(x, in, bias_in, out, bias_out);
  }
};

TEST(Density, LikelihoodIsThatOfTheFormula) {
  torch::manual_seed(0);
  const Weights w(9, 20, 0.7);
  const auto x = (torch::rand({13, 9}) < 0.5).to(torch::kFloat);
  auto activation = w.bias_in.expand({13, 20});
  std::vector<torch::Tensor> logits;
  for (int64_t d = 0; d < 9; ++d) {
    logits.push_back(torch::mv(activation.sigmoid(), w.out[d]) + w.bias_out[d]);
    activation = activation + torch::outer(x.select(1, d), w.in.select(1, d));
  }
  const auto expected = tilewright::binary_log_prob(torch::stack(logits, 1), x);
  const auto found = w.log_prob(x);
  EXPECT_TRUE(found.allclose(expected, 1e-5, 1e-5));
  const auto grad = torch::autograd::grad({found.sum()}, {w.in, w.out});
  const auto expected_grad = torch::autograd::grad({expected.sum()}, {w.in, w.out});
  EXPECT_TRUE(grad[0].allclose(expected_grad[0], 1e-4, 1e-5));
  EXPECT_TRUE(grad[1].allclose(expected_grad[1], 1e-4, 1e-5));
}

// Rows of pixels that are equal in pairs: four coins, and what follows from them.
TEST(Density, LearnsAndCompletes) {
  torch::manual_seed(0);
  const Weights w(8, 16);
  const auto x = (torch::rand({200, 4}) < 0.5).to(torch::kFloat).repeat_interleave(2, 1);
  torch::optim::Adam optimizer({w.in, w.bias_in, w.out, w.bias_out},
                               torch::optim::AdamOptions(0.05));
  double last = 0;
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    const auto loss = -w.log_prob(x).mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
  }
  const double coin = std::log(2.0);
  EXPECT_LT(last, 4.6 * coin);
  EXPECT_GT(last, 3.5 * coin);
  const auto given = x.slice(1, 0, 7);
  const auto drawn = nade_sample(200, w.in, w.bias_in, w.out, w.bias_out, given);
  EXPECT_FALSE(drawn.requires_grad());
  EXPECT_TRUE(torch::equal(drawn.slice(1, 0, 7), given));
  EXPECT_GT(drawn.select(1, 7).eq(x.select(1, 7)).to(torch::kFloat).mean().item<double>(), 0.95);
  auto generator = at::detail::createCPUGenerator(7);
  const auto first = nade_sample(3, w.in, w.bias_in, w.out, w.bias_out, {}, generator);
  generator.set_current_seed(7);
  const auto second = nade_sample(3, w.in, w.bias_in, w.out, w.bias_out, {}, generator);
  EXPECT_TRUE(torch::equal(first, second));
}

// A module whose methods are graphs over the operators, as a scripted model's are in its file.
TEST(Density, TorchScriptFileCallsTheOperators) {
  torch::jit::Module module("density");
  const auto define = [&](const char* name, const char* text) {
    auto graph = std::make_shared<torch::jit::Graph>();
    torch::jit::parseIR(text, graph.get());
    graph->inputs()[0]->setType(module.type());
    module.type()->addMethod(module._ivalue()->compilation_unit()->create_function(
        c10::QualifiedName(*module.type()->name(), name), graph));
  };
  define("log_prob", R"IR(
    graph(%self, %x : Tensor, %w : Tensor, %c : Tensor, %v : Tensor, %b : Tensor):
      %y : Tensor = tilewright::nade(%x, %w, %c, %v, %b)
      return (%y))IR");
  define("complete", R"IR(
    graph(%self, %given : Tensor, %w : Tensor, %c : Tensor, %v : Tensor, %b : Tensor):
      %n : int = prim::Constant[value=6]()
      %none : NoneType = prim::Constant()
      %y : Tensor = tilewright::nade_sample(%n, %w, %c, %v, %b, %given, %none)
      return (%y))IR");
  std::stringstream file;
  module.save(file);
  torch::jit::Module loaded = torch::jit::load(file);
  torch::manual_seed(0);
  const Weights w(5, 4, 1.0);
  const auto x = (torch::rand({6, 5}) < 0.5).to(torch::kFloat);
  const auto call = [&](const char* name, const torch::Tensor& first) {
    return loaded.get_method(name)({first, w.in, w.bias_in, w.out, w.bias_out}).toTensor();
  };
  EXPECT_TRUE(torch::equal(call("log_prob", x), w.log_prob(x)));
  const auto given = x.slice(1, 0, 2);
  const auto drawn = call("complete", given);
  EXPECT_TRUE(torch::equal(drawn.slice(1, 0, 2), given));
  EXPECT_TRUE(drawn.eq(0).logical_or(drawn.eq(1)).all().item<bool>());
}

TEST(Density, ErrorsSayWhatWasExpected) {
  const Weights w(4, 3);
  const auto call = [&](const torch::Tensor& x) { return w.log_prob(x); };
  EXPECT_MESSAGE(call(torch::ones({4})), "nade: x must have shape (N, D), got (4,)");
  EXPECT_MESSAGE(call(torch::full({2, 4}, 0.5)), "nade: pixels must be 0 or 1, got 0.5 in x[0, 0]");
  EXPECT_MESSAGE(call(torch::ones({2, 4}, torch::requires_grad())), "x is data");
  EXPECT_MESSAGE(nade_sample(2, w.in, w.bias_in, w.out, w.bias_out, torch::ones({2, 5})),
                 "nade_sample: given must have shape (n, d) = (2, at most 4), got (2, 5)");
  EXPECT_MESSAGE(tilewright::binary_log_prob(torch::ones({2, 3}), torch::ones({3, 2})),
                 "logits and x must have one shape (..., D), got (2, 3) and (3, 2)");
}

}  // namespace
