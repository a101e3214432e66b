// Fitted models that tests write to files.
#pragma once
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support.h"
#include "tilewright/trees/booster.h"

// Three columns of numbers, some of them missing, and one of five categories.
inline torch::Tensor features(int64_t rows) {
  torch::manual_seed(0);
  auto x = torch::randn({rows, 4});
  x.select(1, 0).masked_fill_(torch::rand(rows) < 0.2, NAN);
  x.select(1, 3).copy_(torch::randint(5, {rows}));
  return x;
}

inline torch::Tensor values_of(const torch::Tensor& x) {
  return x.select(1, 1) + (x.select(1, 3) == 2).to(torch::kFloat) + x.select(1, 0).nan_to_num(3);
}

// A path that is removed in the end.
struct Path {
  explicit Path(const std::string& name) : text(temporary(name)) {}
  ~Path() { std::remove(text.c_str()); }
  const std::string text;
};

inline std::vector<char> content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

inline tilewright::trees::BoosterOptions options_for(const std::string& objective) {
  tilewright::trees::BoosterOptions options;
  options.objective = objective;
  options.num_class = objective == "softmax" ? 3 : 0;
  options.n_estimators = 8;
  options.max_bin = 31;
  options.tree.max_depth = 3;
  options.tree.categorical = {0, 0, 0, 1};
  options.tree.max_cat_to_onehot = 2;
  options.sampling.subsample = 0.7;
  options.seed = (int64_t(1) << 60) + 7;
  return options;
}

inline tilewright::trees::Booster fitted(const std::string& objective, const torch::Tensor& x) {
  const auto y = values_of(x);
  tilewright::trees::Booster booster(options_for(objective));
  booster.fit(x, objective == "softmax"    ? (y > 0).to(torch::kFloat) + (y > 1)
                 : objective == "logistic" ? (y > 0).to(torch::kFloat)
                 : objective == "poisson"  ? y.abs()
                                           : y);
  return booster;
}
