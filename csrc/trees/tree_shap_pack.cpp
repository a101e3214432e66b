#include "tilewright/trees/tree_shap_pack.h"

#include <algorithm>
#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"

namespace tilewright {
namespace {

// Rows that walk together share the edges' coefficients; their products should stay in the cache.
constexpr int64_t kMostBlockRows = 64, kBlockBytes = 256 << 10;
// Depth times points: products and sums of kShapRows rows then take half a GiB.
constexpr int64_t kMostSize = 1 << 22;

}  // namespace

int64_t QuadratureRules::place_of(int64_t points) {
  const auto [at, made] = places_.try_emplace(points, int64_t(points_.size()));
  if (!made) return at->second;
  // Newton's method on the Legendre polynomial from Chebyshev's places.
  const int64_t n = points;
  for (int64_t i = 0; i < n; ++i) {
    long double x = std::cos(std::acos(-1.0L) * (i + 0.75L) / (n + 0.5L)), slope = 1;
    for (int step = 0; step < 8; ++step) {
      long double before = 1, now = x;
      for (int64_t k = 2; k <= n; ++k) {
        const long double next = ((2 * k - 1) * x * now - (k - 1) * before) / k;
        before = now;
        now = next;
      }
      slope = n * (before - x * now) / (1 - x * x);
      x -= now / slope;
    }
    points_.push_back(double((1 - x) / 2));
    rests_.push_back(double((1 + x) / 2));
    weights_.push_back(double(1 / ((1 - x * x) * slope * slope)));
  }
  return at->second;
}

ShapPacker::ShapPacker(const char* op, const TreeArrays& a, const at::Tensor& cover,
                       int64_t features)
    : op_(op),
      feature_(a.feature.contiguous()),
      threshold_(a.threshold.contiguous()),
      left_(a.left.contiguous()),
      right_(a.right.contiguous()),
      default_left_(a.default_left.contiguous()),
      value_(a.value.contiguous()),
      cover_(cover.contiguous()),
      tree_ptr_(a.tree_ptr.contiguous()),
      tree_output_(a.tree_output.contiguous()),
      values_(a.value.dim() == 1 ? 1 : a.num_outputs),
      places_(size_t(features), -1),
      expected_(size_t(a.num_outputs), 0.0) {
  TreePointers p{};
  p.feature = all_features_ = feature_.const_data_ptr<int32_t>();
  p.left = all_left_ = left_.const_data_ptr<int32_t>();
  p.right = all_right_ = right_.const_data_ptr<int32_t>();
  p.threshold = all_thresholds_ = threshold_.const_data_ptr<float>();
  p.tree_ptr = tree_ptr_.const_data_ptr<int64_t>();
  p.nodes = feature_.numel();
  p.trees = tree_output_.numel();
  all_defaults_ = default_left_.const_data_ptr<bool>();
  all_values_ = value_.const_data_ptr<float>();
  all_covers_ = cover_.const_data_ptr<float>();
  if (a.category_ptr.has_value()) {
    category_ptr_ = a.category_ptr->contiguous();
    categories_ = a.categories->contiguous();
    p.category_ptr = category_ptr_.const_data_ptr<int64_t>();
    p.categories = categories_.numel();
    p.members = categories_.const_data_ptr<int32_t>();
  }
  TreeWalk walk(op_, p, features);
  for (int64_t t = 0; t < p.trees; ++t) {
    const int32_t depth = walk.levels(t).back().second;
    // Vectors go to all outputs, whatever tree_output says.
    const int32_t output = a.value.dim() == 2 ? 0 : tree_output_.const_data_ptr<int32_t>()[t];
    TILEWRIGHT_CHECK(op_, output >= 0 && output < a.num_outputs, "tree_output must lie in [0, ",
                     a.num_outputs, "), that of tree ", t, " is ", output);
    add(t, p.tree_ptr[t], depth, values_ > 1 ? -1 : output);
  }
}

void ShapPacker::fill(ShapParams& params) const {
  params.used = used_.data();
  params.used_count = int64_t(used_.size());
  params.edges = edges_.data();
  params.trees = trees_.data();
  params.tree_count = int64_t(trees_.size());
  params.points = rules_.points_.data();
  params.rests = rules_.rests_.data();
  params.weights = rules_.weights_.data();
  params.value = all_values_;
  params.values = values_;
  params.expected = expected_.data();
  params.most_depth = most_depth_;
  params.most_size = most_size_;
  params.block_rows = kMostBlockRows;
  while (params.block_rows > kShapRows && most_size_ * params.block_rows * 16 > kBlockBytes) {
    params.block_rows /= 2;
  }
  if (!category_ptr_.defined()) return;
  params.category_ptr = category_ptr_.const_data_ptr<int64_t>();
  params.categories = categories_.const_data_ptr<int32_t>();
}

int32_t ShapPacker::place_of(int32_t feature) {
  int32_t& place = places_[size_t(feature)];
  if (place < 0) {
    place = int32_t(used_.size());
    used_.push_back(feature);
  }
  return place;
}

double ShapPacker::share_of_left(int64_t tree, int64_t first, int32_t node) const {
  const float left = all_covers_[first + all_left_[first + node]];
  const float right = all_covers_[first + all_right_[first + node]];
  for (const float cover : {left, right}) {
    TILEWRIGHT_CHECK(op_, cover >= 0 && cover < HUGE_VALF, "tree ", tree, ", node ", node,
                     ": covers of children must be finite and not negative, got ", cover);
  }
  TILEWRIGHT_CHECK(op_, left > 0 || right > 0, "tree ", tree, ", node ", node,
                   ": cover must be positive for a child at least, got 0 for both");
  return left / (double(left) + right);
}

void ShapPacker::add_to_expected(int64_t tree, int64_t first, const Visit& leaf) {
  const float* value = all_values_ + (first + leaf.node) * values_;
  for (int64_t k = 0; k < values_; ++k) {
    TILEWRIGHT_CHECK(op_, std::isfinite(value[k]), "tree ", tree, ", node ", leaf.node,
                     ": value must be finite, got ", value[k]);
    expected_[size_t(values_ > 1 ? k : trees_.back().output)] += leaf.reached * value[k];
  }
}

void ShapPacker::add(int64_t tree, int64_t first, int32_t depth, int32_t output) {
  trees_.push_back({int64_t(edges_.size()), 0, 0, 0, output});
  path_.assign(size_t(depth) + 1, {0, 0, 1.0, 0});
  int32_t most_features = 0, at_depth = 0;
  std::vector<Visit> open{{0, -1, 0, false, 1.0, 1.0}};
  while (!open.empty()) {
    const Visit visit = open.back();
    open.pop_back();
    for (; at_depth >= std::max(visit.depth, 1); --at_depth) {  // leaves the last path
      last_[size_t(path_[size_t(at_depth)].place)] = path_[size_t(at_depth)].earlier;
    }
    const int64_t node = first + visit.node;
    const bool leaf = all_left_[node] < 0;
    at_depth = visit.depth;
    if (visit.parent >= 0) add_edge(first, visit, leaf);
    most_features = std::max(most_features, path_[size_t(visit.depth)].features);
    if (leaf) {
      add_to_expected(tree, first, visit);
      continue;
    }
    const double share = share_of_left(tree, first, visit.node);
    open.push_back({all_right_[node], visit.node, visit.depth + 1, true, 1 - share,
                    visit.reached * (1 - share)});
    open.push_back(
        {all_left_[node], visit.node, visit.depth + 1, false, share, visit.reached * share});
  }
  for (; at_depth >= 1; --at_depth) last_[size_t(path_[size_t(at_depth)].place)] = 0;
  ShapTree& added = trees_.back();
  added.end = int64_t(edges_.size());
  added.points = ceil_div(int64_t(most_features), int64_t(2));
  const int64_t size = (depth + 1) * added.points;
  TILEWRIGHT_CHECK(op_, size <= kMostSize, "tree ", tree, " is too deep: of depth ", depth,
                   " with ", most_features, " features on a path");
  added.point = rules_.place_of(added.points);
  most_depth_ = std::max<int64_t>(most_depth_, depth);
  most_size_ = std::max(most_size_, size);
  steps_ += (added.end - added.begin) * added.points;
}

void ShapPacker::add_edge(int64_t first, const Visit& visit, bool leaf) {
  const int64_t parent = first + visit.parent;
  const int32_t place = place_of(all_features_[parent]);
  last_.resize(used_.size(), 0);
  const int32_t earlier = last_[size_t(place)];
  const double above = path_[size_t(earlier)].product;
  path_[size_t(visit.depth)] = {place, earlier, above * visit.share,
                                path_[size_t(visit.depth) - 1].features + (earlier == 0)};
  last_[size_t(place)] = visit.depth;
  edges_.push_back({visit.share, above, all_thresholds_[parent], place, visit.depth, earlier,
                    parent, first + visit.node, visit.right, leaf, all_defaults_[parent]});
}

}  // namespace tilewright
