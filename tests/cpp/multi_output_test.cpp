// Boosting of several outputs in a program without Python: labels of several columns, leaves that
// are vectors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>

#include "support.h"
#include "tilewright/trees/booster.h"
#include "tilewright/trees/linear_booster.h"

namespace {

using tilewright::trees::Booster;
using tilewright::trees::BoosterOptions;
using tilewright::trees::CustomObjective;
using tilewright::trees::FitOptions;
using tilewright::trees::LinearBooster;
using tilewright::trees::make_metric;
using tilewright::trees::start_from;

struct VectorTable {
  torch::Tensor x, y;
};

VectorTable vector_table(int64_t rows) {
  torch::manual_seed(0);
  const auto x = torch::randn({rows, 5});
  const auto wave = torch::sin(3 * x.select(1, 1)), product = x.select(1, 0) * x.select(1, 2);
  return {x, torch::stack({wave + product, wave - product, 3 * wave}, 1)};
}

BoosterOptions options(int64_t rounds, bool vectors) {
  BoosterOptions options;
  options.n_estimators = rounds;
  if (vectors) options.multi_strategy = "multi_output_tree";
  return options;
}

class MultiOutput : public testing::TestWithParam<bool> {};

TEST_P(MultiOutput, LearnsSavesAndGoesOn) {
  const VectorTable t = vector_table(800);
  Booster once(options(12, GetParam())), first(options(5, GetParam()));
  FitOptions how;
  how.evaluation.push_back({t.x, t.y});
  how.metrics.push_back(make_metric("rmse"));
  once.fit({t.x, t.y}, how);
  const auto found = once.predict(t.x);
  EXPECT_EQ(found.sizes(), t.y.sizes());
  const double rmse = (found - t.y).square().mean().sqrt().item<double>();
  EXPECT_NEAR(once.metrics().back(), rmse, 1e-5);
  EXPECT_LT(rmse, 0.7 * once.metrics().front());
  EXPECT_TRUE(torch::allclose(once.base_score(), t.y.mean(0), 1e-5, 1e-6));
  EXPECT_EQ(once.arrays().tree_output.numel(), GetParam() ? 12 : 36);
  EXPECT_EQ(once.arrays().value.dim(), GetParam() ? 2 : 1);
  EXPECT_EQ(once.best_round(), 11);
  first.fit(t.x, t.y);
  const std::string path = temporary("multi_output.pt");
  first.ensemble()->save(path);
  const auto loaded = tilewright::TreeEnsemble::load(path);
  std::remove(path.c_str());
  EXPECT_TRUE(torch::equal(loaded->predict(t.x), first.predict(t.x)));
  Booster second(options(7, GetParam()));
  FitOptions on;
  on.start = start_from(*loaded);
  second.fit({t.x, t.y}, on);
  EXPECT_TRUE(torch::equal(second.predict(t.x), found));
  EXPECT_EQ(second.best_round(), 11);
  Booster other(options(7, !GetParam()));
  EXPECT_MESSAGE(other.fit({t.x, t.y}, on), "the model to go on from must have leaves that are");
}

TEST_P(MultiOutput, TakesALossOfTwoTables) {
  const VectorTable t = vector_table(500);
  const auto loss = [](const at::Tensor& scores, const at::Tensor& y) {
    return (scores - y).square().sum(1) / 2;
  };
  Booster named(options(6, GetParam())),
      own(options(6, GetParam()), std::make_shared<CustomObjective>(loss, 3));
  named.fit(t.x, t.y);
  own.fit(t.x, t.y);
  EXPECT_TRUE(torch::allclose(named.predict(t.x), own.predict(t.x), 1e-3, 1e-3));
}

INSTANTIATE_TEST_SUITE_P(Strategies, MultiOutput, testing::Bool());

TEST(SeveralOutputs, OneRoundIsOneTreeOfAllClasses) {
  const VectorTable t = vector_table(900);
  BoosterOptions classes = options(20, true);
  classes.objective = "softmax";
  classes.num_class = 3;
  Booster booster(classes);
  const auto y = t.y.argmax(1);
  booster.fit(t.x, y);
  EXPECT_EQ(booster.arrays().tree_output.numel(), 20);
  EXPECT_EQ(booster.arrays().value.size(1), 3);
  const auto right = booster.predict(t.x).argmax(1).eq(y).to(torch::kFloat).mean();
  EXPECT_GT(right.item<float>(), 0.9);
  EXPECT_MESSAGE(booster.fit(t.x, t.y), "labels of one column, (N,), got 3 columns");
}

TEST(SeveralOutputs, LinearModelsHaveAWeightForEach) {
  const VectorTable t = vector_table(300);
  LinearBooster linear(options(30, false));
  linear.fit({t.x, t.y}, {});
  EXPECT_EQ(linear.predict(t.x).sizes(), t.y.sizes());
}

TEST(SeveralOutputs, SaysWhatIsWrong) {
  const VectorTable t = vector_table(40);
  Booster numbers(options(2, false));
  EXPECT_MESSAGE(numbers.fit(t.x, t.y.slice(0, 0, 30)), "y must have shape (40, 3), got");
  auto bad = t.y.clone();
  bad[3][1] = NAN;
  EXPECT_MESSAGE(numbers.fit(t.x, bad), "that of row 3, column 1 is nan");
  BoosterOptions wrong = options(2, true);
  wrong.tree.monotone = {1, 0, 0, 0, 0};
  EXPECT_MESSAGE(Booster(wrong).fit(t.x, t.y), "knows no monotone constraints");
  wrong.multi_strategy = "all";
  EXPECT_MESSAGE(Booster{wrong}, "must be one_output_per_tree or multi_output_tree");
}

}  // namespace
