#include "tilewright/trees/tree_grower.h"

#include <ATen/Functions.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/tree_gradients.h"
#include "tilewright/trees/tree_leaves.h"
#include "tilewright/trees/tree_vector_growth.h"

namespace tilewright {
namespace {

constexpr int64_t kRowChunk = kGradientRows;

// Rows of codes, each of a length that lies well in cache lines.
int64_t row_stride_of(int64_t features) {
  if (features > 32) return (features + 3) / 4 * 4;
  int64_t stride = 4;
  while (stride < features) stride *= 2;
  return stride;
}

}  // namespace

TreeGrower::TreeGrower(const at::Tensor& codes, const at::Tensor& bins, int64_t num_codes,
                       int64_t outputs)
    : TreeGrower(codes.size(0), codes.scalar_type(), bins, num_codes, outputs) {
  take_codes(0, codes);
}

void TreeGrower::take_codes(int64_t first, const at::Tensor& codes) {
  Workspace& w = *work_;
  const int64_t features = w.codes.features;
  at::from_blob(w.row_codes.as<void>(), {w.codes.count, features}, {w.codes.row_stride, 1},
                codes.options())
      .narrow(0, first, codes.size(0))
      .copy_(codes);
  at::from_blob(w.column_codes.as<void>(), {features, w.codes.count}, codes.options())
      .narrow(1, first, codes.size(0))
      .copy_(codes.t());
}

TreeGrower::TreeGrower(int64_t count, at::ScalarType code, const at::Tensor& bins,
                       int64_t num_codes, int64_t outputs)
    : work_(std::make_unique<Workspace>()) {
  Workspace& w = *work_;
  const int64_t features = bins.numel();
  TILEWRIGHT_CHECK(kGrowTree, count < (int64_t(1) << 31) - kTreePrefetch,
                   "codes may have at most 2^31 ", "rows, got ", count);
  w.codes.count = count;
  w.codes.features = features;
  w.codes.codes = num_codes;
  w.codes.row_stride = row_stride_of(features);
  w.codes.wide = code != at::kByte;
  const auto size = int64_t(c10::elementSize(code));
  w.row_codes = HugeBuffer(count * w.codes.row_stride * size + kTreeCodesRead);
  w.column_codes = HugeBuffer(count * features * size + 3);  // read four bytes at a time
  w.bins = bins.to(at::kInt).contiguous();
  w.codes.rows = w.row_codes.as<void>();
  w.codes.columns = w.column_codes.as<void>();
  w.codes.bins = w.bins.const_data_ptr<int32_t>();
  w.few_rows = count <= kFewTreeRows;
  for (int side = 0; side < 2; ++side) {
    w.rows[side] = HugeBuffer((count + kTreePrefetch) * int64_t(sizeof(int32_t)));
    if (!w.few_rows && outputs == 0) {
      w.words[side] = HugeBuffer(count * int64_t(sizeof(int64_t)));
    }
  }
  w.outputs = outputs;
  const int64_t all = w.histograms_of_node();
  if (w.few_rows) w.pairs = HugeBuffer(all * count * int64_t(sizeof(TreeCount)));
  if (!w.few_rows && outputs > 0) {
    w.output_words = HugeBuffer(outputs * count * int64_t(sizeof(int64_t)));
  }
  w.flags = HugeBuffer(count);
  w.histograms = std::make_unique<HistogramPool>(all * features * num_codes);
}

TreeGrower::~TreeGrower() = default;

void TreeGrower::take_rows(const std::vector<int32_t>& rows) {
  Workspace& w = *work_;
  w.active = rows.empty() ? w.codes.count : int64_t(rows.size());
  if (w.active < w.codes.count) std::copy(rows.begin(), rows.end(), w.rows[0].as<int32_t>());
}

GrownTree TreeGrower::grow(const at::Tensor& gradients, const at::Tensor& hessians,
                           const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TreeWordsParams params;
  const TreeGradients given(gradients, hessians, w.codes.count);
  take_rows(rows);
  const int bits = tree_fine_bits(w.codes.count);
  const int side = w.active == w.codes.count ? -1 : 0;
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

GrownTree TreeGrower::grow_vectors(const at::Tensor& gradients, const at::Tensor& hessians,
                                   const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TILEWRIGHT_CHECK(kGrowTree,
                   w.outputs > 0 && gradients.dim() == 2 && gradients.size(0) == w.outputs &&
                       hessians.sizes() == gradients.sizes(),
                   "gradients and hessians must have shape (", w.outputs, ", N), got ",
                   shape_of(gradients), " and ", shape_of(hessians));
  TILEWRIGHT_CHECK(kGrowTree, options.monotone.empty() && options.categorical.empty(),
                   "vector leaves know no monotone constraints and no categories");
  std::vector<TreeGradients> given;
  for (int64_t k = 0; k < w.outputs; ++k) {
    given.emplace_back(gradients[k], hessians[k], w.codes.count);
  }
  take_rows(rows);
  const int bits = tree_fine_bits(w.codes.count);
  const int64_t chunks = ceil_div(w.codes.count, kRowChunk);
  std::vector<TreeWordsParams> params;
  w.units.clear();
  for (const TreeGradients& output : given) {
    params.push_back(w.few_rows ? output.scaled(bits, bits)
                                : output.scaled(kTreeGradientBits - 1, kTreeHessianBits));
    w.units.push_back({1 / params.back().gradient_scale, 1 / params.back().hessian_scale});
  }
  run_tree_tasks(chunks * w.outputs, [&](int64_t task, int64_t) {
    const int64_t k = task / chunks, begin = task % chunks * kRowChunk;
    const int64_t at = k * w.codes.count;
    if (w.few_rows) {  // which are one chunk
      tree_pairs(params[size_t(k)], w.pairs.as<TreeCount>() + at, w.codes.count);
    } else {
      tree_words(params[size_t(k)], TreeRows{nullptr, begin},
                 std::min(kRowChunk, w.codes.count - begin),
                 w.output_words.as<int64_t>() + at + begin);
    }
  });
  GrownTree tree = VectorGrowth(w, options).run();
  if (w.few_rows) return tree;
  for (int64_t k = 0; k < w.outputs; ++k) {
    refine(given[size_t(k)].scaled(bits, bits), options.rules, tree, k);
  }
  return tree;
}

// Words are coarse, so leaves are answered anew from finer sums of their rows. A node above answers
// from the sums of its children.
void TreeGrower::refine(const TreeWordsParams& params, const TreeRegularisation& rules,
                        GrownTree& tree, int64_t output) const {
  std::vector<std::vector<TreeCount>> of_threads(size_t(at::get_num_threads()));
  for (auto& sums : of_threads) sums.assign(tree.feature.size(), {0, 0});
  const auto rows_of = [&](const GrownTree::Rows& part) { return work_->leaf_rows(part); };
  over_leaf_pieces(tree, work_->codes.count, rows_of, [&](const auto& piece, int64_t thread) {
    const LeafRows leaf = rows_of(piece);
    TreeCount found[2];
    tree_fine_sums(params, leaf.rows, leaf.flags, piece.end - piece.begin, found);
    for (const size_t which : {0, 1}) {
      const int32_t id = which == 0 ? piece.leaf : piece.other;
      if (id >= 0) add_to(of_threads[size_t(thread)][size_t(id)], found[which]);
    }
  });
  std::vector<TreeCount>& sums = of_threads[0];
  for (size_t thread = 1; thread < of_threads.size(); ++thread) {
    for (size_t node = 0; node < sums.size(); ++node) add_to(sums[node], of_threads[thread][node]);
  }
  for (size_t node = tree.feature.size(); node-- > 0;) {  // children come after their parent
    if (tree.feature[node] >= 0) {
      const TreeCount &left = sums[size_t(tree.left[node])],
                      &right = sums[size_t(tree.right[node])];
      sums[node] = {left.gradient + right.gradient, left.hessian + right.hessian};
    }
    const TreeSum sum{double(sums[node].gradient) / params.gradient_scale,
                      double(sums[node].hessian) / params.hessian_scale};
    tree.weight[node * size_t(tree.outputs) + size_t(output)] =
        leaf_weight(sum, rules, tree.bounds[node]);
    // The mean over outputs.
    tree.cover[node] = (output == 0 ? 0 : tree.cover[node]) + sum.hessian / double(tree.outputs);
  }
}

void TreeGrower::answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                                  const float* weights, double alpha, int64_t output) const {
  answer_leaf_quantiles(tree, labels, scores, weights, alpha, output,
                        [&](const GrownTree::Rows& part) { return work_->leaf_rows(part); });
}

void TreeGrower::add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                               float* scores) const {
  if (work_->active < work_->codes.count) return add_by_walking(tree, values, scores);
  add_leaf_values(tree, values, work_->codes.count, scores,
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
