#include "tilewright/trees/tree_grower.h"

#include <ATen/Functions.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/tree_gradients.h"
#include "tilewright/trees/tree_growth.h"
#include "tilewright/trees/tree_leaves.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "grow_tree";
constexpr int64_t kRowChunk = kGradientRows;

// Rows of codes, each of a length that lies well in cache lines.
int64_t row_stride_of(int64_t features) {
  if (features > 32) return (features + 3) / 4 * 4;
  int64_t stride = 4;
  while (stride < features) stride *= 2;
  return stride;
}

}  // namespace

TreeGrower::TreeGrower(const at::Tensor& codes, const at::Tensor& bins, int64_t num_codes)
    : work_(std::make_unique<Workspace>()) {
  Workspace& w = *work_;
  const int64_t count = codes.size(0), features = codes.size(1);
  TILEWRIGHT_CHECK(kOp, count < (int64_t(1) << 31) - kTreePrefetch, "codes may have at most 2^31 ",
                   "rows, got ", count);
  w.codes.count = count;
  w.codes.features = features;
  w.codes.codes = num_codes;
  w.codes.row_stride = row_stride_of(features);
  w.codes.wide = codes.scalar_type() != at::kByte;
  const int64_t size = codes.element_size();
  w.row_codes = HugeBuffer(count * w.codes.row_stride * size);
  w.column_codes = HugeBuffer(count * features * size + 3);  // read four bytes at a time
  at::from_blob(w.row_codes.as<void>(), {count, features}, {w.codes.row_stride, 1}, codes.options())
      .copy_(codes);
  at::from_blob(w.column_codes.as<void>(), {features, count}, codes.options()).copy_(codes.t());
  w.bins = bins.to(at::kInt).contiguous();
  w.codes.rows = w.row_codes.as<void>();
  w.codes.columns = w.column_codes.as<void>();
  w.codes.bins = w.bins.const_data_ptr<int32_t>();
  w.few_rows = count <= kFewTreeRows;
  for (int side = 0; side < 2; ++side) {
    w.rows[side] = HugeBuffer((count + kTreePrefetch) * int64_t(sizeof(int32_t)));
    if (!w.few_rows) w.words[side] = HugeBuffer(count * int64_t(sizeof(int64_t)));
  }
  if (w.few_rows) w.pairs = HugeBuffer(count * int64_t(sizeof(TreeCount)));
  w.flags = HugeBuffer(count);
  w.histograms = std::make_unique<HistogramPool>(features * num_codes);
}

TreeGrower::~TreeGrower() = default;

GrownTree TreeGrower::grow(const at::Tensor& gradients, const at::Tensor& hessians,
                           const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TreeWordsParams params;
  const TreeGradients given(gradients, hessians, w.codes.count);
  const int bits = tree_fine_bits(w.codes.count);
  w.active = rows.empty() ? w.codes.count : int64_t(rows.size());
  const int side = w.active == w.codes.count ? -1 : 0;
  if (side == 0) std::copy(rows.begin(), rows.end(), w.rows[0].as<int32_t>());
  if (w.few_rows) {
    params = given.scaled(bits, bits);
    tree_pairs(params, w.pairs.as<TreeCount>(), w.codes.count);
  } else {
    params = given.scaled(kTreeGradientBits - 1, kTreeHessianBits);
    run_tree_tasks(ceil_div(w.active, kRowChunk), [&](int64_t c, int64_t) {
      const int64_t begin = c * kRowChunk, count = std::min(kRowChunk, w.active - begin);
      tree_words(params, w.rows_at(side, begin), count, w.words_at(side, begin));
    });
  }
  w.gradient_unit = 1 / params.gradient_scale;
  w.hessian_unit = 1 / params.hessian_scale;
  GrownTree tree = TreeGrowth(w, options).run();
  if (!w.few_rows) refine(given.scaled(bits, bits), options.rules, tree);
  return tree;
}

// Words are coarse, so leaves are answered anew from finer sums of their rows. A node above answers
// from the sums of its children.
void TreeGrower::refine(const TreeWordsParams& params, const TreeRegularisation& rules,
                        GrownTree& tree) const {
  const std::vector<GrownTree::Rows> chunks = leaf_chunks(tree);
  std::vector<TreeCount> found(2 * chunks.size());
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const GrownTree::Rows& chunk = chunks[size_t(c)];
    const LeafRows leaf = work_->leaf_rows(chunk);
    tree_fine_sums(params, leaf.rows, leaf.flags, chunk.end - chunk.begin, &found[size_t(2 * c)]);
  });
  std::vector<TreeCount> sums(tree.feature.size(), {0, 0});
  for (size_t c = 0; c < chunks.size(); ++c) {
    for (const size_t which : {0, 1}) {
      const int32_t leaf = which == 0 ? chunks[c].leaf : chunks[c].other;
      if (leaf < 0) continue;
      sums[size_t(leaf)].gradient += found[2 * c + which].gradient;
      sums[size_t(leaf)].hessian += found[2 * c + which].hessian;
    }
  }
  for (size_t node = tree.feature.size(); node-- > 0;) {  // children come after their parent
    if (tree.feature[node] >= 0) {
      const TreeCount &left = sums[size_t(tree.left[node])],
                      &right = sums[size_t(tree.right[node])];
      sums[node] = {left.gradient + right.gradient, left.hessian + right.hessian};
    }
    const TreeSum sum{double(sums[node].gradient) / params.gradient_scale,
                      double(sums[node].hessian) / params.hessian_scale};
    tree.weight[node] = leaf_weight(sum, rules, tree.bounds[node]);
    tree.cover[node] = sum.hessian;
  }
}

void TreeGrower::answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                                  const float* weights, double alpha) const {
  answer_leaf_quantiles(tree, labels, scores, weights, alpha,
                        [&](const GrownTree::Rows& part) { return work_->leaf_rows(part); });
}

void TreeGrower::add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                               float* scores) const {
  if (work_->active < work_->codes.count) return add_by_walking(tree, values, scores);
  add_leaf_values(tree, values, scores,
                  [&](const GrownTree::Rows& part) { return work_->leaf_rows(part); });
}

// Rows that did not take part find their leaf by their codes.
void TreeGrower::add_by_walking(const GrownTree& tree, const std::vector<float>& values,
                                float* scores) const {
  const TreeCodes& codes = work_->codes;
  const auto code_at = [&](int64_t row, int32_t feature) -> int64_t {
    const int64_t at = row * codes.row_stride + feature;
    return codes.wide ? static_cast<const uint16_t*>(codes.rows)[at]
                      : static_cast<const uint8_t*>(codes.rows)[at];
  };
  run_tree_tasks(ceil_div(codes.count, kRowChunk), [&](int64_t c, int64_t) {
    const int64_t end = std::min((c + 1) * kRowChunk, codes.count);
    for (int64_t row = c * kRowChunk; row < end; ++row) {
      size_t node = 0;
      while (tree.feature[node] >= 0) {
        const int64_t code = code_at(row, tree.feature[node]);
        const auto& categories = tree.categories[node];
        bool left = code <= tree.code[node];
        if (code == codes.codes - 1) {
          left = tree.default_left[node];
        } else if (!categories.empty()) {
          left = !std::binary_search(categories.begin(), categories.end(), int32_t(code));
        }
        node = size_t(left ? tree.left[node] : tree.right[node]);
      }
      scores[row] += values[node];
    }
  });
}

}  // namespace tilewright
