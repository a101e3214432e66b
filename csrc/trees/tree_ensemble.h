// A fitted ensemble as one object: for TorchScript, for files, for C++ programs that only predict.
#pragma once
#include <torch/custom_class.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

class PackedTrees;

// The TorchScript class torch.classes.tilewright.TreeEnsemble. Its pickle, which torch.jit.save
// writes, begins with a version.
class TILEWRIGHT_API TreeEnsemble : public torch::CustomClassHolder {
 public:
  // Version; feature, threshold, left, right, default_left, value, tree_ptr, tree_output and
  // base_score, with categories also category_ptr and categories; link; features.
  using State = std::tuple<int64_t, std::vector<at::Tensor>, std::string, int64_t>;
  static constexpr int64_t kVersion = 1;

  // arrays: as in State, the first eight as predict_trees takes them, base_score (K,) float32, what
  // each row scores before the first tree; not to be written to afterwards. link: "identity",
  // "sigmoid", "softmax" or "exp", from scores to predictions. num_features: what x must have.
  TreeEnsemble(std::vector<at::Tensor> arrays, std::string link, int64_t num_features);
  explicit TreeEnsemble(const State& state);

  // x: (N, F) floating, NaN missing; sparse CSR on the CPU, absent entries being 0, or dense on any
  // device: the first time on another one than the arrays'
  // copies them there, to stay (before a CUDA graph is captured, then). (N, K) float32.
  at::Tensor scores(const at::Tensor& x) const;
  at::Tensor predict(const at::Tensor& x) const;

  std::vector<at::Tensor> arrays() const { return arrays_; }
  std::string link() const { return link_; }
  int64_t num_features() const { return num_features_; }
  int64_t num_outputs() const { return arrays_[8].numel(); }
  State state() const { return {kVersion, arrays_, link_, num_features_}; }

  // Files of their own (not torch's pickles, which are to be trusted or not to be read). What is no
  // ensemble is an error that names the field.
  void save(const std::string& path) const;
  static c10::intrusive_ptr<TreeEnsemble> load(const std::string& path);

 private:
  at::Tensor scores_by_blocks(const at::Tensor& x) const;  // of a sparse table
  std::vector<at::Tensor> arrays_on(at::Device device) const;

  std::vector<at::Tensor> arrays_;
  mutable std::mutex copying_;
  mutable std::vector<std::vector<at::Tensor>> copies_;  // by device
  std::shared_ptr<const PackedTrees> packed_;            // of arrays on the CPU: ready to be walked
  std::string link_;
  int64_t num_features_;
};

}  // namespace tilewright
