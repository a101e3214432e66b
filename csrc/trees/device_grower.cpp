#include "tilewright/trees/device_grower.h"

#include <ATen/ATen.h>

#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/grow_tree.h"
#include "tilewright/trees/grow_tree_args.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

// Of trees that wait on the device: 37 bytes each.
constexpr int64_t kMostPlaces = int64_t(1) << 22;

// Arrays of one full tree, on the host.
struct Places {
  const int32_t *feature, *code;
  const bool* default_left;
  const double *weight, *gain, *cover;
};

// Its nodes level by level, which is the order that the CPU makes them in; places that are not
// reached are left out.
GrownTree nodes_of(const Places& places) {
  GrownTree tree;
  std::vector<int64_t> order{0};
  for (size_t n = 0; n < order.size(); ++n) {
    const int64_t place = order[n];
    const bool split = places.feature[place] >= 0;
    tree.feature.push_back(places.feature[place]);
    tree.code.push_back(places.code[place]);
    tree.default_left.push_back(places.default_left[place]);
    tree.weight.push_back(places.weight[place]);
    tree.gain.push_back(places.gain[place]);
    tree.cover.push_back(places.cover[place]);
    tree.categories.emplace_back();
    tree.left.push_back(split ? int32_t(order.size()) : -1);
    tree.right.push_back(split ? int32_t(order.size() + 1) : -1);
    if (split) order.insert(order.end(), {2 * place + 1, 2 * place + 2});
  }
  return tree;
}

std::optional<Tensor> signs_of(const std::vector<int8_t>& monotone, at::Device device) {
  if (monotone.empty()) return std::nullopt;
  return at::tensor(monotone, at::kChar).to(device);
}

}  // namespace

void check_device_fit(const BoosterOptions& options, const Objective& objective, const Tensor& x) {
  const TreeOptions& tree = options.tree;
  const auto check = [](bool serves, const char* rule, const auto& got) {
    TILEWRIGHT_CHECK("trees", serves, "a fit on CUDA takes ", rule, ", got ", got,
                     "; the CPU takes it: fit x.cpu()");
  };
  check(x.layout() == at::kStrided, "dense tables", x.layout());
  check(options.tree_method == "hist", "tree_method 'hist'", options.tree_method);
  check(options.multi_strategy == "one_output_per_tree", "multi_strategy 'one_output_per_tree'",
        options.multi_strategy);
  check(!tree.loss_guided, "grow_policy 'depthwise'", "'lossguide'");
  check(tree.max_depth >= 1 && tree.max_depth <= kMostTreeDepth, "a max_depth from 1 to 16",
        tree.max_depth == 0 ? "any (0, None)" : std::to_string(tree.max_depth));
  check(tree.max_leaves == 0, "no max_leaf_nodes", tree.max_leaves);
  check(tree.colsample_bylevel >= 1, "no colsample_bylevel", tree.colsample_bylevel);
  check(tree.colsample_bynode >= 1, "no colsample_bynode", tree.colsample_bynode);
  for (size_t f = 0; f < tree.categorical.size(); ++f) {
    check(!tree.categorical[f], "no categorical_features", "column " + std::to_string(f));
  }
  check(objective.leaf_quantile() < 0, "no loss whose leaves are quantiles", options.objective);
  check(!objective.takes_queries(), "no loss of ranking", options.objective);
}

DeviceGrower::DeviceGrower(const BoosterOptions& options, int64_t outputs, const Tensor& codes,
                           const Tensor& cuts, const Tensor& count)
    : options_(options),
      outputs_(outputs),
      places_((int64_t(2) << options.tree.max_depth) - 1),
      codes_(codes),
      cuts_(cuts.contiguous()),
      bins_(count + 1),
      host_cuts_(cuts_.cpu()),
      monotone_(signs_of(options.tree.monotone, codes.device())),
      columns_(options, outputs, codes.size(1), codes.device()) {}

void DeviceGrower::grow(int64_t round, Tensor gradients, Tensor hessians, double rate,
                        Tensor& sums) {
  const auto rows = draw_mask_of_round(options_.sampling, options_.learning_rate, round,
                                       options_.seed, codes_, gradients, hessians);
  const TreeRegularisation& rules = options_.tree.rules;
  last_round_.clear();
  for (int64_t k = 0; k < outputs_; ++k) {
    const auto columns = columns_.of_tree(round * outputs_ + k);
    auto [feature, code, default_left, weight, gain, cover, leaf] =
        grow_tree(codes_, bins_, gradients[k], hessians[k], codes_of(options_.max_bin),
                  options_.tree.max_depth, rules.lambda, rules.alpha, rules.gamma,
                  rules.min_child_weight, rules.max_delta_step, rows, columns, monotone_);
    const Tensor answer = (weight * rate).to(at::kFloat);
    sums[k].add_(answer.index_select(0, leaf));
    last_round_.push_back({feature, code, default_left, weight, gain, cover, answer, rate, k});
  }
  trees_.insert(trees_.end(), last_round_.begin(), last_round_.end());
}

EnsembleArrays DeviceGrower::last_round() {
  const auto all = [&](Tensor Tree::*array) {
    std::vector<Tensor> parts;
    for (const Tree& tree : last_round_) parts.push_back(tree.*array);
    return at::cat(parts);
  };
  const auto ints = codes_.options().dtype(at::kInt), longs = ints.dtype(at::kLong);
  if (!children_.defined()) children_ = at::arange(1, 2 * places_, 2, ints).repeat({outputs_});
  const Tensor feature = all(&Tree::feature), split = feature >= 0, leaf = split.logical_not();
  EnsembleArrays out;
  out.feature = feature.clamp_min(0);
  const Tensor threshold = cuts_.view({-1}).index_select(
      0, out.feature.to(at::kLong) * cuts_.size(1) + all(&Tree::code));
  // asks_what_is_missing, of all nodes at once.
  const Tensor swapped = (threshold < HUGE_VALF).logical_not_();
  out.threshold = threshold.masked_fill(swapped, -HUGE_VALF);
  out.left = (children_ + swapped).masked_fill_(leaf, -1).to(at::kInt);
  out.right = (children_ + swapped.logical_not()).masked_fill_(leaf, -1).to(at::kInt);
  out.default_left = all(&Tree::default_left).logical_or(swapped);
  out.value = all(&Tree::answer).masked_fill_(split, 0);
  out.tree_ptr = at::arange(outputs_ + 1, longs) * places_;
  out.tree_output = at::arange(outputs_, ints);
  out.num_outputs = outputs_;
  return out;
}

bool DeviceGrower::is_full() const { return int64_t(trees_.size()) * places_ >= kMostPlaces; }

void DeviceGrower::give(ArraysBuilder& builder) {
  if (trees_.empty()) return;
  const auto on_host = [&](Tensor Tree::*array) {
    std::vector<Tensor> parts;
    for (const Tree& tree : trees_) parts.push_back(tree.*array);
    return at::stack(parts).cpu();
  };
  const Tensor feature = on_host(&Tree::feature), code = on_host(&Tree::code),
               default_left = on_host(&Tree::default_left), weight = on_host(&Tree::weight),
               gain = on_host(&Tree::gain), cover = on_host(&Tree::cover);
  for (size_t t = 0; t < trees_.size(); ++t) {
    const int64_t first = int64_t(t) * places_;
    const GrownTree tree = nodes_of(
        {feature.const_data_ptr<int32_t>() + first, code.const_data_ptr<int32_t>() + first,
         default_left.const_data_ptr<bool>() + first, weight.const_data_ptr<double>() + first,
         gain.const_data_ptr<double>() + first, cover.const_data_ptr<double>() + first});
    builder.add(tree, host_cuts_, trees_[t].rate, trees_[t].output);
  }
  trees_.clear();
}

}  // namespace tilewright::trees
