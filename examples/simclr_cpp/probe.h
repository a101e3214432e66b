// A linear probe: how well a linear function of features tells classes, by ridge regression of
// their indicators in closed form.
#pragma once
#include <torch/torch.h>

#include <vector>

struct Features {
  torch::Tensor values;  // (N, F)
  torch::Tensor labels;  // (N,) int64
};

// The first `count` examples of each label.
inline Features first_of_each(const Features& all, int64_t count) {
  std::vector<torch::Tensor> rows;
  for (int64_t label = 0; label <= all.labels.max().item<int64_t>(); ++label) {
    rows.push_back((all.labels == label).nonzero().flatten().slice(0, 0, count));
  }
  const auto kept = torch::cat(rows);
  return {all.values.index_select(0, kept), all.labels.index_select(0, kept)};
}

// Share of the test examples that get their own label from a probe fitted to `train`.
inline double probe_accuracy(const Features& train, const Features& test, double ridge = 0.05) {
  const auto mean = train.values.mean(0), deviation = train.values.std(0) + 1e-5;
  const auto design = [&](const Features& of) {
    const auto scaled = ((of.values - mean) / deviation).to(torch::kDouble);
    return torch::nn::functional::pad(
        scaled, torch::nn::functional::PadFuncOptions({0, 1}).value(1));  // and a constant
  };
  const auto x = design(train);  // (N, F + 1)
  const auto y = torch::one_hot(train.labels).to(torch::kDouble);
  const auto penalty = torch::eye(x.size(1), x.options()) * (ridge * double(x.size(0)));
  const auto weight =
      torch::linalg_solve(torch::matmul(x.t(), x) + penalty, torch::matmul(x.t(), y));
  const auto found = torch::matmul(design(test), weight).argmax(1);
  return (found == test.labels).to(torch::kDouble).mean().item<double>();
}
