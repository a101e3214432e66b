#include "tilewright/trees/tree_grower.h"

#include <ATen/Functions.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/quantile.h"
#include "tilewright/trees/tree_vector_growth.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "grow_tree";
constexpr int64_t kRowChunk = 65536;

// Rows of codes, each of a length that lies well in cache lines.
int64_t row_stride_of(int64_t features) {
  if (features > 32) return (features + 3) / 4 * 4;
  int64_t stride = 4;
  while (stride < features) stride *= 2;
  return stride;
}

// The rows of leaves, in pieces.
std::vector<GrownTree::Rows> leaf_chunks(const GrownTree& tree) {
  std::vector<GrownTree::Rows> chunks;
  for (const GrownTree::Rows& rows : tree.rows) {
    for (int64_t at = rows.begin; at < rows.end; at += kRowChunk) {
      chunks.push_back({rows.leaf, rows.other, rows.side, at, std::min(at + kRowChunk, rows.end)});
    }
  }
  return chunks;
}

void set_scales(TreeWordsParams& params, const TreeExtremes& most, int gradient_bits,
                int hessian_bits) {
  params.gradient_scale = tree_scale(most.gradient, gradient_bits);
  params.hessian_scale = tree_scale(most.hessian, hessian_bits);
}

}  // namespace

TreeGrower::TreeGrower(const at::Tensor& codes, const at::Tensor& bins, int64_t num_codes,
                       int64_t outputs)
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
  w.row_codes = HugeBuffer(count * w.codes.row_stride * size + kTreeCodesRead);
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

// One output's, (N,).
TreeWordsParams TreeGrower::params_of(const at::Tensor& gradients,
                                      const at::Tensor& hessians) const {
  const int64_t count = work_->codes.count;
  TILEWRIGHT_CHECK(kOp,
                   gradients.scalar_type() == hessians.scalar_type() && gradients.is_contiguous() &&
                       hessians.is_contiguous() && gradients.numel() == count &&
                       hessians.numel() == count,
                   "gradients and hessians must be contiguous, of one dtype and of ", count,
                   " rows, got ", gradients.scalar_type(), " ", shape_of(gradients), " and ",
                   hessians.scalar_type(), " ", shape_of(hessians));
  TreeWordsParams params{};
  params.gradients = gradients.const_data_ptr();
  params.hessians = hessians.const_data_ptr();
  params.is_double = gradients.scalar_type() == at::kDouble;
  return params;
}

TreeExtremes TreeGrower::extremes_of(const TreeWordsParams& params) const {
  const int64_t rows = work_->codes.count;
  std::vector<TreeExtremes> extremes(size_t(ceil_div(rows, kRowChunk)), {0, 0, -1});
  run_tree_tasks(int64_t(extremes.size()), [&](int64_t c, int64_t) {
    extremes[size_t(c)] = tree_extremes(params, c * kRowChunk, std::min((c + 1) * kRowChunk, rows));
  });
  TreeExtremes most{0, 0, -1};
  for (const TreeExtremes& part : extremes) {
    TILEWRIGHT_CHECK(kOp, part.bad < 0, "gradients must be finite and hessians finite and not ",
                     "negative; those of row ", part.bad, " are not");
    most.gradient = std::max(most.gradient, part.gradient);
    most.hessian = std::max(most.hessian, part.hessian);
  }
  return most;
}

void TreeGrower::take_rows(const std::vector<int32_t>& rows) {
  Workspace& w = *work_;
  w.active = rows.empty() ? w.codes.count : int64_t(rows.size());
  if (w.active < w.codes.count) std::copy(rows.begin(), rows.end(), w.rows[0].as<int32_t>());
}

GrownTree TreeGrower::grow(const at::Tensor& gradients, const at::Tensor& hessians,
                           const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TreeWordsParams params = params_of(gradients, hessians);
  const TreeExtremes most = extremes_of(params);
  take_rows(rows);
  const int bits = tree_fine_bits(w.codes.count);
  const int side = w.active == w.codes.count ? -1 : 0;
  if (w.few_rows) {
    set_scales(params, most, bits, bits);
    tree_pairs(params, w.pairs.as<TreeCount>(), w.codes.count);
  } else {
    set_scales(params, most, kTreeGradientBits - 1, kTreeHessianBits);
    run_tree_tasks(ceil_div(w.active, kRowChunk), [&](int64_t c, int64_t) {
      const int64_t begin = c * kRowChunk, count = std::min(kRowChunk, w.active - begin);
      tree_words(params, w.rows_at(side, begin), count, w.words_at(side, begin));
    });
  }
  w.gradient_unit = 1 / params.gradient_scale;
  w.hessian_unit = 1 / params.hessian_scale;
  GrownTree tree = TreeGrowth(w, options).run();
  if (!w.few_rows) {
    set_scales(params, most, bits, bits);
    refine(params, options.rules, tree);
  }
  return tree;
}

GrownTree TreeGrower::grow_vectors(const at::Tensor& gradients, const at::Tensor& hessians,
                                   const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TILEWRIGHT_CHECK(kOp,
                   w.outputs > 0 && gradients.dim() == 2 && gradients.size(0) == w.outputs &&
                       hessians.sizes() == gradients.sizes(),
                   "gradients and hessians must have shape (", w.outputs, ", N), got ",
                   shape_of(gradients), " and ", shape_of(hessians));
  TILEWRIGHT_CHECK(kOp, options.monotone.empty() && options.categorical.empty(),
                   "vector leaves know no monotone constraints and no categories");
  std::vector<TreeWordsParams> params;
  std::vector<TreeExtremes> most;
  for (int64_t k = 0; k < w.outputs; ++k) {
    params.push_back(params_of(gradients[k], hessians[k]));
    most.push_back(extremes_of(params.back()));
  }
  take_rows(rows);
  const int bits = tree_fine_bits(w.codes.count);
  const int64_t chunks = ceil_div(w.codes.count, kRowChunk);
  w.units.clear();
  for (size_t k = 0; k < params.size(); ++k) {
    w.few_rows ? set_scales(params[k], most[k], bits, bits)
               : set_scales(params[k], most[k], kTreeGradientBits - 1, kTreeHessianBits);
    w.units.push_back({1 / params[k].gradient_scale, 1 / params[k].hessian_scale});
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
  for (size_t k = 0; k < params.size(); ++k) {
    set_scales(params[k], most[k], bits, bits);
    refine(params[k], options.rules, tree, int64_t(k));
  }
  return tree;
}

// Words are coarse, so leaves are answered anew from finer sums of their rows. A node above answers
// from the sums of its children.
void TreeGrower::refine(const TreeWordsParams& params, const TreeRegularisation& rules,
                        GrownTree& tree, int64_t output) const {
  const std::vector<GrownTree::Rows> chunks = leaf_chunks(tree);
  std::vector<TreeCount> found(2 * chunks.size());
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const GrownTree::Rows& chunk = chunks[size_t(c)];
    tree_fine_sums(params, work_->rows_at(chunk.side, chunk.begin), work_->flags_of(chunk),
                   chunk.end - chunk.begin, &found[size_t(2 * c)]);
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
    tree.weight[node * size_t(tree.outputs) + size_t(output)] =
        leaf_weight(sum, rules, tree.bounds[node]);
    // The mean over outputs.
    tree.cover[node] = (output == 0 ? 0 : tree.cover[node]) + sum.hessian / double(tree.outputs);
  }
}

void TreeGrower::answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                                  const float* weights, double alpha, int64_t output) const {
  run_tree_tasks(int64_t(tree.rows.size()), [&](int64_t task, int64_t) {
    const GrownTree::Rows& part = tree.rows[size_t(task)];
    const TreeRows rows = work_->rows_at(part.side, part.begin);
    const uint8_t* flags = work_->flags_of(part);
    std::vector<trees::QuantileItem> items[2];
    for (int64_t i = 0; i < part.end - part.begin; ++i) {
      const int64_t row = rows.list == nullptr ? rows.first + i : rows.list[i];
      items[flags != nullptr && flags[i] == 0].push_back(
          {labels[row] - scores[row], weights == nullptr ? 1.f : weights[row]});
    }
    for (const size_t which : {0, 1}) {
      const int32_t leaf = which == 0 ? part.leaf : part.other;
      if (leaf < 0) continue;
      const double answer = trees::quantile_of(items[which], alpha, weights != nullptr);
      const TreeBounds bounds = tree.bounds[size_t(leaf)];
      tree.weight[size_t(leaf * tree.outputs + output)] =
          std::min(std::max(answer, bounds.lower), bounds.upper);
    }
  });
}

void TreeGrower::add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                               float* scores) const {
  const Workspace& w = *work_;
  if (w.active < w.codes.count) return add_by_walking(tree, values, scores);
  const std::vector<GrownTree::Rows> chunks = leaf_chunks(tree);
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const GrownTree::Rows& chunk = chunks[size_t(c)];
    const float of_leaves[2] = {values[size_t(chunk.leaf)],
                                chunk.other < 0 ? 0.f : values[size_t(chunk.other)]};
    tree_add_values(w.rows_at(chunk.side, chunk.begin), w.flags_of(chunk), chunk.end - chunk.begin,
                    of_leaves, scores);
  });
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
