// Prediction on the CPU: checks that the arrays are trees, packs them for walking, shares the rows.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/predict_args.h"
#include "tilewright/trees/predict_cpu.h"
#include "tilewright/trees/tree_check.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "predict_trees";
// Trees up to this depth are filled up to whole levels: a step then needs no pointer.
constexpr int32_t kMostFullDepth = 8;
// Steps of rows through trees that a thread should have.
constexpr int64_t kGrainSteps = 1 << 15;

class Packer {
 public:
  Packer(const TreeArrays& a, int64_t features)
      : features_(features),
        feature_(a.feature.contiguous()),
        threshold_(a.threshold.contiguous()),
        left_(a.left.contiguous()),
        right_(a.right.contiguous()),
        default_left_(a.default_left.contiguous()),
        value_(a.value.contiguous()),
        tree_ptr_(a.tree_ptr.contiguous()),
        tree_output_(a.tree_output.contiguous()),
        values_(a.value.dim() == 1 ? 1 : a.num_outputs),
        num_outputs_(a.num_outputs) {
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
    const int64_t count = tree_output_.numel();
    TreeWalk walk(kOp, pointers(), features_);
    for (int64_t t = 0; t < count; ++t) add(walk, t, ptr[t]);
  }

  void fill(PredictParams& params) const {
    params.trees = trees_.data();
    params.tree_count = int64_t(trees_.size());
    params.full_nodes = full_.data();
    params.linked_nodes = linked_.data();
    params.leaves = leaves_.data();
    params.value = value_.const_data_ptr<float>();
    params.values = values_;
    params.outputs = num_outputs_;
    params.default_left = default_left_.const_data_ptr<bool>();
    if (!category_ptr_.defined()) return;
    params.category_ptr = category_ptr_.const_data_ptr<int64_t>();
    params.categories = categories_.const_data_ptr<int32_t>();
  }
  int64_t steps_per_row() const { return steps_; }

 private:
  TreePointers pointers() const {
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
    return p;
  }

  void add(TreeWalk& walk, int64_t tree, int64_t first) {
    order_ = &walk.levels(tree);
    bool plain = true;
    for (const auto& [node, depth] : *order_) {
      plain = plain && (all_left_[first + node] < 0 || !walk.has_categories(first + node));
    }
    PackedTree packed{};
    packed.depth = order_->back().second;
    packed.output = tree_output_.const_data_ptr<int32_t>()[tree];
    TILEWRIGHT_CHECK(kOp, values_ > 1 || (packed.output >= 0 && packed.output < num_outputs_),
                     "tree_output must lie in [0, ", num_outputs_, "), that of tree ", tree, " is ",
                     packed.output);
    packed.full = plain && packed.depth <= kMostFullDepth;
    packed.nodes = int64_t(packed.full ? full_.size() : linked_.size());
    packed.leaves = int64_t(leaves_.size());
    trees_.push_back(packed);
    steps_ += packed.depth + 1;
    packed.full ? add_full(packed, first) : add_linked(first);
  }

  uint32_t place_of(int64_t node) const {
    const int64_t feature = all_features_[node];
    return uint32_t(feature + (all_defaults_[node] ? features_ : 0));
  }

  void add_full(const PackedTree& packed, int64_t first) {
    const int64_t inner = (int64_t(1) << packed.depth) - 1;
    full_.resize(size_t(packed.nodes + inner), {0, 0});
    leaves_.resize(size_t(packed.leaves + (inner + 1) * values_));
    place(packed, first, 0, 0, 0);
  }
  // Node `node` at place `at` of level `depth`; a leaf above the last level fills all below it.
  void place(const PackedTree& packed, int64_t first, int64_t node, int64_t at, int32_t depth) {
    const auto *left = all_left_ + first, *right = all_right_ + first;
    const int64_t inner = (int64_t(1) << packed.depth) - 1;
    if (left[node] < 0) {
      const int64_t below = int64_t(1) << (packed.depth - depth);
      const int64_t begin = (at + 1) * below - 1 - inner;  // among the last level
      const float* value = all_values_ + (first + node) * values_;
      for (int64_t leaf = begin; leaf < begin + below; ++leaf) {
        std::copy(value, value + values_, leaves_.data() + packed.leaves + leaf * values_);
      }
      return;
    }
    full_[size_t(packed.nodes + at)] = {all_thresholds_[first + node], place_of(first + node)};
    place(packed, first, left[node], 2 * at + 1, depth + 1);
    place(packed, first, right[node], 2 * at + 2, depth + 1);
  }

  void add_linked(int64_t first) {
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

  int64_t features_;
  at::Tensor feature_, threshold_, left_, right_, default_left_, value_, tree_ptr_, tree_output_,
      category_ptr_, categories_;
  int64_t values_, num_outputs_, steps_ = 0;
  // What is read for every node: asking the tensors each time takes longer than the walk.
  const int32_t *all_left_, *all_right_, *all_features_;
  const float *all_thresholds_, *all_values_;
  const bool* all_defaults_;
  std::vector<PackedTree> trees_;
  std::vector<FullNode> full_;
  std::vector<LinkedNode> linked_;
  std::vector<float> leaves_;
  // Of the tree at work.
  const std::vector<std::pair<int32_t, int32_t>>* order_ = nullptr;  // node, depth
};

at::Tensor predict_trees_cpu(const at::Tensor& x, const at::Tensor& feature,
                             const at::Tensor& threshold, const at::Tensor& left,
                             const at::Tensor& right, const at::Tensor& default_left,
                             const at::Tensor& value, const at::Tensor& tree_ptr,
                             const at::Tensor& tree_output, int64_t num_outputs,
                             const std::optional<at::Tensor>& category_ptr,
                             const std::optional<at::Tensor>& categories) {
  const TreeArrays arrays{feature,  threshold,   left,        right,        default_left, value,
                          tree_ptr, tree_output, num_outputs, category_ptr, categories};
  check_predict_trees(x, arrays);
  const Packer packer(arrays, x.size(1));
  at::Tensor out = at::empty({x.size(0), num_outputs}, x.options().dtype(at::kFloat));
  PredictParams params{};
  params.x = x.const_data_ptr();
  params.dtype = x.scalar_type();
  params.row = x.stride(0);
  params.column = x.stride(1);
  params.features = x.size(1);
  params.out = out.mutable_data_ptr<float>();
  packer.fill(params);
  const int64_t grain = std::max<int64_t>(kGrainSteps / (packer.steps_per_row() + 1), 16);
  at::parallel_for(0, x.size(0), grain,
                   [&](int64_t begin, int64_t end) { predict_rows(params, begin, end); });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("predict_trees", &predict_trees_cpu); }

}  // namespace tilewright
