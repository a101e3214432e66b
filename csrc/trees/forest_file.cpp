// The files of forests and of AdaBoost.
#include "tilewright/trees/ensemble_of.h"
#include "tilewright/trees/forest_options.h"
#include "tilewright/trees/model_file.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/predict_cpu.h"

namespace tilewright::trees {
namespace {

constexpr int64_t kForestVersion = 1;

}  // namespace

void Forest::save(const std::string& path) const {
  (void)ensemble();  // says where nothing is fitted
  ModelFile file(kForest, kForestVersion);
  put_options(file, options_);
  put_arrays(file, arrays_);
  file.put("num_features", num_features_);
  file.put("num_outputs", arrays_.num_outputs);
  file.write(path);
}

Forest Forest::load(const std::string& path) {
  const ModelFile file = ModelFile::read(kForest, kForestVersion, path);
  const auto options = get_options<ForestOptions>(file);
  Forest out = file.made([&] { return Forest(options); });
  out.num_features_ = file.whole("num_features", 1, kMostTreeFeatures);
  // As many as leaves hold numbers: a number alone must not make tensors large.
  const int64_t held = file.dim("value") == 2 ? file.tensor("value", at::kFloat, 2).size(1) : 1;
  const bool classes = options.num_class > 0;
  const int64_t outputs = file.whole("num_outputs", 1, held);
  out.arrays_ = get_arrays(file, outputs);
  if (classes && outputs != options.num_class) {
    file.fail("num_outputs", c10::str("must be num_class, ", options.num_class));
  }
  (void)file.made([&] { return out.ensemble(); });
  return out;
}

void AdaBoost::save(const std::string& path) const {
  (void)ensemble();  // says where nothing is fitted
  ModelFile file(kAdaBoost, kForestVersion);
  put_options(file, options_);
  put_arrays(file, arrays_);
  file.put("base_score", base_score_);
  file.put("num_features", num_features_);
  file.put("estimator_weights", weights_);
  file.put("estimator_errors", errors_);
  file.put("overflowed", overflowed_);
  file.write(path);
}

AdaBoost AdaBoost::load(const std::string& path) {
  const ModelFile file = ModelFile::read(kAdaBoost, kForestVersion, path);
  const auto options = get_options<AdaBoostOptions>(file);
  AdaBoost out = file.made([&] { return AdaBoost(options); });
  out.num_features_ = file.whole("num_features", 1, kMostTreeFeatures);
  out.base_score_ = file.tensor("base_score", at::kFloat, 1);
  out.arrays_ = get_arrays(file, out.base_score_.numel());
  const int64_t trees = out.arrays_.tree_output.numel();
  const int64_t outputs = options.num_class > 0 ? options.num_class : trees;
  if (out.base_score_.numel() != outputs) {
    file.fail("base_score", c10::str("must hold ", outputs, " numbers"));
  }
  file.get("estimator_weights", out.weights_);
  file.get("estimator_errors", out.errors_);
  if (int64_t(out.weights_.size()) != trees) {
    file.fail("estimator_weights", c10::str("must hold ", trees, " numbers, one for each tree"));
  }
  if (int64_t(out.errors_.size()) != trees) {
    file.fail("estimator_errors", c10::str("must hold ", trees, " numbers, one for each tree"));
  }
  file.get("overflowed", out.overflowed_);
  (void)file.made([&] { return out.ensemble(); });
  return out;
}

}  // namespace tilewright::trees
