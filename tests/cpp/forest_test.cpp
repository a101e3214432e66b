// Forests and AdaBoost in a program without Python: fit, predict, save, load, what is refused.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "support.h"
#include "tilewright/trees/adaboost.h"
#include "tilewright/trees/forest.h"

namespace {

using tilewright::TreeEnsemble;
using tilewright::trees::AdaBoost;
using tilewright::trees::AdaBoostOptions;
using tilewright::trees::Forest;
using tilewright::trees::ForestOptions;

struct Table {
  torch::Tensor x, y;
};

// Two features in a checkerboard; the others are noise.
Table table(int64_t rows) {
  torch::manual_seed(0);
  const auto x = torch::rand({rows, 5});
  const auto cell = (x.slice(1, 0, 2) * 3).floor().sum(1).remainder(2);
  return {x, cell.to(torch::kLong)};
}

TEST(Forest, LearnsACheckerboardAndIsSaved) {
  const Table t = table(3000);
  ForestOptions options;
  options.n_estimators = 20;
  options.tree.max_features = 3;
  Forest forest(options);
  EXPECT_THROW((void)forest.predict(t.x), c10::Error);
  int64_t done = 0;
  forest.fit(t.x.slice(0, 0, 2000), t.y.slice(0, 0, 2000), {}, [&](int64_t n) { done = n; });
  EXPECT_EQ(done, 20);
  const auto rest = t.x.slice(0, 2000);
  const auto found = forest.predict(rest);
  EXPECT_TRUE(found.sum(1).allclose(torch::ones(1000)));
  EXPECT_GT(found.argmax(1).eq(t.y.slice(0, 2000)).to(torch::kFloat).mean().item<float>(), 0.9f);
  const std::string path = temporary("forest.pt");
  forest.ensemble()->save(path);
  EXPECT_TRUE(TreeEnsemble::load(path)->predict(rest).equal(found));
  std::remove(path.c_str());

  const auto bag = forest.out_of_bag(t.x.slice(0, 0, 2000));
  EXPECT_EQ(bag.isnan().any().item<bool>(), false);
  EXPECT_TRUE(bag.sum(1).allclose(torch::ones(2000, torch::kDouble)));
  EXPECT_GT(bag.argmax(1).eq(t.y.slice(0, 0, 2000)).to(torch::kFloat).mean().item<float>(), 0.85f);
}

TEST(Forest, MeansOfSeveralValues) {
  const Table t = table(500);
  ForestOptions options;
  options.num_class = 0;
  options.tree.criterion = "squared_error";
  options.n_estimators = 1;
  options.bootstrap = false;
  Forest forest(options);
  const auto y = torch::stack({t.x.select(1, 0), 3 - t.x.select(1, 1)}, 1);
  forest.fit(t.x, y);
  // Full-grown over distinct rows: each leaf answers with its row, or rows of one bin.
  EXPECT_LT((forest.predict(t.x) - y).abs().max().item<float>(), 0.02f);
}

TEST(Forest, RefusesWhatItCannotUse) {
  const Table t = table(20);
  Forest forest{ForestOptions()};
  EXPECT_MESSAGE(forest.fit(t.x, t.y + 1), "y must be whole numbers in [0, 2)");
  EXPECT_MESSAGE(forest.fit(t.x, t.y.slice(0, 1)), "as many rows as x");
  EXPECT_MESSAGE(forest.fit(t.x, t.y, -torch::ones(20)), "not negative; that of row 0");
  EXPECT_MESSAGE(forest.fit(t.x.slice(0, 0, 0), t.y.slice(0, 0, 0)), "must not be empty");
  ForestOptions options;
  options.tree.criterion = "variance";
  EXPECT_MESSAGE((void)Forest(options),
                 "criterion must be gini, entropy or log_loss, got variance");
  options = ForestOptions();
  options.n_estimators = 0;
  EXPECT_MESSAGE((void)Forest(options), "n_estimators must be positive");
}

TEST(AdaBoost, WeightsAreThoseOfTheFormula) {
  // One stump gets one of four rows wrong: ln(3).
  const auto x = torch::tensor({{0.f}, {1.f}, {2.f}, {3.f}});
  const auto y = torch::tensor({0, 1, 0, 0});
  AdaBoostOptions options;
  options.n_estimators = 1;
  AdaBoost model(options);
  model.fit(x, y);
  ASSERT_EQ(model.estimator_weights().size(), 1u);
  EXPECT_NEAR(model.estimator_errors()[0], 0.25, 1e-12);
  EXPECT_NEAR(model.estimator_weights()[0], std::log(3.0), 1e-12);
}

TEST(AdaBoost, BothKindsAreSavedAndLoaded) {
  const Table t = table(600);
  const std::string path = temporary("adaboost.pt");
  for (const int64_t num_class : {2, 0}) {
    AdaBoostOptions options;
    options.num_class = num_class;
    options.n_estimators = 10;
    options.tree.max_depth = 3;
    AdaBoost model(options);
    const auto y = num_class > 0 ? t.y : t.x.select(1, 0) * 2;
    model.fit(t.x, y);
    const auto found = model.predict(t.x);
    EXPECT_EQ(found.size(1), num_class > 0 ? 2 : 1);
    model.save(path);
    EXPECT_TRUE(AdaBoost::load(path).predict(t.x).equal(found));
  }
  std::ofstream(path, std::ios::binary) << "no pickle";
  EXPECT_MESSAGE(AdaBoost::load(path), "is no model of tilewright's");
  std::remove(path.c_str());
}

TEST(AdaBoost, WeightedMedian) {
  using tilewright::trees::weighted_median;
  const auto answers = torch::tensor({{3.f, 1.f, 2.f}, {5.f, 6.f, 4.f}});
  const auto weights = torch::tensor({1.0, 1.0, 1.0}, torch::kDouble);
  EXPECT_TRUE(weighted_median(answers, weights).equal(torch::tensor({2.f, 5.f})));
  // 1 weighs 3 of 5, and half of that is 2.5.
  const auto heavy = torch::tensor({1.0, 3.0, 1.0}, torch::kDouble);
  EXPECT_TRUE(weighted_median(answers, heavy).equal(torch::tensor({1.f, 6.f})));
  EXPECT_MESSAGE(weighted_median(answers, weights.slice(0, 1)), "takes answers");
}

}  // namespace
