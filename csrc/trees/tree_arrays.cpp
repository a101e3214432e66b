#include "tilewright/trees/tree_arrays.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

#include "tilewright/core/check.h"

namespace tilewright::trees {
namespace {

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, int64_t begin, int64_t end,
                     at::ScalarType type) {
  const at::Tensor out = at::empty({end - begin}, type);
  std::copy(values.begin() + begin, values.begin() + end, static_cast<T*>(out.mutable_data_ptr()));
  return out;
}

// `count` zeros where the tensor is undefined.
template <class T>
std::vector<T> vector_of(const at::Tensor& values, at::ScalarType type, size_t count) {
  if (!values.defined()) return std::vector<T>(count, T(0));
  const at::Tensor from = values.to(at::kCPU, type).contiguous();
  const auto* data = static_cast<const T*>(from.const_data_ptr());
  return {data, data + from.numel()};
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from, int64_t begin, int64_t end) {
  to.insert(to.end(), from.begin() + begin, from.begin() + end);
}

}  // namespace

ArraysBuilder::ArraysBuilder(const EnsembleArrays& trees)
    : num_outputs_(trees.num_outputs), vectors_(trees.value.dim() == 2) {
  feature_ = vector_of<int32_t>(trees.feature, at::kInt, 0);
  const size_t nodes = feature_.size();
  left_ = vector_of<int32_t>(trees.left, at::kInt, 0);
  right_ = vector_of<int32_t>(trees.right, at::kInt, 0);
  threshold_ = vector_of<float>(trees.threshold, at::kFloat, 0);
  default_left_ = vector_of<uint8_t>(trees.default_left, at::kByte, 0);
  value_ = vector_of<float>(trees.value, at::kFloat, 0);
  gain_ = vector_of<float>(trees.gain, at::kFloat, nodes);
  cover_ = vector_of<float>(trees.cover, at::kFloat, nodes);
  tree_ptr_ = vector_of<int64_t>(trees.tree_ptr, at::kLong, 0);
  tree_output_ = vector_of<int32_t>(trees.tree_output, at::kInt, 0);
  if (trees.category_ptr.defined()) {
    category_ptr_ = vector_of<int64_t>(trees.category_ptr, at::kLong, 0);
    categories_ = vector_of<int32_t>(trees.categories, at::kInt, 0);
  }
}

std::vector<float> ArraysBuilder::add(const GrownTree& tree, const at::Tensor& cuts,
                                      double learning_rate, int64_t output) {
  const bool by_code = tree.threshold.empty();
  const auto* from = by_code ? cuts.const_data_ptr<float>() : nullptr;
  const int64_t width = by_code ? cuts.size(1) : 0;
  std::vector<float> answers;
  for (size_t n = 0; n < tree.feature.size(); ++n) {
    const bool leaf = tree.feature[n] < 0;
    for (size_t k = 0; k < size_t(tree.outputs); ++k) {
      answers.push_back(float(tree.weight[n * size_t(tree.outputs) + k] * learning_rate));
      value_.push_back(leaf ? answers.back() : 0);
    }
    float threshold = 0;
    if (!tree.categories[n].empty()) {
      category_ptr_.resize(feature_.size() + 1, int64_t(categories_.size()));
      append(categories_, tree.categories[n], 0, int64_t(tree.categories[n].size()));
      category_ptr_.push_back(int64_t(categories_.size()));
    } else if (!leaf && !by_code) {
      threshold = tree.threshold[n];
    } else if (!leaf) {
      threshold = from[tree.feature[n] * width + tree.code[n]];
    }
    const bool swapped = by_code ? asks_what_is_missing(threshold) : std::isnan(threshold);
    if (swapped) threshold = -HUGE_VALF;
    feature_.push_back(leaf ? 0 : tree.feature[n]);
    threshold_.push_back(threshold);
    left_.push_back(swapped ? tree.right[n] : tree.left[n]);
    right_.push_back(swapped ? tree.left[n] : tree.right[n]);
    default_left_.push_back(swapped || tree.default_left[n]);
    gain_.push_back(float(tree.gain[n]));
    cover_.push_back(float(tree.cover[n]));
  }
  tree_ptr_.push_back(int64_t(feature_.size()));
  tree_output_.push_back(int32_t(output));
  return answers;
}

void ArraysBuilder::scale(int64_t tree, double factor) {
  const int64_t begin = tree_ptr_[size_t(tree)], end = tree_ptr_[size_t(tree) + 1];
  for (int64_t n = begin * width(); n < end * width(); ++n) {
    value_[size_t(n)] = float(value_[size_t(n)] * factor);
  }
}

EnsembleArrays ArraysBuilder::pick(const std::vector<int64_t>& trees) const {
  ArraysBuilder part(num_outputs_, vectors_);
  const auto filled = int64_t(category_ptr_.size()) - 1;  // nodes that may have categories
  for (const int64_t t : trees) {
    const int64_t begin = tree_ptr_[size_t(t)], end = tree_ptr_[size_t(t) + 1];
    for (int64_t n = begin; n < std::min(end, filled); ++n) {
      const int64_t first = category_ptr_[size_t(n)], last = category_ptr_[size_t(n) + 1];
      if (first == last) continue;
      // Nodes so far that have none.
      part.category_ptr_.resize(part.feature_.size() + size_t(n - begin) + 1,
                                int64_t(part.categories_.size()));
      append(part.categories_, categories_, first, last);
      part.category_ptr_.push_back(int64_t(part.categories_.size()));
    }
    append(part.feature_, feature_, begin, end);
    append(part.left_, left_, begin, end);
    append(part.right_, right_, begin, end);
    append(part.threshold_, threshold_, begin, end);
    append(part.default_left_, default_left_, begin, end);
    append(part.value_, value_, begin * width(), end * width());
    append(part.gain_, gain_, begin, end);
    append(part.cover_, cover_, begin, end);
    part.tree_ptr_.push_back(int64_t(part.feature_.size()));
    part.tree_output_.push_back(tree_output_[size_t(t)]);
  }
  return part.slice(0, part.trees());
}

EnsembleArrays ArraysBuilder::arrays(int64_t trees) const {
  return slice(0, trees < 0 ? this->trees() : trees);
}

EnsembleArrays ArraysBuilder::slice(int64_t first, int64_t last) const {
  const int64_t begin = tree_ptr_[size_t(first)], end = tree_ptr_[size_t(last)];
  EnsembleArrays out;
  out.feature = tensor_of(feature_, begin, end, at::kInt);
  out.threshold = tensor_of(threshold_, begin, end, at::kFloat);
  out.left = tensor_of(left_, begin, end, at::kInt);
  out.right = tensor_of(right_, begin, end, at::kInt);
  out.default_left = tensor_of(default_left_, begin, end, at::kByte).to(at::kBool);
  out.value = tensor_of(value_, begin * width(), end * width(), at::kFloat);
  if (vectors_) out.value = out.value.view({end - begin, num_outputs_});
  out.gain = tensor_of(gain_, begin, end, at::kFloat);
  out.cover = tensor_of(cover_, begin, end, at::kFloat);
  out.tree_ptr = tensor_of(tree_ptr_, first, last + 1, at::kLong).sub_(begin);
  out.tree_output = tensor_of(tree_output_, first, last, at::kInt);
  out.num_outputs = num_outputs_;
  const auto filled = int64_t(category_ptr_.size()) - 1;
  if (begin >= filled || category_ptr_[size_t(begin)] == category_ptr_.back()) return out;
  std::vector<int64_t> own;
  for (int64_t n = begin; n <= end; ++n) own.push_back(category_ptr_[size_t(std::min(n, filled))]);
  out.category_ptr = tensor_of(own, 0, int64_t(own.size()), at::kLong).sub_(own.front());
  out.categories = tensor_of(categories_, own.front(), own.back(), at::kInt);
  return out;
}

}  // namespace tilewright::trees
