// Sums, means and quantiles. ATen's sums depend on the number of threads; these do not.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <optional>
#include <utility>

namespace tilewright::trees {

// Of all values, float32 or float64, added up in float64.
double ordered_sum(const at::Tensor& values);
// Of values (N,), or (K, N), weighted where weights (N,) are defined.
double ordered_mean(const at::Tensor& values, const at::Tensor& weights);
// The same of quantiles: of float32 values, between 0 and 1.
double weighted_quantile(const at::Tensor& values, const at::Tensor& weights, double alpha);

// What body() returns, of ATen's functions that threads share no work of: these round by where a
// thread's share of the rows ends.
template <class Body>
auto serially(const Body& body) {
  std::optional<decltype(body())> out;
  at::parallel_for(0, 2, 1, [&](int64_t first, int64_t) {
    if (first == 0) out = body();  // of threads, the caller
  });
  return *std::move(out);
}

// (K,) float32: a number for each column of labels (K, N); one for (N,).
template <class Body>
at::Tensor by_column(const at::Tensor& labels, const Body& body) {
  const at::Tensor columns = labels.dim() == 2 ? labels : labels.unsqueeze(0);
  const at::Tensor out = at::empty({columns.size(0)}, at::kFloat);
  for (int64_t k = 0; k < out.numel(); ++k) out[k].fill_(double(body(columns[k])));
  return out;
}

}  // namespace tilewright::trees
