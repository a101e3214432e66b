// Boosting in a program without Python: metrics, fits that go on, ranking, sparse tables, dropout.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>

#include "support.h"
#include "tilewright/trees/booster.h"
#include "tilewright/trees/linear_booster.h"

namespace {

using tilewright::trees::Booster;
using tilewright::trees::BoosterOptions;
using tilewright::trees::FitOptions;
using tilewright::trees::make_metric;
using tilewright::trees::Metric;
using tilewright::trees::start_from;
using tilewright::trees::Targets;

struct Table {
  torch::Tensor x, y;
};

Table table(int64_t rows) {
  torch::manual_seed(0);
  const auto x = torch::randn({rows, 6});
  return {x, x.select(1, 0) * x.select(1, 1) + torch::sin(3 * x.select(1, 2))};
}

BoosterOptions rounds(int64_t count) {
  BoosterOptions options;
  options.n_estimators = count;
  return options;
}

void expect_same_trees(const Booster& a, const Booster& b) {
  EXPECT_TRUE(torch::equal(a.arrays().feature, b.arrays().feature));
  EXPECT_TRUE(torch::equal(a.arrays().threshold, b.arrays().threshold));
  EXPECT_TRUE(torch::equal(a.arrays().value, b.arrays().value));
  EXPECT_TRUE(torch::equal(a.base_score(), b.base_score()));
}

TEST(Boosting, GoesOnAsIfItHadNotStopped) {
  const Table t = table(900);
  Booster once(rounds(8)), first(rounds(3)), second(rounds(5));
  once.fit(t.x, t.y);
  first.fit(t.x, t.y);
  FitOptions how;
  how.start = first.model();
  second.fit({t.x, t.y}, how);
  expect_same_trees(once, second);
  EXPECT_EQ(second.best_round(), 7);
  const std::string path = temporary("boosting.pt");
  first.ensemble()->save(path);
  how.start = start_from(*tilewright::TreeEnsemble::load(path));
  std::remove(path.c_str());
  Booster third(rounds(5));
  third.fit({t.x, t.y}, how);
  expect_same_trees(once, third);
  EXPECT_MESSAGE(third.fit({t.x.slice(1, 0, 1), t.y}, how), "node");
}

TEST(Boosting, MeasuresSeveralSetsAndStopsByTheLast) {
  const Table t = table(3000);
  BoosterOptions options = rounds(300);
  options.objective = "logistic";
  options.learning_rate = 0.5;
  options.early_stopping_rounds = 4;
  const auto labels = (t.y > 0).to(torch::kLong);
  const auto x = t.x.slice(0, 0, 1500), y = labels.slice(0, 0, 1500);
  const auto rest_x = t.x.slice(0, 1500), rest_y = labels.slice(0, 1500);
  Metric hits{"hits", true,
              [](const torch::Tensor&, const torch::Tensor& predictions, const Targets& targets) {
                return (predictions.select(1, 0) > 0.5)
                    .eq(targets.labels > 0.5)
                    .to(torch::kDouble)
                    .mean()
                    .item<double>();
              }};
  FitOptions how;
  how.evaluation = {{x, y}, {rest_x, rest_y}};
  how.metrics = {make_metric("logloss"), make_metric("error"), make_metric("auc"), hits};
  Booster booster(options);
  booster.fit({x, y}, how);
  ASSERT_EQ(booster.history().size(), 2u);
  ASSERT_EQ(booster.history()[0].size(), 4u);
  const auto& history = booster.history()[1];
  const auto best = std::max_element(history[3].begin(), history[3].end()) - history[3].begin();
  EXPECT_EQ(booster.best_round(), best);
  EXPECT_LT(history[3].size(), 300u);
  EXPECT_NEAR(history[1][best] + history[3][best], 1, 1e-12);
  EXPECT_GT(booster.history()[0][2][best], history[2][best]);
  EXPECT_MESSAGE(make_metric("hits"), "a metric must be rmse");
}

TEST(Boosting, RanksQueries) {
  const Table t = table(3000);
  BoosterOptions options = rounds(40);
  options.objective = "lambdarank";
  options.tree.max_depth = 4;
  const auto relevance = (t.y > -0.5).to(torch::kFloat) + (t.y > 0.5) + (t.y > 1);
  const auto group = torch::full({100}, 15, torch::kLong);
  FitOptions how;
  how.evaluation = {{t.x.slice(0, 1500), relevance.slice(0, 1500), {}, group}};
  Booster booster(options);
  booster.fit({t.x.slice(0, 0, 1500), relevance.slice(0, 0, 1500), {}, group}, how);
  EXPECT_EQ(booster.metric_names(), std::vector<std::string>{"ndcg@32"});
  const auto history = booster.metrics();
  EXPECT_GT(history.back(), 0.9);
  EXPECT_GT(history.back(), history.front());
  EXPECT_MESSAGE(booster.fit({t.x, relevance, {}, group}, {}), "group must add up to 3000 rows");
  Booster other(rounds(1));
  EXPECT_MESSAGE(other.fit({t.x, t.y, {}, group}, {}), "group is for ranking alone");
}

TEST(Boosting, TakesSparseTables) {
  const Table t = table(500);
  const auto x = t.x * (t.x > 0.5);
  Booster dense(rounds(5)), sparse(rounds(5));
  dense.fit(x, t.y);
  FitOptions how;
  how.evaluation = {{x.to_sparse_csr(), t.y}};
  sparse.fit({x.to_sparse_csr(), t.y}, how);
  expect_same_trees(dense, sparse);
  EXPECT_TRUE(sparse.predict(x.to_sparse_csr()).equal(dense.predict(x)));
  EXPECT_MESSAGE(sparse.predict(x.to_sparse()), "must be dense or of layout sparse_csr");
  EXPECT_LT(sparse.metrics().back(), sparse.metrics().front());
}

TEST(Boosting, DropsTreesAndRows) {
  const Table t = table(2000);
  BoosterOptions dart = rounds(40);
  dart.dart.enabled = true;
  dart.dart.rate_drop = 0.2;
  dart.learning_rate = 0.3;
  BoosterOptions goss = rounds(40);
  goss.sampling.goss = true;
  for (const BoosterOptions& options : {dart, goss}) {
    Booster booster(options);
    booster.fit(t.x.slice(0, 0, 1000), t.y.slice(0, 0, 1000));
    const auto truth = t.y.slice(0, 1000);
    const auto rest = booster.predict(t.x.slice(0, 1000)).select(1, 0) - truth;
    EXPECT_LT(rest.square().mean().item<double>(), 0.5 * truth.var().item<double>());
  }
  goss.sampling.other_rate = 0;
  EXPECT_MESSAGE(Booster{goss}, "other_rate positive");
  dart.dart.rate_drop = 2;
  EXPECT_MESSAGE(Booster{dart}, "rate_drop and skip_drop must lie in [0, 1], got 2");
}

TEST(Boosting, FitsLinearModels) {
  const Table t = table(1000);
  const auto truth = torch::tensor({1.f, -2.f, 0.f, 0.5f, 0.f, 0.f});
  BoosterOptions options = rounds(60);
  options.learning_rate = 0.5;
  options.tree.rules.lambda = 0;
  tilewright::trees::LinearBooster booster(options);
  EXPECT_MESSAGE(booster.predict(t.x), "the model has not been fitted");
  booster.fit({t.x, torch::mv(t.x, truth) + 3});
  EXPECT_TRUE(torch::allclose(booster.weight()[0], truth, 1e-3, 1e-3));
  EXPECT_TRUE(
      torch::allclose(booster.predict(t.x).select(1, 0), torch::mv(t.x, truth) + 3, 1e-2, 1e-2));
  EXPECT_MESSAGE(booster.predict(t.x.slice(1, 0, 2)), "x must have 6 features, got (1000, 2)");
  options.objective = "absolute_error";
  EXPECT_MESSAGE(tilewright::trees::LinearBooster{options}, "cannot be boosted on absolute errors");
}

}  // namespace
