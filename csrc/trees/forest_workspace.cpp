#include "tilewright/trees/forest_workspace.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "tilewright/core/philox.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr uint32_t kForestRows = 18;  // another draw than those of TreeDraw

}  // namespace

RowSampler::RowSampler(const double* weights, int64_t rows) : rows_(rows) {
  if (weights == nullptr) return;
  double total = 0;
  for (int64_t i = 0; i < rows; ++i) total += weights[i];
  const double scale = 0x1p62 / total;
  uint64_t end = 0;
  ends_.resize(size_t(rows));
  for (int64_t i = 0; i < rows; ++i) {
    end += uint64_t(weights[i] * scale);
    ends_[size_t(i)] = end;
  }
  guide_.resize(size_t(rows));
  int64_t row = 0;
  for (int64_t part = 0; part < rows; ++part) {
    const auto begin = uint64_t((__uint128_t(end) * uint64_t(part)) / uint64_t(rows));
    while (ends_[size_t(row)] <= begin && row + 1 < rows) ++row;
    guide_[size_t(part)] = int32_t(row);
  }
}

void RowSampler::draw(int64_t draws, uint32_t tree, uint64_t seed, int32_t* counts) const {
  for (int64_t i = 0; i < draws; i += 4) {
    if (!ends_.empty()) {
      const Philox random = philox(uint32_t(i / 4), uint32_t(i >> 34), kForestRows, tree, seed);
      const Philox second = philox(uint32_t(i / 4), uint32_t(i >> 34), kForestRows + 1, tree, seed);
      for (int64_t j = 0; j < std::min<int64_t>(4, draws - i); ++j) {
        const uint64_t word = uint64_t(random.word[j]) << 32 | second.word[j];
        const auto place = uint64_t((__uint128_t(word) * ends_.back()) >> 64);
        auto row = guide_[size_t((__uint128_t(word) * uint64_t(rows_)) >> 64)];
        while (ends_[size_t(row)] <= place) ++row;
        ++counts[row];
      }
      continue;
    }
    const Philox random = philox(uint32_t(i / 4), uint32_t(i >> 34), kForestRows, tree, seed);
    for (int64_t j = 0; j < std::min<int64_t>(4, draws - i); ++j) {
      ++counts[(uint64_t(random.word[j]) * uint64_t(rows_)) >> 32];
    }
  }
}

ForestWorkspace::ForestWorkspace(const ForestData& data, const ForestRules& rules, bool keep_rows)
    : data_(data), rules_(rules), keep_rows_(keep_rows) {
  const int64_t rows = data.rows(), outputs = data.table().outputs;
  rows_.resize(size_t(rows));
  if (rules.max_depth != 1) scratch_.resize(size_t(rows));  // leaves need no order
  words_.resize(size_t(rows * (rules.stats == ForestStats::kValues ? outputs + 2 : 1)));
  int64_t leaves = std::max<int64_t>(rows / rules.min_leaf, 1);
  if (rules.max_leaves > 0) leaves = std::min(leaves, rules.max_leaves);
  if (rules.max_depth > 0 && rules.max_depth < 40) {
    leaves = std::min(leaves, int64_t(1) << rules.max_depth);
  }
  // Not initialised: pages that a tree does not reach cost nothing.
  const auto nodes = size_t(2 * leaves - 1);
  indices_.reset(new int32_t[4 * nodes]);
  default_left_.reset(new uint8_t[nodes]);
  floats_.reset(new float[nodes * size_t(outputs + 2)]);
  nodes_.feature = indices_.get();
  nodes_.code = indices_.get() + nodes;
  nodes_.left = indices_.get() + 2 * nodes;
  nodes_.right = indices_.get() + 3 * nodes;
  nodes_.default_left = default_left_.get();
  nodes_.gain = floats_.get();
  nodes_.cover = floats_.get() + nodes;
  nodes_.value = floats_.get() + 2 * nodes;
  if (!keep_rows) return;
  places_.reset(new int64_t[2 * nodes]);
  nodes_.begin = places_.get();
  nodes_.end = places_.get() + nodes;
}

ForestTree ForestWorkspace::grow_counts(uint32_t tree, ForestParallel parallel, int64_t tasks) {
  double most = 0;
  for (const int32_t count : counts) most += count;
  const int32_t* of = counts.data();
  return grow(
      tree, 1, most, [of](int64_t row) { return double(of[row]); }, parallel, tasks);
}

ForestTree ForestWorkspace::grow_weights(uint32_t tree, const double* weights, double most,
                                         ForestParallel parallel, int64_t tasks) {
  // A power of two, so that the unit is exact and equal weights stay equal.
  const double unit = std::ldexp(1.0, int(std::ceil(std::log2(most))) - 60);
  return grow(
      tree, unit, most, [weights](int64_t row) { return weights[row]; }, parallel, tasks);
}

template <class Weight>
ForestTree ForestWorkspace::grow(uint32_t tree, double unit, double most, const Weight& weight,
                                 ForestParallel parallel, int64_t tasks) {
  ForestTable table = data_.table();
  table.weight_unit = unit;
  const double bound = most * data_.greatest();
  table.value_unit = bound > 0 ? std::ldexp(1.0, std::ilogb(bound) + 1 - 60) : 1;
  const double scale = 1 / unit, value_scale = 1 / table.value_unit;
  const int64_t outputs = table.outputs;
  int64_t count = 0;
  double total = 0;
  for (int64_t row = 0; row < data_.rows(); ++row) {
    const double w = weight(row);
    const int64_t whole = std::llrint(w * scale);
    if (whole == 0) continue;
    rows_[size_t(count++)] = int32_t(row);
    total += double(whole);
    int64_t* words = words_.data();
    switch (rules_.stats) {
      case ForestStats::kPacked:
        words[row] = 1 | whole << kForestFieldBits |
                     (table.labels[row] == 1 ? whole : 0) << (2 * kForestFieldBits);
        break;
      case ForestStats::kClasses: words[row] = whole; break;
      case ForestStats::kValues:
        words += row * (outputs + 2);
        for (int64_t o = 0; o < outputs; ++o) {
          words[o] = std::llrint(w * table.values[row * outputs + o] * value_scale);
        }
        words[outputs] = whole;
        words[outputs + 1] = 1;
        break;
    }
  }
  return grow(table, most,
              {tree, nullptr, nullptr, count, total, nullptr, keep_rows_, parallel, tasks});
}

ForestTree ForestWorkspace::grow_words(uint32_t tree, ForestParallel parallel, int64_t tasks) {
  ForestTable table = data_.table();
  table.weight_unit = 0x1p-60;
  int64_t count = 0, total = 0;
  for (int64_t row = 0; row < data_.rows(); ++row) {
    rows_[size_t(count)] = int32_t(row);
    count += words_[size_t(row)] != 0;
    total += words_[size_t(row)];
  }
  return grow(table, double(total) * table.weight_unit,
              {tree, nullptr, nullptr, count, double(total), nullptr, true, parallel, tasks});
}

// `most`: the weight of all rows. The sample's arrays are the workspace's.
ForestTree ForestWorkspace::grow(const ForestTable& table, double most, ForestSample sample) {
  const int64_t outputs = table.outputs;
  ForestRules rules = rules_;
  rules.min_weight = rules_.min_weight * most / table.weight_unit;
  sample.rows = rows_.data();
  sample.scratch = scratch_.empty() ? nullptr : scratch_.data();
  sample.words = words_.data();
  const int64_t nodes = grow_forest_tree(table, rules, sample, nodes_);
  ForestTree out;
  out.feature.assign(nodes_.feature, nodes_.feature + nodes);
  out.code.assign(nodes_.code, nodes_.code + nodes);
  out.left.assign(nodes_.left, nodes_.left + nodes);
  out.right.assign(nodes_.right, nodes_.right + nodes);
  out.default_left.assign(nodes_.default_left, nodes_.default_left + nodes);
  out.value.assign(nodes_.value, nodes_.value + nodes * outputs);
  out.gain.assign(nodes_.gain, nodes_.gain + nodes);
  out.cover.assign(nodes_.cover, nodes_.cover + nodes);
  if (keep_rows_) {
    out.begin.assign(nodes_.begin, nodes_.begin + nodes);
    out.end.assign(nodes_.end, nodes_.end + nodes);
  }
  return out;
}

EnsembleArrays forest_arrays(const std::vector<ForestTree>& trees, const Tensor& cuts,
                             int64_t outputs, double scale) {
  const auto count = int64_t(trees.size());
  EnsembleArrays out;
  out.tree_ptr = at::zeros({count + 1}, at::kLong);
  auto* ends = out.tree_ptr.mutable_data_ptr<int64_t>();
  for (int64_t t = 0; t < count; ++t) {
    ends[t + 1] = ends[t] + int64_t(trees[size_t(t)].feature.size());
  }
  const int64_t nodes = ends[count];
  out.feature = at::empty({nodes}, at::kInt);
  out.left = at::empty({nodes}, at::kInt);
  out.right = at::empty({nodes}, at::kInt);
  out.threshold = at::empty({nodes}, at::kFloat);
  out.default_left = at::empty({nodes}, at::kBool);
  out.value =
      outputs == 1 ? at::empty({nodes}, at::kFloat) : at::empty({nodes, outputs}, at::kFloat);
  out.gain = at::empty({nodes}, at::kFloat);
  out.cover = at::empty({nodes}, at::kFloat);
  out.tree_output = at::zeros({count}, at::kInt);
  out.num_outputs = outputs;
  auto *feature = out.feature.mutable_data_ptr<int32_t>(),
       *left = out.left.mutable_data_ptr<int32_t>(), *right = out.right.mutable_data_ptr<int32_t>();
  auto *threshold = out.threshold.mutable_data_ptr<float>(),
       *value = out.value.mutable_data_ptr<float>(), *gain = out.gain.mutable_data_ptr<float>(),
       *cover = out.cover.mutable_data_ptr<float>();
  auto* default_left = out.default_left.mutable_data_ptr<bool>();
  const auto* from = cuts.const_data_ptr<float>();
  const int64_t width = cuts.size(1);
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const ForestTree& tree = trees[size_t(t)];
      const int64_t at = ends[t];
      std::copy(tree.gain.begin(), tree.gain.end(), gain + at);
      std::copy(tree.cover.begin(), tree.cover.end(), cover + at);
      for (size_t n = 0; n < tree.feature.size(); ++n) {
        const bool leaf = tree.feature[n] < 0;
        const int64_t node = at + int64_t(n);
        const float cut = leaf ? 0 : from[tree.feature[n] * width + tree.code[n]];
        const bool swapped = asks_what_is_missing(cut);
        feature[node] = leaf ? 0 : tree.feature[n];
        threshold[node] = swapped ? -HUGE_VALF : cut;
        left[node] = swapped ? tree.right[n] : tree.left[n];
        right[node] = swapped ? tree.left[n] : tree.right[n];
        default_left[node] = swapped || tree.default_left[n] != 0;
      }
      for (size_t i = 0; i < tree.value.size(); ++i) {
        value[at * outputs + int64_t(i)] = float(double(tree.value[i]) * scale);
      }
    }
  });
  return out;
}

void forest_parallel(int64_t tasks, ForestTask task, void* body) {
  at::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) task(body, t);
  });
}

std::vector<double> x_log_x_table(int64_t most) {
  std::vector<double> out(size_t(most + 1), 0.0);
  for (int64_t n = 2; n <= most; ++n) out[size_t(n)] = double(n) * std::log(double(n));
  return out;
}

}  // namespace tilewright::trees
