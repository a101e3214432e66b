#include "tilewright/trees/tree_arrays.h"

#include <ATen/Functions.h>

#include <limits>

namespace tilewright::trees {
namespace {

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, int64_t begin, int64_t end,
                     at::ScalarType type) {
  const at::Tensor out = at::empty({end - begin}, type);
  std::copy(values.begin() + begin, values.begin() + end, static_cast<T*>(out.mutable_data_ptr()));
  return out;
}

}  // namespace

std::vector<float> ArraysBuilder::add(const GrownTree& tree, const at::Tensor& cuts,
                                      double learning_rate, int64_t output) {
  const auto* from = cuts.const_data_ptr<float>();
  const int64_t width = cuts.size(1);
  std::vector<float> answers;
  for (size_t n = 0; n < tree.feature.size(); ++n) {
    const bool leaf = tree.feature[n] < 0;
    const auto answer = float(tree.weight[n] * learning_rate);
    answers.push_back(answer);
    float threshold = 0;
    const std::vector<int32_t>& categories = tree.categories[n];
    categories_.insert(categories_.end(), categories.begin(), categories.end());
    category_ptr_.push_back(int64_t(categories_.size()));
    if (!leaf && categories.empty()) {
      threshold = from[tree.feature[n] * width + tree.code[n]];
      // Behind the last cut: all that is there goes left, what is missing right.
      if (!(threshold < HUGE_VALF)) threshold = std::numeric_limits<float>::max();
    }
    feature_.push_back(leaf ? 0 : tree.feature[n]);
    threshold_.push_back(threshold);
    left_.push_back(tree.left[n]);
    right_.push_back(tree.right[n]);
    default_left_.push_back(tree.default_left[n]);
    value_.push_back(leaf ? answer : 0);
    gain_.push_back(float(tree.gain[n]));
    cover_.push_back(float(tree.cover[n]));
  }
  tree_ptr_.push_back(int64_t(feature_.size()));
  tree_output_.push_back(int32_t(output));
  return answers;
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
  out.value = tensor_of(value_, begin, end, at::kFloat);
  out.gain = tensor_of(gain_, begin, end, at::kFloat);
  out.cover = tensor_of(cover_, begin, end, at::kFloat);
  out.tree_ptr = tensor_of(tree_ptr_, first, last + 1, at::kLong).sub_(begin);
  out.tree_output = tensor_of(tree_output_, first, last, at::kInt);
  out.num_outputs = num_outputs_;
  if (!categories_.empty()) {
    const int64_t from = category_ptr_[size_t(begin)], to = category_ptr_[size_t(end)];
    out.category_ptr = tensor_of(category_ptr_, begin, end + 1, at::kLong).sub_(from);
    out.categories = tensor_of(categories_, from, to, at::kInt);
  }
  return out;
}

}  // namespace tilewright::trees
