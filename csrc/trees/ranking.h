// Learning to rank: LambdaRank's gradients and NDCG over queries.
#pragma once
#include "tilewright/trees/metrics.h"
#include "tilewright/trees/objectives.h"

namespace tilewright::trees {

struct RankingOptions {
  // Pairs have one of the first so many rows of a query, by score; gains below count for nothing in
  // the best order's gain either. 0: all.
  int64_t truncation = 32;
  bool exp_gain = true;   // a row's gain is 2^label - 1, else its label
  bool normalize = true;  // a query's gradients, by log2(1 + sum) / sum; a pair's, by its distance
};

// Burges, "From RankNet to LambdaRank to LambdaMART: an overview" (MSR-TR-2010-82), with XGBoost's
// constants (rank:ndcg, topk). Of a pair whose first row has the greater label, scores s and t and
// p = sigmoid(s - t), the gradients are -+ (1 - p) |change of NDCG when the two change places|,
// both hessians 2 p (1 - p) times the same change. With `normalize` the change is divided by
// |s - t| + 0.01 unless all scores of the query are equal.
//
// Queries are independent of each other: the same bits for any number of threads.
class TILEWRIGHT_API LambdaRank : public Objective {
 public:
  explicit LambdaRank(const RankingOptions& options);
  void check_labels(const at::Tensor& labels) const override;
  bool takes_queries() const override { return true; }
  void set_queries(const at::Tensor& queries) override { queries_ = queries; }
  at::Tensor base_score(const at::Tensor& labels, const at::Tensor& weights) const override;
  // NDCG over what set_queries said.
  double metric(const at::Tensor& scores, const at::Tensor& labels,
                const at::Tensor& weights) const override;
  Metric default_metric() const override;

 protected:
  std::pair<at::Tensor, at::Tensor> derivatives(const at::Tensor& scores,
                                                const at::Tensor& labels) const override;
  bool rows_are_apart() const override { return false; }

 private:
  RankingOptions options_;
  at::Tensor queries_;  // (Q + 1,) int64
};

// The mean of each query's normalised discounted cumulative gain, (Järvelin and Kekäläinen 2002):
// gains over log2(place + 1), places from 1, over those of the best order. scores: (N,), equal ones
// in the order of rows. `cut_off`: how many places count, 0: all. A query without a positive gain
// counts 1. A query weighs the mean of its rows' weights.
TILEWRIGHT_API double ndcg(const at::Tensor& scores, const Targets& targets, int64_t cut_off,
                           bool exp_gain);

}  // namespace tilewright::trees
