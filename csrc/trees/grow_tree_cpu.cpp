// grow_tree on the CPU: TreeGrower's tree, laid out as a full one.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/grow_tree_args.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright {
namespace {

constexpr int64_t kSearchGrain = 4096;

// A tree that has its root alone, which no row reaches.
GrownTree tree_of_no_rows() {
  GrownTree tree;
  tree.feature = {-1};
  tree.code = {0};
  tree.left = tree.right = {-1};
  tree.default_left = {0};
  tree.weight = tree.gain = tree.cover = {0};
  return tree;
}

// Some features of the tables, as contiguous tensors; at least one, so that a tree that may not
// split is no other case.
struct Chosen {
  std::vector<int32_t> feature;  // of the caller's
  at::Tensor codes, bins;
  std::vector<int8_t> monotone;
};

Chosen chosen_columns(const GrowTreeArgs& a) {
  Chosen out;
  if (a.columns.has_value()) {
    const at::Tensor columns = a.columns->contiguous();
    const auto* given = columns.const_data_ptr<bool>();
    for (int64_t f = 0; f < columns.numel(); ++f) {
      if (given[f]) out.feature.push_back(int32_t(f));
    }
  } else {
    for (int64_t f = 0; f < a.codes.size(1); ++f) out.feature.push_back(int32_t(f));
  }
  if (out.feature.empty()) {
    out.codes = at::zeros({a.codes.size(0), 1}, a.codes.options());
    out.bins = at::ones({1}, a.bins.options());
    return out;
  }
  out.codes = a.codes;
  out.bins = a.bins.contiguous();
  at::Tensor signs = a.monotone.has_value() ? a.monotone->contiguous() : at::Tensor();
  if (int64_t(out.feature.size()) < a.codes.size(1)) {
    const at::Tensor index =
        at::tensor(out.feature, a.codes.options().dtype(at::kInt)).to(at::kLong);
    out.codes = out.codes.index_select(1, index);
    out.bins = out.bins.index_select(0, index);
    if (signs.defined()) signs = signs.index_select(0, index);
  }
  if (signs.defined()) {
    const auto* sign = signs.const_data_ptr<int8_t>();
    out.monotone.assign(sign, sign + signs.numel());
  }
  return out;
}

GrownTree grow(const GrowTreeArgs& a, const Chosen& chosen) {
  std::vector<int32_t> rows;
  if (a.rows.has_value()) {
    const at::Tensor mask = a.rows->contiguous();
    const auto* plays = mask.const_data_ptr<bool>();
    for (int64_t i = 0; i < mask.numel(); ++i) {
      if (plays[i]) rows.push_back(int32_t(i));
    }
    if (rows.empty()) return tree_of_no_rows();
    if (int64_t(rows.size()) == mask.numel()) rows.clear();  // all
  }
  if (a.codes.size(0) == 0) return tree_of_no_rows();
  TreeOptions options;
  options.rules = a.rules;
  options.max_depth = a.max_depth;
  options.monotone = chosen.monotone;
  TreeGrower grower(chosen.codes, chosen.bins, a.num_codes);
  return grower.grow(tree_values(a.gradients), tree_values(a.hessians), rows, options);
}

// Node `node` of the tree to place `place` of the result, and what is below it.
struct Layout {
  const GrownTree& tree;
  const std::vector<int32_t>& features;
  int32_t *feature, *code;
  bool* default_left;
  double *weight, *gain, *cover;

  void put(int32_t node, int64_t place) const {
    const auto n = size_t(node);
    weight[place] = tree.weight[n];
    cover[place] = tree.cover[n];
    if (tree.feature[n] < 0) return;
    feature[place] = features[size_t(tree.feature[n])];
    code[place] = tree.code[n];
    default_left[place] = tree.default_left[n] != 0;
    gain[place] = tree.gain[n];
    put(tree.left[n], 2 * place + 1);
    put(tree.right[n], 2 * place + 2);
  }
};

template <class Code>
void walk(const at::Tensor& codes, int64_t missing, const Layout& tree, int32_t* leaf) {
  const auto* table = static_cast<const Code*>(codes.const_data_ptr());
  at::parallel_for(0, codes.size(0), kSearchGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int32_t place = 0;
      while (tree.feature[place] >= 0) {
        const int64_t code = table[row * codes.stride(0) + tree.feature[place] * codes.stride(1)];
        const bool left = code == missing ? tree.default_left[place] : code <= tree.code[place];
        place = 2 * place + (left ? 1 : 2);
      }
      leaf[row] = place;
    }
  });
}

GrowTreeResult grow_tree_cpu(const at::Tensor& codes, const at::Tensor& bins,
                             const at::Tensor& gradients, const at::Tensor& hessians,
                             int64_t num_codes, int64_t max_depth, double reg_lambda,
                             double reg_alpha, double gamma, double min_child_weight,
                             double max_delta_step, const std::optional<at::Tensor>& rows,
                             const std::optional<at::Tensor>& columns,
                             const std::optional<at::Tensor>& monotone) {
  const GrowTreeArgs args{codes,
                          bins,
                          gradients,
                          hessians,
                          num_codes,
                          max_depth,
                          {reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step},
                          rows,
                          columns,
                          monotone};
  check_grow_tree(args);
  check_codes_exist(kGrowTree, codes, num_codes);
  const at::Tensor in_use = bins.contiguous();
  const auto* used = in_use.const_data_ptr<int32_t>();
  for (int64_t f = 0; f < in_use.numel(); ++f) {
    TILEWRIGHT_CHECK(kGrowTree, used[f] >= 0 && used[f] < num_codes, "bins must lie in [0, ",
                     num_codes, "), that of feature ", f, " is ", used[f]);
  }
  const Chosen chosen = chosen_columns(args);
  const GrownTree tree = grow(args, chosen);
  GrowTreeResult result = empty_grow_tree(args);
  auto& [feature, code, default_left, weight, gain, cover, leaf] = result;
  feature.fill_(-1);
  for (at::Tensor* other : {&code, &default_left, &weight, &gain, &cover}) other->zero_();
  const Layout layout{tree,
                      chosen.feature,
                      feature.mutable_data_ptr<int32_t>(),
                      code.mutable_data_ptr<int32_t>(),
                      default_left.mutable_data_ptr<bool>(),
                      weight.mutable_data_ptr<double>(),
                      gain.mutable_data_ptr<double>(),
                      cover.mutable_data_ptr<double>()};
  layout.put(0, 0);
  auto* const leaves = leaf.mutable_data_ptr<int32_t>();
  codes.scalar_type() == at::kByte ? walk<uint8_t>(codes, num_codes - 1, layout, leaves)
                                   : walk<int16_t>(codes, num_codes - 1, layout, leaves);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("grow_tree", &grow_tree_cpu); }

}  // namespace tilewright
