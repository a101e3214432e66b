// Draws of dropped trees by Philox, and the factors that keep their sum.
#include "tilewright/trees/dart.h"

#include <algorithm>
#include <numeric>

#include "tilewright/core/philox.h"

namespace tilewright::trees {
namespace {

// Kinds of draws, beside those of tree_sampling.h.
constexpr uint32_t kTreeDraw = 16, kRoundDraw = 17;

double uniform(uint32_t word) { return double(word) * 0x1p-32; }

}  // namespace

void Dart::draw(int64_t round) {
  dropped_.clear();
  if (!options_.enabled || weights_.empty()) return;
  const Philox once = philox(0, 0, kRoundDraw, uint32_t(round), seed_);
  if (uniform(once.word[0]) < options_.skip_drop) return;
  const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  for (size_t t = 0; t < weights_.size(); ++t) {
    const double word = uniform(philox(uint32_t(t), 0, kTreeDraw, uint32_t(round), seed_).word[0]);
    const double share = options_.weighted ? double(weights_.size()) * weights_[t] / sum : 1;
    if (word < options_.rate_drop * share) dropped_.push_back(int64_t(t));
  }
  if (!options_.one_drop || !dropped_.empty()) return;
  double place = uniform(once.word[1]) * (options_.weighted ? sum : double(weights_.size()));
  size_t t = 0;
  for (; t + 1 < weights_.size(); ++t) {
    place -= options_.weighted ? weights_[t] : 1;
    if (place < 0) break;
  }
  dropped_.push_back(int64_t(t));
}

void Dart::begin_round(int64_t round, int64_t new_trees) {
  draw(round);
  new_factor_ = dropped_factor_ = 1;
  if (!dropped_.empty()) {
    const double rate = learning_rate_ / double(new_trees);
    const auto count = double(dropped_.size());
    new_factor_ = 1 / ((options_.forest ? 1 : count) + rate);
    dropped_factor_ = options_.forest ? new_factor_ : count * new_factor_;
  }
  for (const int64_t t : dropped_) weights_[size_t(t)] *= dropped_factor_;
  weights_.insert(weights_.end(), size_t(new_trees), new_factor_);
}

}  // namespace tilewright::trees
