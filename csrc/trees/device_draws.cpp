#include "tilewright/trees/device_draws.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tilewright/trees/row_mask.h"
#include "tilewright/trees/tree_sampling.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kMaskCells = int64_t(1) << 20;  // of columns, copied at a time

// A tree of no rows is none: the first row then stands for all.
void keep_one(Tensor& mask) { mask.narrow(0, 0, 1).logical_or_(mask.any().logical_not()); }

// Which rows are among the `count` of greatest importance; of equal ones those that come first.
Tensor mask_of_greatest(const Tensor& importance, int64_t count) {
  const Tensor order =
      std::get<1>(importance.sort(std::optional<bool>(true), /*dim=*/0, /*descending=*/true));
  Tensor mask = at::zeros(importance.sizes(), importance.options().dtype(at::kBool));
  mask.index_fill_(0, order.narrow(0, 0, count), true);
  return mask;
}

}  // namespace

std::optional<Tensor> draw_mask_of_round(const RowSampling& sampling, double learning_rate,
                                         int64_t round, int64_t seed, const Tensor& codes,
                                         Tensor& gradients, Tensor& hessians) {
  const int64_t rows = codes.size(0);
  if (!sampling.goss) {
    if (sampling.subsample >= 1) return std::nullopt;
    Tensor mask = draw_row_mask(codes, sampling.subsample, round, seed);
    keep_one(mask);
    return mask;
  }
  if (!sampling.goss_in(round, learning_rate)) return std::nullopt;
  const Tensor top = mask_of_greatest(goss_importance(gradients, hessians),
                                      int64_t(double(rows) * sampling.top_rate));
  const double share = sampling.other_share();
  Tensor mask = draw_row_mask(codes, share, round, seed);
  const Tensor stands_for_others = mask.logical_and(top.logical_not());
  mask.logical_or_(top);
  keep_one(mask);
  const Tensor factor = at::ones({rows}, codes.options().dtype(at::kFloat))
                            .masked_fill_(stands_for_others, double(float(1 / share)));
  gradients.mul_(factor);
  hessians.mul_(factor);
  return mask;
}

ColumnMasks::ColumnMasks(const BoosterOptions& options, int64_t outputs, int64_t features,
                         at::Device device)
    : share_(options.tree.colsample_bytree),
      seed_(uint64_t(options.seed)),
      features_(features),
      at_once_(std::clamp<int64_t>(kMaskCells / std::max<int64_t>(features, 1), 1,
                                   options.n_estimators * outputs)),
      device_(device) {}

std::optional<Tensor> ColumnMasks::of_tree(int64_t tree) {
  if (share_ >= 1) return std::nullopt;
  if (!masks_.defined() || tree >= first_ + masks_.size(0)) {
    first_ = tree;
    Tensor masks = at::zeros({at_once_, features_}, at::kBool);
    std::vector<int32_t> all(static_cast<size_t>(features_));
    std::iota(all.begin(), all.end(), 0);
    auto* drawn = masks.mutable_data_ptr<bool>();
    for (int64_t t = 0; t < at_once_; ++t, drawn += features_) {
      for (const int32_t f :
           draw_columns(all, share_, TreeDraw::kTreeColumns, 0, uint32_t(first_ + t), seed_)) {
        drawn[f] = true;
      }
    }
    masks_ = masks.to(device_);
  }
  return masks_.select(0, tree - first_);
}

}  // namespace tilewright::trees
