#include "tilewright/trees/packed_trees.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/names.h"

namespace tilewright {
namespace {

// Trees up to this depth are filled up to whole levels: a step then needs no pointer.
constexpr int32_t kMostFullDepth = 8;
// Steps of rows through trees that a thread should have.
constexpr int64_t kGrainSteps = 1 << 15;

}  // namespace

PackedTrees::PackedTrees(const TreeArrays& a, int64_t features)
    : features_(features),
      feature_(a.feature.contiguous()),
      threshold_(a.threshold.contiguous()),
      left_(a.left.contiguous()),
      right_(a.right.contiguous()),
      default_left_(a.default_left.contiguous()),
      value_(a.value.contiguous()),
      tree_ptr_(a.tree_ptr.contiguous()),
      tree_output_(a.tree_output.contiguous()),
      vectors_(a.value.dim() == 2),
      values_(vectors_ ? a.num_outputs : 1),
      outputs_(a.num_outputs) {
  TILEWRIGHT_CHECK(kPredictTrees, features <= kMostTreeFeatures, "x may have at most ",
                   kMostTreeFeatures, " features, got ", features);
  all_left_ = left_.const_data_ptr<int32_t>();
  all_right_ = right_.const_data_ptr<int32_t>();
  all_features_ = feature_.const_data_ptr<int32_t>();
  all_thresholds_ = threshold_.const_data_ptr<float>();
  all_defaults_ = default_left_.const_data_ptr<bool>();
  all_values_ = value_.const_data_ptr<float>();
  if (a.category_ptr.has_value()) {
    category_ptr_ = a.category_ptr->contiguous();
    categories_ = a.categories->contiguous();
  }
  const auto* ptr = tree_ptr_.const_data_ptr<int64_t>();
  TreeWalk walk(kPredictTrees, pointers(), features);
  for (int64_t t = 0; t < tree_output_.numel(); ++t) add(walk, t, ptr[t]);
  order_ = nullptr;
}

at::Tensor PackedTrees::predict(const at::Tensor& x, const at::Tensor& base) const {
  at::Tensor out = at::empty({x.size(0), outputs_}, x.options().dtype(at::kFloat));
  PredictParams params{};
  params.x = x.const_data_ptr();
  params.dtype = x.scalar_type();
  params.row = x.stride(0);
  params.column = x.stride(1);
  params.features = features_;
  params.trees = trees_.data();
  params.tree_count = int64_t(trees_.size());
  params.thresholds = thresholds_.data();
  params.places = places_.data();
  params.leaves = leaves_.data();
  params.linked_nodes = linked_.data();
  params.value = all_values_;
  params.values = values_;
  params.outputs = outputs_;
  if (category_ptr_.defined()) {
    params.category_ptr = category_ptr_.const_data_ptr<int64_t>();
    params.categories = categories_.const_data_ptr<int32_t>();
  }
  if (base.defined()) params.base = base.const_data_ptr<float>();
  params.out = out.mutable_data_ptr<float>();
  const int64_t rows =
      ceil_div(std::max(kGrainSteps / (steps_ + 1), int64_t(1)), int64_t(kTreeLanes)) * kTreeLanes;
  at::parallel_for(0, x.size(0), rows,
                   [&](int64_t begin, int64_t end) { predict_rows(params, begin, end); });
  return out;
}

TreePointers PackedTrees::pointers() const {
  TreePointers p{};
  p.feature = all_features_;
  p.left = all_left_;
  p.right = all_right_;
  p.threshold = all_thresholds_;
  p.tree_ptr = tree_ptr_.const_data_ptr<int64_t>();
  p.nodes = feature_.numel();
  p.trees = tree_output_.numel();
  if (!category_ptr_.defined()) return p;
  p.category_ptr = category_ptr_.const_data_ptr<int64_t>();
  p.categories = categories_.numel();
  p.members = categories_.const_data_ptr<int32_t>();
  return p;
}

void PackedTrees::add(TreeWalk& walk, int64_t tree, int64_t first) {
  order_ = &walk.levels(tree);
  bool plain = true;
  for (const auto& [node, depth] : *order_) {
    plain = plain && (all_left_[first + node] < 0 || !walk.has_categories(first + node));
  }
  PackedTree packed{};
  packed.depth = order_->back().second;
  packed.output = vectors_ ? 0 : tree_output_.const_data_ptr<int32_t>()[tree];
  TILEWRIGHT_CHECK(kPredictTrees, packed.output >= 0 && packed.output < outputs_,
                   "tree_output must lie in [0, ", outputs_, "), that of tree ", tree, " is ",
                   packed.output);
  packed.full = plain && packed.depth <= kMostFullDepth;
  packed.nodes = int64_t(packed.full ? places_.size() : linked_.size());
  packed.leaves = int64_t(leaves_.size());
  trees_.push_back(packed);
  steps_ += packed.depth + 1;
  packed.full ? add_full(packed, first) : add_linked(first);
}

uint32_t PackedTrees::place_of(int64_t node) const {
  return uint32_t(all_features_[node]) * kTreeLanes | (all_defaults_[node] ? kMissingLeft : 0);
}

void PackedTrees::add_full(const PackedTree& packed, int64_t first) {
  const int64_t leaves = int64_t(1) << packed.depth;
  const auto nodes = size_t(packed.nodes + std::max<int64_t>(leaves, kTreeLanes));
  thresholds_.resize(nodes);
  places_.resize(nodes);
  leaves_.resize(size_t(packed.leaves + leaves * values_));
  place(packed, first, 0, 1, 0);
}

// Node `node` as number `at`, of level `depth`; a leaf above the last level fills all below it.
void PackedTrees::place(const PackedTree& packed, int64_t first, int64_t node, int64_t at,
                        int32_t depth) {
  const auto *left = all_left_ + first, *right = all_right_ + first;
  if (left[node] < 0) {
    const int64_t below = int64_t(1) << (packed.depth - depth);
    const int64_t begin = at * below - (int64_t(1) << packed.depth);  // among the last level
    const float* value = all_values_ + (first + node) * values_;
    for (int64_t leaf = begin; leaf < begin + below; ++leaf) {
      std::copy(value, value + values_, leaves_.data() + packed.leaves + leaf * values_);
    }
    return;
  }
  thresholds_[size_t(packed.nodes + at)] = all_thresholds_[first + node];
  places_[size_t(packed.nodes + at)] = place_of(first + node);
  place(packed, first, left[node], 2 * at, depth + 1);
  place(packed, first, right[node], 2 * at + 1, depth + 1);
}

void PackedTrees::add_linked(int64_t first) {
  const auto* left = all_left_ + first;
  int32_t next = 1;  // children follow each other in the order of levels
  for (size_t i = 0; i < order_->size(); ++i) {
    const int64_t node = (*order_)[i].first;
    LinkedNode packed{0, 0, int32_t(i), int32_t(first + node)};
    if (left[node] >= 0) {
      packed.threshold = all_thresholds_[first + node];
      packed.place = place_of(first + node);
      packed.left = next;
      next += 2;
    }
    linked_.push_back(packed);
  }
}

}  // namespace tilewright
