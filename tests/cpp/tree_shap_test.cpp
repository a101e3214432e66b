// SHAP values in a program without Python: they add up to the scores.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tilewright/trees/booster.h"
#include "tilewright/trees/tree_shap.h"

namespace {

TEST(TreeShap, AddsUpToTheScores) {
  torch::manual_seed(0);
  const auto x = torch::randn({500, 5});
  const auto y = x.select(1, 0) * x.select(1, 1) + x.select(1, 2);
  tilewright::trees::BoosterOptions options;
  options.n_estimators = 10;
  tilewright::trees::Booster booster(options);
  booster.fit(x, y);
  const auto& a = booster.arrays();
  const auto values =
      tilewright::tree_shap(x, a.feature, a.threshold, a.left, a.right, a.default_left, a.value,
                            a.cover, a.tree_ptr, a.tree_output, a.num_outputs);
  EXPECT_EQ(values.sizes(), (std::vector<int64_t>{500, 1, 6}));
  EXPECT_TRUE(torch::allclose(values.sum(2) + booster.base_score(), booster.scores(x), 1e-5, 1e-5));
  EXPECT_LT(values.select(2, 4).abs().mean().item<double>(),
            values.select(2, 0).abs().mean().item<double>());
}

}  // namespace
