// Trees for tree_shap's kernel: checked, turned into edges.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "tilewright/trees/predict_args.h"
#include "tilewright/trees/tree_check.h"
#include "tilewright/trees/tree_shap_cpu.h"

namespace tilewright {

// Gauss-Legendre rules on [0, 1], each made once: t, 1 - t and weights, one rule after the other.
class QuadratureRules {
 public:
  // Where the rule of so many points begins.
  int64_t place_of(int64_t points);
  std::vector<double> points_, rests_, weights_;

 private:
  std::map<int64_t, int64_t> places_;
};

class ShapPacker {
 public:
  // `op` names the operator in errors. Arrays that are no trees, covers and values that are none,
  // are errors.
  ShapPacker(const char* op, const TreeArrays& arrays, const at::Tensor& cover, int64_t features);

  // All but what belongs to x and the result. They point into the packer.
  void fill(ShapParams& params) const;
  // Edges times points, of all trees.
  int64_t steps_per_row() const { return steps_; }

 private:
  // A node to be visited, with what is known of the edge to it.
  struct Visit {
    int32_t node, parent, depth;
    bool right;
    double share, reached;  // reached: the product of all shares above
  };

  int32_t place_of(int32_t feature);
  double share_of_left(int64_t tree, int64_t first, int32_t node) const;
  void add_to_expected(int64_t tree, int64_t first, const Visit& leaf);
  void add(int64_t tree, int64_t first, int32_t depth, int32_t output);
  void add_edge(int64_t first, const Visit& visit, bool leaf);

  const char* op_;
  at::Tensor feature_, threshold_, left_, right_, default_left_, value_, cover_, tree_ptr_,
      tree_output_, category_ptr_, categories_;
  const int32_t *all_features_, *all_left_, *all_right_;
  const float *all_thresholds_, *all_values_, *all_covers_;
  const bool* all_defaults_;
  int64_t values_;
  std::vector<int32_t> places_, used_;  // each feature's place among those that trees ask for
  std::vector<ShapEdge> edges_;
  std::vector<ShapTree> trees_;
  std::vector<double> expected_;
  QuadratureRules rules_;
  int64_t most_depth_ = 0, most_size_ = 0, steps_ = 0;
  // Of the path at work, by depth; and by place in used_, the depth of its last edge there, or 0.
  struct Step {
    int32_t place, earlier;
    double product;    // of the shares of this feature's edges
    int32_t features;  // different ones so far
  };
  std::vector<Step> path_;
  std::vector<int32_t> last_;
};

}  // namespace tilewright
