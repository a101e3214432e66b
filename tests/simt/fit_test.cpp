// Fits in C++ on the emulated device beside those on the CPU. The emulated device takes the CPU's
// place, so what the CPU fits is fitted before it is loaded.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <string>

#include "cpp/support.h"
#include "tilewright/core/on_device.h"
#include "tilewright/trees/booster.h"

namespace {

using tilewright::trees::Booster;
using tilewright::trees::BoosterOptions;
using tilewright::trees::CustomObjective;
using tilewright::trees::Dataset;
using tilewright::trees::FitOptions;
using tilewright::trees::make_metric;

struct Table {
  torch::Tensor x, y, weight;
};

Table table() {
  torch::manual_seed(0);
  const auto x = torch::randn({300, 4});
  const auto y = x.select(1, 0) * x.select(1, 1) + torch::sin(3 * x.select(1, 2));
  return {x.masked_fill(torch::rand({300, 4}) < 0.1, NAN), y, torch::rand({300})};
}

BoosterOptions rounds(int64_t count) {
  BoosterOptions options;
  options.n_estimators = count;
  options.max_bin = 20;
  options.tree.max_depth = 3;
  options.seed = 5;
  return options;
}

struct Fit {
  BoosterOptions options;
  std::shared_ptr<tilewright::trees::Objective> objective;
};

std::map<std::string, Fit> fits() {
  std::map<std::string, Fit> found;
  found["plain"] = {rounds(4), nullptr};
  BoosterOptions options = rounds(4);
  options.sampling.subsample = 0.5;
  options.tree.colsample_bytree = 0.5;
  found["draws"] = {options, nullptr};
  options = rounds(5);
  options.dart.enabled = true;
  options.dart.rate_drop = 0.5;
  found["dart"] = {options, nullptr};
  const auto loss = [](const torch::Tensor& scores, const torch::Tensor& y) {
    return torch::cosh(scores - y).log();
  };
  found["own loss"] = {rounds(3), std::make_shared<CustomObjective>(loss, 1)};
  return found;
}

Booster fitted(const Fit& fit) {
  const Table t = table();
  FitOptions how;
  how.evaluation = {{t.x.slice(0, 0, 50), t.y.slice(0, 0, 50), {}, {}}};
  how.metrics = {make_metric("rmse"), make_metric("mae")};
  Booster booster(fit.options, fit.objective);
  booster.fit(Dataset{t.x, t.y, t.weight, {}}, how);
  return booster;
}

std::map<std::string, Booster>& of_the_cpu() {
  static std::map<std::string, Booster> found;
  return found;
}

// Before the first test.
class LoadsTheDevice : public testing::Environment {
  void SetUp() override {
    for (const auto& [name, fit] : fits()) of_the_cpu().emplace(name, fitted(fit));
    ASSERT_FALSE(tilewright::is_on_device(table().x));
    ASSERT_NE(dlopen(TILEWRIGHT_SIMT_LIBRARY, RTLD_NOW), nullptr) << dlerror();
    ASSERT_TRUE(tilewright::is_on_device(table().x));
  }
};
const auto* const environment = testing::AddGlobalTestEnvironment(new LoadsTheDevice);

TEST(FitOnDevice, LeavesTheModelOfTheCpu) {
  const torch::Tensor x = table().x;
  for (const auto& [name, fit] : fits()) {
    const Booster found = fitted(fit), &expected = of_the_cpu().at(name);
    const auto &a = found.arrays(), &b = expected.arrays();
    EXPECT_TRUE(torch::equal(a.feature, b.feature)) << name;
    EXPECT_TRUE(torch::equal(a.threshold, b.threshold)) << name;
    EXPECT_TRUE(torch::equal(a.left, b.left)) << name;
    EXPECT_TRUE(torch::equal(a.right, b.right)) << name;
    EXPECT_TRUE(torch::equal(a.default_left, b.default_left)) << name;
    EXPECT_TRUE(torch::equal(a.value, b.value)) << name;
    EXPECT_TRUE(torch::equal(a.gain, b.gain)) << name;
    EXPECT_TRUE(torch::equal(a.cover, b.cover)) << name;
    EXPECT_TRUE(torch::equal(a.tree_ptr, b.tree_ptr)) << name;
    EXPECT_TRUE(torch::equal(found.base_score(), expected.base_score())) << name;
    EXPECT_EQ(found.history(), expected.history()) << name;
    EXPECT_TRUE(torch::equal(found.predict(x), expected.predict(x))) << name;
  }
}

TEST(FitOnDevice, GoesOnFromAnotherModel) {
  const Table t = table();
  Booster once(rounds(5)), second(rounds(3)), first(rounds(2));
  once.fit(t.x, t.y);
  first.fit(t.x, t.y);
  FitOptions how;
  how.start = first.model();
  second.fit(Dataset{t.x, t.y, {}, {}}, how);
  EXPECT_TRUE(torch::equal(once.arrays().value, second.arrays().value));
  EXPECT_EQ(second.best_round(), 4);
}

TEST(FitOnDevice, StopsWhereACallbackSays) {
  const Table t = table();
  Booster booster(rounds(6)), three(rounds(3));
  booster.fit(t.x, t.y, {}, {}, {}, [](int64_t round, const torch::Tensor&) { return round == 2; });
  three.fit(t.x, t.y);
  EXPECT_TRUE(torch::equal(booster.arrays().value, three.arrays().value));
}

TEST(FitOnDevice, NamesWhatItDoesNotTake) {
  const Table t = table();
  BoosterOptions options = rounds(1);
  options.tree.loss_guided = true;
  Booster lossguide(options);
  EXPECT_MESSAGE(lossguide.fit(t.x, t.y), "a fit on CUDA takes grow_policy 'depthwise'");
  options = rounds(1);
  options.objective = "absolute_error";
  Booster quantile(options);
  EXPECT_MESSAGE(quantile.fit(t.x, t.y), "no loss whose leaves are quantiles, got absolute_error");
  options = rounds(1);
  options.tree.max_depth = 0;
  Booster deep(options);
  EXPECT_MESSAGE(deep.fit(t.x, t.y), "a max_depth from 1 to 16, got any");
}

}  // namespace
