// Boosters, forests and ensembles in files: what is read predicts the same bits and goes on; what a
// field may not be is an error that names it.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tilewright/trees/booster.h"
#include "tilewright/trees/forest.h"
#include "tilewright/trees/linear_booster.h"
#include "tilewright/trees/model_file.h"
#include "tree_models.h"

namespace {

using tilewright::TreeEnsemble;
using tilewright::trees::Booster;
using tilewright::trees::BoosterOptions;
using tilewright::trees::CustomObjective;
using tilewright::trees::FitOptions;
using tilewright::trees::Forest;
using tilewright::trees::ForestOptions;
using tilewright::trees::LinearBooster;
using tilewright::trees::ModelFile;

// A file with one field changed.
template <class Change>
void rewrite(const std::string& path, const Change& change) {
  ModelFile file = ModelFile::read("Booster", 1, path);
  change(file);
  file.write(path);
}

TEST(TreeFiles, BoostersPredictTheSameBits) {
  const auto x = features(300);
  const Path path("booster.model");
  for (const char* objective : {"squared_error", "logistic", "softmax", "poisson"}) {
    const Booster booster = fitted(objective, x);
    booster.save(path.text);
    const Booster read = Booster::load(path.text);
    EXPECT_TRUE(read.predict(x).equal(booster.predict(x))) << objective;
    EXPECT_TRUE(read.scores(x).equal(booster.scores(x))) << objective;
    EXPECT_EQ(read.options().seed, booster.options().seed);
    EXPECT_EQ(read.options().sampling.subsample, 0.7);
    EXPECT_EQ(read.options().objective, objective);
    EXPECT_EQ(read.best_round(), 7);
    EXPECT_TRUE(read.arrays().cover.equal(booster.arrays().cover));
    // A category that training did not know is an error still.
    auto unknown = x.clone();
    unknown[5][3] = 5;
    EXPECT_MESSAGE((void)read.predict(unknown), "column 3 holds categories");
  }
  EXPECT_MESSAGE(Booster(options_for("logistic")).save(path.text), "has not been fitted");
}

TEST(TreeFiles, FitsGoOnFromWhatWasRead) {
  const auto x = features(400), y = values_of(x);
  const Path path("continued.model");
  fitted("squared_error", x).save(path.text);
  Booster read = Booster::load(path.text);
  FitOptions how;
  how.start = read.model();
  read.fit({x, y, {}, {}}, how);
  BoosterOptions options = options_for("squared_error");
  options.n_estimators = 16;
  Booster whole(options);
  whole.fit(x, y);
  EXPECT_EQ(read.arrays().tree_output.numel(), 16);
  EXPECT_TRUE(read.predict(x).equal(whole.predict(x)));
}

TEST(TreeFiles, AnObjectiveOfTheCallersIsGivenToLoadToo) {
  const auto x = features(200), y = values_of(x);
  const auto loss = std::make_shared<CustomObjective>(
      [](const at::Tensor& scores, const at::Tensor& labels) {
        return (scores - labels).cosh().log();
      },
      1);
  Booster booster(options_for("squared_error"), loss);
  booster.fit(x, y);
  const Path path("own.model");
  booster.save(path.text);
  EXPECT_MESSAGE(Booster::load(path.text), "own_objective says that the booster was given its");
  EXPECT_TRUE(Booster::load(path.text, loss).predict(x).equal(booster.predict(x)));
}

TEST(TreeFiles, LinearBoosters) {
  const auto x = features(200), y = values_of(x);
  BoosterOptions options = options_for("logistic");
  LinearBooster booster(options);
  booster.fit({x, (y > 0).to(torch::kFloat), {}, {}});
  const Path path("linear.model");
  booster.save(path.text);
  const LinearBooster read = LinearBooster::load(path.text);
  EXPECT_TRUE(read.predict(x).equal(booster.predict(x)));
  EXPECT_MESSAGE(Booster::load(path.text), "must hold a model of kind Booster, got LinearBooster");
}

TEST(TreeFiles, LabelsOfSeveralColumns) {
  const auto x = features(200), y = torch::stack({values_of(x), values_of(x).square()}, 1);
  const Path path("columns.model");
  for (const char* strategy : {"one_output_per_tree", "multi_output_tree"}) {
    BoosterOptions options = options_for("squared_error");
    options.multi_strategy = strategy;
    options.tree.categorical.clear();
    Booster booster(options);
    booster.fit(x, y);
    booster.save(path.text);
    EXPECT_TRUE(Booster::load(path.text).predict(x).equal(booster.predict(x))) << strategy;
  }
  LinearBooster linear(options_for("squared_error"));
  linear.fit({x, y, {}, {}});
  linear.save(path.text);
  EXPECT_TRUE(LinearBooster::load(path.text).predict(x).equal(linear.predict(x)));
  // Classes are labels of one column.
  const Booster booster = fitted("softmax", x);
  booster.save(path.text);
  rewrite(path.text, [](ModelFile& f) { f.put("targets", int64_t(2)); });
  EXPECT_MESSAGE(Booster::load(path.text), "labels of one column");
}

TEST(TreeFiles, ForestsKeepWhatOutOfBagNeeds) {
  const auto x = features(300), y = values_of(x);
  const Path path("forest.model");
  for (const int64_t num_class : {0, 2}) {
    ForestOptions options;
    options.num_class = num_class;
    options.tree.criterion = num_class > 0 ? "entropy" : "squared_error";
    options.n_estimators = 7;
    options.seed = 5;
    Forest forest(options);
    const auto target = num_class > 0 ? (y > 0).to(torch::kLong) : torch::stack({y, y.square()}, 1);
    forest.fit(x, target);
    forest.save(path.text);
    Forest read = Forest::load(path.text);
    EXPECT_TRUE(read.predict(x).equal(forest.predict(x)));
    EXPECT_TRUE(read.out_of_bag(x).nan_to_num(-1).equal(forest.out_of_bag(x).nan_to_num(-1)));
    EXPECT_EQ(read.options().tree.criterion, options.tree.criterion);
    // Three more trees.
    options.n_estimators = 10;
    Forest more(options), whole(options);
    more.fit(x, target, {}, nullptr, &read.arrays());
    whole.fit(x, target);
    EXPECT_TRUE(more.arrays().threshold.equal(whole.arrays().threshold));
  }
}

TEST(TreeFiles, AnEnsembleByItself) {
  const auto x = features(200);
  const Booster booster = fitted("softmax", x);
  const Path path("ensemble.model");
  booster.ensemble()->save(path.text);
  EXPECT_TRUE(TreeEnsemble::load(path.text)->predict(x).equal(booster.predict(x)));
}

TEST(TreeFiles, ErrorsNameTheField) {
  const auto x = features(200);
  const Booster booster = fitted("squared_error", x);
  const auto& a = booster.arrays();
  const Path path("named.model");
  const auto expect = [&](const std::function<void(ModelFile&)>& change, const std::string& part) {
    booster.save(path.text);
    rewrite(path.text, change);
    const std::string found = message_of([&] { (void)Booster::load(path.text); });
    EXPECT_NE(found.find(path.text + ": " + part), std::string::npos) << found;
  };
  expect([&](ModelFile& f) { f.put("feature", a.feature + 9); }, "holds no model: tilewright::");
  expect([&](ModelFile& f) { f.put("feature", a.feature.to(torch::kLong)); },
         "feature must be Int of 1 dimensions, got Long");
  expect([&](ModelFile& f) { f.put("value", a.value.slice(0, 1)); }, "holds no model");
  expect([&](ModelFile& f) { f.put("cover", a.cover.slice(0, 1)); }, "cover must be as long as");
  expect([&](ModelFile& f) { f.put("base_score", torch::zeros(2)); },
         "base_score must hold 1 numbers, got 2");
  expect([&](ModelFile& f) { f.put("link", std::string("softmax")); }, "link must be identity");
  expect([&](ModelFile& f) { f.put("num_features", int64_t(0)); }, "num_features must lie in [1,");
  expect([&](ModelFile& f) { f.put("bin_counts", torch::zeros(3, torch::kInt)); },
         "bin_counts must hold 4 numbers");
  expect([&](ModelFile& f) { f.put("categories", a.categories.flip(0)); },
         "holds no model: tilewright::predict_trees: tree 0, node");
  expect(
      [&](ModelFile& f) {
        f.put("option categorical", std::vector<int64_t>{0, 0, 1});
      },
      "holds no model: tilewright::trees: categorical must be 4");
  expect(
      [&](ModelFile& f) {
        f.put("option categorical", std::vector<int64_t>{0, 0, 0, 256});
      },
      "option categorical is out of range: 256");
  expect([&](ModelFile& f) { f.put("option learning_rate", -1.0); }, "holds no model");
  expect([&](ModelFile& f) { f.put("option learning_rate", int64_t(1)); },
         "option learning_rate must be Double");
}

}  // namespace
