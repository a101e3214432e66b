// Gradient boosting in a program without Python: fit, predict, what stops, what is refused.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>
#include <fstream>

#include "support.h"
#include "tilewright/trees/booster.h"
#include "tilewright/trees/predict_trees.h"

namespace {

using tilewright::trees::Booster;
using tilewright::trees::BoosterOptions;

struct Table {
  torch::Tensor x, y;
};

Table table(int64_t rows) {
  torch::manual_seed(0);
  const auto x = torch::randn({rows, 6});
  return {x, x.select(1, 0) * x.select(1, 1) + torch::sin(3 * x.select(1, 2))};
}

TEST(Booster, LearnsARegression) {
  const Table t = table(4000);
  BoosterOptions options;
  options.n_estimators = 50;
  Booster booster(options);
  booster.fit(t.x.slice(0, 0, 2000), t.y.slice(0, 0, 2000));
  const auto rest = t.x.slice(0, 2000), truth = t.y.slice(0, 2000);
  const auto error = (booster.predict(rest).select(1, 0) - truth).square().mean().item<double>();
  EXPECT_LT(error, 0.3 * truth.var().item<double>());
  const auto& a = booster.arrays();
  const auto raw =
      tilewright::predict_trees(rest, a.feature, a.threshold, a.left, a.right, a.default_left,
                                a.value, a.tree_ptr, a.tree_output, a.num_outputs);
  EXPECT_TRUE(torch::equal(raw + booster.base_score(), booster.scores(rest)));
}

TEST(Booster, LearnsClassesAndStopsEarly) {
  const Table t = table(3000);
  BoosterOptions options;
  options.objective = "softmax";
  options.num_class = 3;
  options.n_estimators = 200;
  options.learning_rate = 0.5;
  options.early_stopping_rounds = 3;
  Booster booster(options);
  const auto classes = (t.y > -0.5).to(torch::kLong) + (t.y > 0.5).to(torch::kLong);
  int64_t rounds = 0;
  booster.fit(t.x.slice(0, 0, 2000), classes.slice(0, 0, 2000), {}, t.x.slice(0, 2000),
              classes.slice(0, 2000), [&](int64_t round, const torch::Tensor& scores) {
                EXPECT_EQ(scores.sizes(), (std::vector<int64_t>{3, 1000}));
                rounds = round + 1;
                return false;
              });
  EXPECT_LT(rounds, 200);
  EXPECT_EQ(int64_t(booster.metrics().size()), rounds);
  EXPECT_EQ(booster.arrays().tree_output.numel(), 3 * (booster.best_round() + 1));
  const auto probability = booster.predict(t.x.slice(0, 2000));
  EXPECT_TRUE(torch::allclose(probability.sum(1), torch::ones(1000)));
  const auto hits = probability.argmax(1).eq(classes.slice(0, 2000));
  EXPECT_GT(hits.to(torch::kDouble).mean().item<double>(), 0.7);
}

TEST(Booster, SplitsBetweenAnyTwoValues) {
  // 400 values in 2 bins, of which one alone is different.
  const auto x = torch::arange(400, torch::kFloat).unsqueeze(1);
  const auto y = x.select(1, 0).eq(123).to(torch::kFloat);
  BoosterOptions options;
  options.n_estimators = 1;
  options.learning_rate = 1;
  options.max_bin = 2;
  options.tree.max_depth = 2;
  options.tree.rules.lambda = 0;
  options.tree_method = "exact";
  Booster booster(options);
  booster.fit(x, y);
  EXPECT_TRUE(torch::allclose(booster.predict(x).select(1, 0), y, 0, 1e-6));
  const auto split = booster.arrays().left.ge(0);
  const auto thresholds = std::get<0>(booster.arrays().threshold.index({split}).sort());
  EXPECT_TRUE(torch::equal(thresholds, torch::tensor({122.5f, 123.5f})));
  options.tree_method = "sketch";
  EXPECT_MESSAGE(Booster{options}, "tree_method must be hist or exact, got sketch");
}

TEST(Booster, SavesAndLoads) {
  const Table t = table(500);
  Booster booster{BoosterOptions()};
  booster.fit(t.x, t.y.abs());
  const std::string path = testing::TempDir() + "tilewright_trees.pt";
  booster.ensemble()->save(path);
  const auto loaded = tilewright::TreeEnsemble::load(path);
  EXPECT_TRUE(torch::equal(loaded->predict(t.x), booster.predict(t.x)));
  std::ofstream(path, std::ios::trunc) << "no pickle";
  EXPECT_MESSAGE(tilewright::TreeEnsemble::load(path), "is no model of tilewright's");
  std::remove(path.c_str());
  EXPECT_MESSAGE(tilewright::TreeEnsemble::load(path), "cannot read");
}

TEST(Booster, TakesALossOfTheCallers) {
  const Table t = table(2000);
  BoosterOptions options;
  options.n_estimators = 60;
  const auto loss = [](const torch::Tensor& scores, const torch::Tensor& y) {
    return torch::log(torch::cosh(scores - y));
  };
  Booster booster(options, std::make_shared<tilewright::trees::CustomObjective>(loss, 1));
  booster.fit(t.x, t.y);
  const auto error = (booster.predict(t.x).select(1, 0) - t.y).abs().mean().item<double>();
  EXPECT_LT(error, 0.4 * (t.y - t.y.median()).abs().mean().item<double>());
}

TEST(Booster, NamesWhatIsWrong) {
  BoosterOptions options;
  options.objective = "hinge";
  EXPECT_MESSAGE(Booster{options}, "objective must be squared_error");
  Booster booster{BoosterOptions()};
  EXPECT_MESSAGE(booster.predict(torch::zeros({2, 3})), "the model has not been fitted");
  EXPECT_MESSAGE(booster.fit(torch::zeros({3, 2}), torch::zeros({2})), "y must have shape (3,)");
  EXPECT_MESSAGE(booster.fit(torch::zeros({3, 2}), torch::zeros({3}), {}, torch::zeros({3, 2})),
                 "an evaluation set is x and y");
  BoosterOptions impatient;
  impatient.early_stopping_rounds = 2;
  EXPECT_MESSAGE(Booster(impatient).fit(torch::zeros({3, 2}), torch::zeros({3})),
                 "early_stopping_rounds needs an evaluation set");
}

TEST(Booster, AFitThatFailsLeavesTheModelBefore) {
  const Table t = table(300);
  Booster booster{BoosterOptions()};
  booster.fit(t.x, t.y);
  const auto before = booster.predict(t.x);
  const auto stop = [](int64_t round, const torch::Tensor&) -> bool {
    if (round == 1) throw std::runtime_error("stopped by the caller");
    return false;
  };
  EXPECT_THROW(booster.fit(t.x.slice(1, 0, 3), t.y + 9, {}, {}, {}, stop), std::runtime_error);
  EXPECT_TRUE(torch::equal(booster.predict(t.x), before));
}

}  // namespace
