// The rounds of one fit: gradients, trees, scores, metrics.
#pragma once
#include <memory>
#include <vector>

#include "tilewright/trees/booster.h"
#include "tilewright/trees/dataset.h"
#include "tilewright/trees/device_grower.h"

namespace tilewright::trees {

class BoostingRounds {
 public:
  // All arguments must outlive the object; `base_score` (K,) is what rows score before any tree.
  BoostingRounds(const BoosterOptions& options, const Objective& objective, Measured& training,
                 std::vector<Measured>& evaluation, const FitOptions& how,
                 const at::Tensor& base_score);
  void run();

  EnsembleArrays arrays() const { return best_; }
  // (F,) int32: cuts of each feature; 0 where splits are exact.
  const at::Tensor& bin_counts() const { return bin_counts_; }
  const History& history() const { return metrics_.history(); }
  std::vector<std::string> metric_names() const { return metrics_.names(); }
  int64_t best_round() const { return first_round_ + metrics_.best_round(); }

 private:
  void start();
  void bring_scores_up_to_date(Measured& set) const;
  at::Tensor find_cuts();
  std::unique_ptr<Grower> make_grower(at::Tensor& cuts);
  void grow(int64_t round, Grower* grower, const at::Tensor& cuts);
  void grow_on_cpu(int64_t place, at::Tensor gradients, at::Tensor hessians, Grower& grower,
                   const at::Tensor& cuts);
  void add_to_scores(const Grower& grower, const GrownTree& tree, const std::vector<float>& answers,
                     int64_t output);
  void add_last_round();
  void collect();
  void leave_out_dropped();
  void put_back_dropped();

  const BoosterOptions& options_;
  const Objective& objective_;
  Measured& training_;
  std::vector<Measured>& evaluation_;
  const FitOptions& how_;
  const at::Tensor base_score_;
  const int64_t outputs_;
  const bool vectors_;            // leaves are vectors: a tree a round
  const int64_t trees_of_round_;  // else a tree for each output
  Metrics metrics_;
  ArraysBuilder builder_;
  const int64_t first_tree_, first_round_;  // how many there were before this fit
  Dart dart_;
  std::unique_ptr<DeviceGrower> device_;  // null where the CPU grows the trees
  Objective::Gradients gradients_;  // of the last round: a fit that asked for memory in each would
                                    // leave malloc with more and more holes
  at::Tensor dropped_scores_;       // (K, N): what the dropped trees answer, undefined for none
  EnsembleArrays best_;
  at::Tensor bin_counts_;
};

}  // namespace tilewright::trees
