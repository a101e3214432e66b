// Contrastive losses in a C++ program: an encoder that learns without labels, and errors.
#include <torch/torch.h>

#include "support.h"
#include "tilewright/contrastive/contrastive_losses.h"
#include "tilewright/contrastive/contrastive_lse.h"
#include "tilewright/contrastive/sampled_losses.h"

namespace {

using tilewright::contrastive_lse;

TEST(Contrastive, SumsAreThoseOfAllScores) {
  torch::manual_seed(0);
  const auto query = torch::randn({70, 9}, torch::requires_grad()), key = torch::randn({300, 9});
  const auto scores = torch::matmul(query, key.t()) * 0.5;
  EXPECT_TRUE(contrastive_lse(query, key, {}, 0.5).allclose(scores.logsumexp(1), 1e-5, 1e-6));
  const auto [rows, columns] = tilewright::contrastive_lse_both(query, key, 0.5);
  EXPECT_TRUE(columns.allclose(scores.logsumexp(0), 1e-5, 1e-6));
  const auto weight = torch::randn({300});
  const auto found = torch::autograd::grad({(columns * weight).sum()}, {query})[0];
  const auto expected = torch::autograd::grad({(scores.logsumexp(0) * weight).sum()}, {query})[0];
  EXPECT_TRUE(found.allclose(expected, 1e-4, 1e-5));
}

// Two noisy views of each example find each other again through a linear layer.
TEST(Contrastive, AnEncoderLearnsWithoutLabels) {
  torch::manual_seed(0);
  const auto signal = torch::randn({96, 4});
  torch::nn::Linear encoder(12, 8);
  torch::optim::Adam optimizer(encoder->parameters(), torch::optim::AdamOptions(0.02));
  const auto view = [&] { return encoder(torch::cat({signal, 3 * torch::randn({96, 8})}, 1)); };
  double first = 0, last = 0;
  for (int step = 0; step < 80; ++step) {
    optimizer.zero_grad();
    const auto loss = tilewright::nt_xent(view(), view(), 0.2);
    loss.backward();
    optimizer.step();
    (step == 0 ? first : last) = loss.item<double>();
  }
  EXPECT_LT(last, 0.6 * first);
  // What it reads is the signal: noise differs from view to view.
  const auto read = encoder->weight.norm(2, 0);
  EXPECT_GT(read.slice(0, 0, 4).mean().item<double>(), 3 * read.slice(0, 4).mean().item<double>());
}

// A language model of one word before: what it learns is which word follows which.
TEST(SampledLosses, AModelOfWordsLearnsFromSamples) {
  torch::manual_seed(0);
  constexpr int64_t kWords = 50;
  const auto next = torch::randperm(kWords);
  const auto frequency = 1 / torch::arange(1, kWords + 1).to(torch::kFloat);
  const auto [threshold, alias] = tilewright::alias_table(frequency);
  const auto log_noise = (frequency / frequency.sum()).log();
  for (const bool softmax : {false, true}) {
    torch::nn::Embedding before(kWords, 16);
    const auto weight = torch::zeros({kWords, 16}, torch::requires_grad());
    const auto bias = torch::zeros({kWords}, torch::requires_grad());
    torch::optim::Adam optimizer({before->weight, weight, bias}, torch::optim::AdamOptions(0.05));
    for (int step = 0; step < 150; ++step) {
      const auto word = torch::randint(kWords, {64});
      const auto noise = tilewright::alias_sample(threshold, alias, 20);
      const auto hidden = before(word), target = next.index_select(0, word);
      const auto loss =
          softmax ? tilewright::sampled_softmax_loss(hidden, weight, target, noise, log_noise, bias)
                  : tilewright::nce_loss(hidden, weight, target, noise, log_noise, bias);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
    const auto scores = torch::addmm(bias, before->weight, weight.t());
    EXPECT_GT(scores.argmax(1).eq(next).to(torch::kFloat).mean().item<double>(), 0.9) << softmax;
  }
}

TEST(Contrastive, ErrorsSayWhatWasExpected) {
  const auto two = torch::ones({2, 3}), one = torch::ones({1, 3});
  EXPECT_MESSAGE(tilewright::nt_xent(one, one), "nt_xent: first must have at least two rows");
  EXPECT_MESSAGE(tilewright::info_nce(two, two, torch::tensor({0, 5})),
                 "positive must lie in [0, 2), the rows of key, got 0 to 5");
  EXPECT_MESSAGE(tilewright::clip_loss(two, two, 0), "temperature must be positive and finite");
  EXPECT_MESSAGE(tilewright::supervised_contrastive(two, torch::arange(2)),
                 "no example has a positive");
  EXPECT_MESSAGE(tilewright::local_global_infomax(two, two),
                 "local must have shape (N, L, D), got (2, 3)");
  EXPECT_MESSAGE(contrastive_lse(two, torch::ones({4, 2})),
                 "key must have shape (M, 3), got (4, 2)");
  EXPECT_MESSAGE(tilewright::alias_table(torch::zeros({3})), "a finite sum above 0, got 0");
  EXPECT_MESSAGE(tilewright::alias_sample(torch::ones({3}, torch::kDouble), torch::arange(2), 5),
                 "alias must have shape (3,), got (2,)");
}

}  // namespace
