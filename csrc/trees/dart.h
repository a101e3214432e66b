// Dropout of trees: DART.
#pragma once
#include <cstdint>
#include <vector>

namespace tilewright::trees {

// Rashmi and Gilad-Bachrach (AISTATS 2015), with XGBoost's rules.
struct DartOptions {
  bool enabled = false;
  double rate_drop = 0;   // the chance of each tree to be left out of a round's gradients
  double skip_drop = 0;   // the chance of a round to leave out none
  bool one_drop = false;  // at least one in rounds that are not skipped
  // Trees are dropped in proportion to how much they still count.
  bool weighted = false;
  // Where k trees were dropped and the learning rate is r, the new ones and the dropped ones count
  // 1 / (k + r) and k / (k + r) times; with `forest` both 1 / (1 + r).
  bool forest = false;
};

// Which trees are dropped, and what they count afterwards. Draws depend on seed, round and tree.
class Dart {
 public:
  // `trees`: how many there are already.
  Dart(const DartOptions& options, double learning_rate, int64_t trees, uint64_t seed)
      : options_(options), learning_rate_(learning_rate), weights_(size_t(trees), 1), seed_(seed) {}

  // Of a round of `new_trees` trees, before it is grown.
  void begin_round(int64_t round, int64_t new_trees);
  const std::vector<int64_t>& dropped() const { return dropped_; }  // ascending
  double new_factor() const { return new_factor_; }                 // of the new trees
  double dropped_factor() const { return dropped_factor_; }  // of the dropped ones, once more

 private:
  void draw(int64_t round);

  DartOptions options_;
  double learning_rate_;
  std::vector<double> weights_;  // of the trees so far
  uint64_t seed_;
  std::vector<int64_t> dropped_;
  double new_factor_ = 1, dropped_factor_ = 1;
};

}  // namespace tilewright::trees
