// How scores become predictions.
#pragma once
#include <ATen/ATen.h>

#include <string>

namespace tilewright {

inline bool is_link(const std::string& link) {
  return link == "identity" || link == "sigmoid" || link == "softmax" || link == "exp";
}

// Scores (N, K) to predictions of the same shape.
inline at::Tensor behind_link(const std::string& link, const at::Tensor& scores) {
  if (link == "sigmoid") return scores.sigmoid();
  if (link == "softmax") return scores.softmax(1);
  if (link == "exp") return scores.exp();
  return scores;
}

}  // namespace tilewright
