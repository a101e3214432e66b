// Blocks of rows and of columns of a sparse table, filled with zeros.
#include "tilewright/trees/input_table.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/feature_cuts.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/predict_trees.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kRowGrain = 1024;
constexpr int64_t kCodedRows = 4096;  // that are quantised together

std::optional<Tensor> given(const Tensor& tensor) {
  return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
}

Tensor raw_scores(const Tensor& x, const EnsembleArrays& a) {
  const auto there = [&](const Tensor& t) { return t.defined() ? t.to(x.device()) : t; };
  return predict_trees(x, there(a.feature), there(a.threshold), there(a.left), there(a.right),
                       there(a.default_left), there(a.value), there(a.tree_ptr),
                       there(a.tree_output), a.num_outputs, given(there(a.category_ptr)),
                       given(there(a.categories)));
}

}  // namespace

InputTable::InputTable(const char* name, const Tensor& x) {
  check_given(kTrees, name, x);
  check_floating(kTrees, name, x);
  TILEWRIGHT_CHECK(kTrees, x.is_cpu() || (x.is_cuda() && x.layout() == at::kStrided),
                   "tables must be on the CPU, dense ones may be on CUDA, got ", name,
                   " of layout ", x.layout(), " on ", x.device());
  TILEWRIGHT_CHECK(kTrees, x.layout() == at::kStrided || x.layout() == at::kSparseCsr, name,
                   " must be dense or of layout sparse_csr, got ", x.layout());
  TILEWRIGHT_CHECK(kTrees, x.dim() == 2, name, " must have shape (N, F), got ", shape_of(x));
  rows_ = x.size(0);
  features_ = x.size(1);
  if (x.layout() == at::kStrided) {
    dense_ = x;
    return;
  }
  row_ptr_ = x.crow_indices().to(at::kLong).contiguous();
  columns_ = x.col_indices().to(at::kLong).contiguous();
  values_ = x.values().to(at::kFloat).contiguous();
  const auto *ptr = row_ptr_.const_data_ptr<int64_t>(),
             *column = columns_.const_data_ptr<int64_t>();
  const int64_t count = values_.numel();
  TILEWRIGHT_CHECK(kTrees,
                   row_ptr_.numel() == rows_ + 1 && columns_.numel() == count && ptr[0] == 0 &&
                       ptr[rows_] == count && std::is_sorted(ptr, ptr + rows_ + 1),
                   name, "'s row pointers must ascend from 0 to its ", count, " values");
  for (int64_t i = 0; i < count; ++i) {
    TILEWRIGHT_CHECK(kTrees, column[i] >= 0 && column[i] < features_, name,
                     "'s column indices must lie in [0, ", features_, "), entry ", i, " is ",
                     column[i]);
  }
}

void InputTable::for_rows(const Block& body) const {
  if (dense_.defined()) return body(0, dense_);
  const auto *ptr = row_ptr_.const_data_ptr<int64_t>(),
             *column = columns_.const_data_ptr<int64_t>();
  const auto* value = values_.const_data_ptr<float>();
  const int64_t height = std::max<int64_t>(kBlockCells / std::max<int64_t>(features_, 1), 1);
  for (int64_t first = 0; first < rows_; first += height) {
    const int64_t last = std::min(first + height, rows_);
    const Tensor block = at::zeros({last - first, features_}, at::kFloat);
    auto* to = block.mutable_data_ptr<float>();
    at::parallel_for(first, last, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* line = to + (row - first) * features_;
        for (int64_t i = ptr[row]; i < ptr[row + 1]; ++i) line[column[i]] += value[i];
      }
    });
    body(first, block);
  }
}

void InputTable::for_columns(const Block& body) const {
  if (dense_.defined()) return body(0, dense_);
  const auto *ptr = row_ptr_.const_data_ptr<int64_t>(),
             *column = columns_.const_data_ptr<int64_t>();
  const auto* value = values_.const_data_ptr<float>();
  // The entries by column, rows ascending: a counting sort.
  std::vector<int64_t> begins(size_t(features_) + 1, 0), places;
  for (int64_t i = 0; i < values_.numel(); ++i) ++begins[size_t(column[i]) + 1];
  for (size_t f = 0; f < size_t(features_); ++f) begins[f + 1] += begins[f];
  places.assign(begins.begin(), begins.end() - 1);
  std::vector<std::pair<int64_t, float>> entries(size_t(values_.numel()));
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t i = ptr[row]; i < ptr[row + 1]; ++i) {
      entries[size_t(places[size_t(column[i])]++)] = {row, value[i]};
    }
  }
  const int64_t width = std::max<int64_t>(kBlockCells / std::max<int64_t>(rows_, 1), 1);
  for (int64_t first = 0; first < features_; first += width) {
    const int64_t last = std::min(first + width, features_);
    const Tensor block = at::zeros({last - first, rows_}, at::kFloat);
    auto* to = block.mutable_data_ptr<float>();
    at::parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f) {
        for (int64_t i = begins[size_t(f)]; i < begins[size_t(f) + 1]; ++i) {
          to[(f - first) * rows_ + entries[size_t(i)].first] += entries[size_t(i)].second;
        }
      }
    });
    body(first, block.t());
  }
}

std::pair<Tensor, Tensor> InputTable::cuts(const Tensor& weights, int64_t max_bin) const {
  std::vector<Tensor> cuts, counts;
  for_columns([&](int64_t, const Tensor& x) {
    auto [places, count] = feature_cuts(x, given(weights), max_bin);
    cuts.push_back(places);
    counts.push_back(count);
  });
  if (cuts.size() == 1) return {cuts[0], counts[0]};
  return {at::cat(cuts), at::cat(counts)};
}

void InputTable::for_codes(const Tensor& cuts, const Tensor& count, const CodesBlock& body) const {
  for_rows([&](int64_t first, const Tensor& x) {
    for (int64_t from = 0; from < x.size(0); from += kCodedRows) {
      const int64_t height = std::min(kCodedRows, x.size(0) - from);
      body(first + from, quantize_features(x.narrow(0, from, height), cuts, count));
    }
  });
}

Tensor InputTable::columns() const {
  TILEWRIGHT_CHECK(kTrees, device().is_cpu(), "linear models fit and predict on the CPU, got x on ",
                   device(), "; use x.cpu()");
  const Tensor columns = at::empty({features_, rows_}, at::kFloat);
  for_rows(
      [&](int64_t first, const Tensor& x) { columns.narrow(1, first, x.size(0)).copy_(x.t()); });
  columns.nan_to_num_(0.0, INFINITY, -INFINITY);
  return columns;
}

void InputTable::add_scores(const EnsembleArrays& trees, Tensor& scores) const {
  for_rows([&](int64_t first, const Tensor& x) {
    scores.narrow(1, first, x.size(0)).add_(raw_scores(x, trees).t());
  });
}

void InputTable::add_scores_in_turn(const EnsembleArrays& trees, Tensor& scores) const {
  const ArraysBuilder builder(trees);
  for_rows([&](int64_t first, const Tensor& x) {
    Tensor part = scores.narrow(1, first, x.size(0));
    for (int64_t t = 0; t < builder.trees(); ++t) {
      EnsembleArrays tree = builder.slice(t, t + 1);
      if (builder.vectors()) {
        part.add_(raw_scores(x, tree).t());
        continue;
      }
      const int64_t k = tree.tree_output[0].item<int32_t>();
      tree.tree_output = at::zeros_like(tree.tree_output);  // a column alone, not one of many
      tree.num_outputs = 1;
      part[k].add_(raw_scores(x, tree).select(1, 0));
    }
  });
}

}  // namespace tilewright::trees
