// Files that are no models, whatever their bytes say: an error, no crash, no memory beyond the
// file's.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tilewright/trees/adaboost.h"
#include "tilewright/trees/booster.h"
#include "tilewright/trees/forest.h"
#include "tilewright/trees/linear_booster.h"
#include "tilewright/trees/model_file.h"
#include "tree_models.h"

namespace {

using tilewright::TreeEnsemble;
using tilewright::trees::AdaBoost;
using tilewright::trees::AdaBoostOptions;
using tilewright::trees::Booster;
using tilewright::trees::Forest;
using tilewright::trees::ForestOptions;
using tilewright::trees::LinearBooster;
using tilewright::trees::ModelFile;

TEST(DamagedFiles, OtherFilesAreRefused) {
  const Path path("other.model");
  EXPECT_MESSAGE(Booster::load(path.text), "cannot read");
  write(path.text, {'n', 'o', ' ', 'm', 'o', 'd', 'e', 'l', ' ', 'a', 't', ' ', 'a', 'l', 'l'});
  EXPECT_MESSAGE(Booster::load(path.text), "is no model of tilewright's");
  ModelFile later("Forest", 2);
  later.put("num_features", int64_t(1));
  later.write(path.text);
  EXPECT_MESSAGE(Forest::load(path.text), "version must be 1, got 2");
  ModelFile empty("AdaBoost", 1);
  empty.write(path.text);
  EXPECT_MESSAGE(AdaBoost::load(path.text), "num_features is missing");
  // A size that no file holds takes no memory.
  ModelFile file("TreeEnsemble", 1);
  file.put("base_score", torch::zeros(1));
  file.write(path.text);
  std::vector<char> bytes = content_of(path.text);
  for (const int64_t size : {int64_t(1) << 40, int64_t(-1), int64_t(1) << 62}) {
    std::memcpy(bytes.data() + bytes.size() - sizeof(float) - sizeof(size), &size, sizeof(size));
    write(path.text, bytes);
    EXPECT_MESSAGE(TreeEnsemble::load(path.text), size == int64_t(1) << 40
                                                      ? "ends within base_score"
                                                      : "base_score cannot have the size");
  }
}

// Reads damaged copies of a file: an error of ours, or a model that predicts.
template <class Load>
void damage(const std::string& path, const Load& load_and_predict) {
  const std::vector<char> whole = content_of(path);
  std::mt19937 random(0);
  const auto below = [&](size_t n) { return size_t(random() % n); };
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::vector<char> bytes = whole;
    if (i % 4 == 0) bytes.resize(below(bytes.size()));
    for (size_t change = 0; change < 1 + below(4) && bytes.size() > 8; ++change) {
      const size_t at = below(bytes.size() - 8);
      const int64_t values[] = {-1, int64_t(1) << 40, INT64_MAX, 0, int64_t(random())};
      const size_t size = below(2) == 0 ? 1 : i % 3 == 0 ? 8 : 4;
      std::memcpy(bytes.data() + at, &values[below(5)], size);
    }
    write(path, bytes);
    const std::string message = message_of(load_and_predict);  // other exceptions end the test
    refused += message != "no error";
  }
  EXPECT_GT(refused, 100);
}

TEST(DamagedFiles, AreErrorsOrModels) {
  const auto x = features(60), y = values_of(x);
  const Path path("damaged.model");
  const auto predict = [&](const auto& model) { (void)model.predict(torch::zeros({20, 4})); };
  for (const char* objective : {"squared_error", "softmax"}) {
    fitted(objective, x).save(path.text);
    damage(path.text, [&] { predict(Booster::load(path.text)); });
  }
  fitted("softmax", x).ensemble()->save(path.text);
  damage(path.text, [&] { predict(*TreeEnsemble::load(path.text)); });
  LinearBooster linear(options_for("squared_error"));
  linear.fit({x, y, {}, {}});
  linear.save(path.text);
  damage(path.text, [&] { predict(LinearBooster::load(path.text)); });
  ForestOptions forest_options;
  forest_options.n_estimators = 3;
  Forest forest(forest_options);
  forest.fit(x, (y > 0).to(torch::kLong));
  forest.save(path.text);
  damage(path.text, [&] { predict(Forest::load(path.text)); });
  for (const int64_t num_class : {2, 0}) {
    AdaBoostOptions options;
    options.num_class = num_class;
    options.n_estimators = 5;
    AdaBoost model(options);
    model.fit(x, num_class > 0 ? (y > 0).to(torch::kLong) : y);
    model.save(path.text);
    damage(path.text, [&] { predict(AdaBoost::load(path.text)); });
  }
}

}  // namespace
