#include "tilewright/trees/tree_grower.h"

#include <ATen/Functions.h>

#include <cmath>
#include <numeric>

#include "tilewright/core/check.h"
#include "tilewright/trees/quantile.h"
#include "tilewright/trees/tree_growth.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "grow_tree";
constexpr int64_t kRowChunk = 65536;

// 2^k so that values up to `most` fill `bits` bits.
double scale_of(double most, int bits) {
  if (most <= 0) return 1;
  int exponent = 0;
  std::frexp(most, &exponent);
  return std::ldexp(1.0, bits - exponent);
}

// Rows of codes, each of a length that lies well in cache lines.
int64_t row_stride_of(int64_t features) {
  if (features > 32) return (features + 3) / 4 * 4;
  int64_t stride = 4;
  while (stride < features) stride *= 2;
  return stride;
}

// Some of the rows of a leaf.
struct LeafChunk {
  size_t leaf;
  int64_t begin, end;
};

std::vector<LeafChunk> leaf_chunks(const GrownTree& tree) {
  std::vector<LeafChunk> chunks;
  for (size_t node = 0; node < tree.feature.size(); ++node) {
    if (tree.feature[node] >= 0) continue;
    for (int64_t at = tree.begin[node]; at < tree.end[node]; at += kRowChunk) {
      chunks.push_back({node, at, std::min(at + kRowChunk, tree.end[node])});
    }
  }
  return chunks;
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
  w.column_codes = HugeBuffer(count * features * size);
  at::from_blob(w.row_codes.as<void>(), {count, features}, {w.codes.row_stride, 1}, codes.options())
      .copy_(codes);
  at::from_blob(w.column_codes.as<void>(), {features, count}, codes.options()).copy_(codes.t());
  w.bins = bins.to(at::kInt).contiguous();
  w.codes.rows = w.row_codes.as<void>();
  w.codes.columns = w.column_codes.as<void>();
  w.codes.bins = w.bins.const_data_ptr<int32_t>();
  w.few_rows = count <= kFewTreeRows;
  w.words = HugeBuffer(count * int64_t(w.few_rows ? sizeof(TreeCount) : sizeof(int64_t)));
  w.rows = HugeBuffer((count + kTreePrefetch) * int64_t(sizeof(int32_t)));
  w.moved = HugeBuffer(count * int64_t(sizeof(int32_t)));
  w.histograms = std::make_unique<HistogramPool>(features * num_codes);
}

TreeGrower::~TreeGrower() = default;

GrownTree TreeGrower::grow(const at::Tensor& gradients, const at::Tensor& hessians,
                           const std::vector<int32_t>& rows, const TreeOptions& options) {
  Workspace& w = *work_;
  TILEWRIGHT_CHECK(kOp,
                   gradients.scalar_type() == hessians.scalar_type() && gradients.is_contiguous() &&
                       hessians.is_contiguous() && gradients.numel() == w.codes.count &&
                       hessians.numel() == w.codes.count,
                   "gradients and hessians must be contiguous, of one dtype and of ", w.codes.count,
                   " rows, got ", gradients.scalar_type(), " ", shape_of(gradients), " and ",
                   hessians.scalar_type(), " ", shape_of(hessians));
  TreeWordsParams params{};
  params.gradients = gradients.const_data_ptr();
  params.hessians = hessians.const_data_ptr();
  params.is_double = gradients.scalar_type() == at::kDouble;
  params.words = w.words.as<int64_t>();
  const int64_t chunks = ceil_div(w.codes.count, kRowChunk);
  const auto over_rows = [&](const auto& body) {
    run_tree_tasks(chunks, [&](int64_t c, int64_t) {
      body(c, c * kRowChunk, std::min((c + 1) * kRowChunk, w.codes.count));
    });
  };
  std::vector<TreeExtremes> extremes(size_t(chunks), {0, 0, -1});
  over_rows([&](int64_t c, int64_t begin, int64_t end) {
    extremes[size_t(c)] = tree_extremes(params, begin, end);
  });
  TreeExtremes most{0, 0, -1};
  for (const TreeExtremes& part : extremes) {
    TILEWRIGHT_CHECK(kOp, part.bad < 0, "gradients must be finite and hessians finite and not ",
                     "negative; those of row ", part.bad, " are not");
    most.gradient = std::max(most.gradient, part.gradient);
    most.hessian = std::max(most.hessian, part.hessian);
  }
  const auto set_scales = [&](int gradient_bits, int hessian_bits) {
    params.gradient_scale = scale_of(most.gradient, gradient_bits);
    params.hessian_scale = scale_of(most.hessian, hessian_bits);
  };
  int bits = 62;  // of a row's values, so that the sum of all fits
  while (bits > 1 && w.codes.count >> (62 - bits)) --bits;
  if (w.few_rows) {
    set_scales(bits, bits);
    tree_pairs(params, w.words.as<TreeCount>(), w.codes.count);
  } else {
    set_scales(kTreeGradientBits - 1, kTreeHessianBits);
    over_rows([&](int64_t, int64_t begin, int64_t end) { tree_words(params, begin, end); });
  }
  w.gradient_unit = 1 / params.gradient_scale;
  w.hessian_unit = 1 / params.hessian_scale;
  if (rows.empty()) {
    w.active = w.codes.count;
    over_rows([&](int64_t, int64_t begin, int64_t end) {
      std::iota(w.rows.as<int32_t>() + begin, w.rows.as<int32_t>() + end, int32_t(begin));
    });
  } else {
    w.active = int64_t(rows.size());
    std::copy(rows.begin(), rows.end(), w.rows.as<int32_t>());
  }
  GrownTree tree = TreeGrowth(w, options).run();
  if (!w.few_rows) {
    set_scales(bits, bits);
    refine(params, options.rules, tree);
  }
  return tree;
}

// Words are coarse, so leaves are answered anew from finer sums of their rows. A node above answers
// from the sums of its children.
void TreeGrower::refine(const TreeWordsParams& params, const TreeRegularisation& rules,
                        GrownTree& tree) const {
  const std::vector<LeafChunk> chunks = leaf_chunks(tree);
  std::vector<TreeCount> found(chunks.size());
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const LeafChunk& chunk = chunks[size_t(c)];
    found[size_t(c)] =
        tree_fine_sum(params, work_->rows.as<int32_t>() + chunk.begin, chunk.end - chunk.begin);
  });
  std::vector<TreeCount> sums(tree.feature.size(), {0, 0});
  for (size_t c = 0; c < chunks.size(); ++c) {
    sums[chunks[c].leaf].gradient += found[c].gradient;
    sums[chunks[c].leaf].hessian += found[c].hessian;
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
  const auto* rows = work_->rows.as<int32_t>();
  run_tree_tasks(int64_t(tree.feature.size()), [&](int64_t task, int64_t) {
    const auto node = size_t(task);
    if (tree.feature[node] >= 0) return;
    std::vector<trees::QuantileItem> items;
    for (int64_t i = tree.begin[node]; i < tree.end[node]; ++i) {
      const int32_t row = rows[i];
      items.push_back({labels[row] - scores[row], weights == nullptr ? 1.f : weights[row]});
    }
    const double answer = trees::quantile_of(items, alpha, weights != nullptr);
    const TreeBounds bounds = tree.bounds[node];
    tree.weight[node] = std::min(std::max(answer, bounds.lower), bounds.upper);
  });
}

void TreeGrower::add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                               float* scores) const {
  const Workspace& w = *work_;
  if (w.active < w.codes.count) return add_by_walking(tree, values, scores);
  const std::vector<LeafChunk> chunks = leaf_chunks(tree);
  const auto* rows = w.rows.as<int32_t>();
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const LeafChunk& chunk = chunks[size_t(c)];
    const float value = values[chunk.leaf];
    for (int64_t i = chunk.begin; i < chunk.end; ++i) scores[rows[i]] += value;
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
        const bool left =
            code == codes.codes - 1 ? bool(tree.default_left[node]) : code <= tree.code[node];
        node = size_t(left ? tree.left[node] : tree.right[node]);
      }
      scores[row] += values[node];
    }
  });
}

}  // namespace tilewright
