// AOTInductor packages that call tilewright's operators, run in a program without Python. They are
// written by tests/python/test_aoti.py, which starts this program with their names in the
// environment.
#include <gtest/gtest.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdlib>
#include <vector>

#include "tilewright/contrastive/contrastive_losses.h"
#include "tilewright/density/nade.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/multiscale_roi_align.h"
#include "tilewright/detection/nms.h"

namespace {

// What the exported module computes, by C++ calls: pools the boxes that suppression keeps.
std::vector<torch::Tensor> eager(const std::vector<torch::Tensor>& inputs) {
  const auto &fine = inputs[0], &coarse = inputs[1], &boxes = inputs[2], &scores = inputs[3];
  const auto keep = tilewright::nms(boxes, scores, 0.5);
  const auto rois = tilewright::boxes_to_rois({boxes.index_select(0, keep)});
  return {keep, tilewright::multiscale_roi_align({fine, coarse}, rois, {0.25, 0.125}, 7, 7).relu()};
}

TEST(Package, GivesWhatTheOperatorsGive) {
  const char* path = std::getenv("TILEWRIGHT_PACKAGE");
  if (path == nullptr) GTEST_SKIP() << "TILEWRIGHT_PACKAGE names no package";
  torch::inductor::AOTIModelPackageLoader loader(path);
  torch::manual_seed(0);
  for (const int64_t count : {5, 64, 300}) {  // the package was traced with another number of boxes
    const auto corner = torch::rand({count, 2}) * 200;
    const auto boxes = torch::cat({corner, corner + 4 + torch::rand({count, 2}) * 250}, 1);
    const std::vector<torch::Tensor> inputs{
        torch::randn({1, 16, 64, 64}), torch::randn({1, 16, 32, 32}), boxes, torch::rand({count})};
    c10::InferenceMode inference;
    const auto outputs = loader.run(inputs);
    const auto expected = eager(inputs);
    ASSERT_EQ(outputs.size(), 2u);
    EXPECT_TRUE(torch::equal(outputs[0], expected[0]));
    EXPECT_TRUE(torch::allclose(outputs[1], expected[1], 1e-6, 1e-6));
    EXPECT_GT(expected[0].numel(), 1);
  }
}

TEST(Package, GivesTheLossesOfTheOperators) {
  const char* path = std::getenv("TILEWRIGHT_LOSS_PACKAGE");
  if (path == nullptr) GTEST_SKIP() << "TILEWRIGHT_LOSS_PACKAGE names no package";
  torch::inductor::AOTIModelPackageLoader loader(path);
  torch::manual_seed(0);
  for (const int64_t count : {2, 30}) {
    const std::vector<torch::Tensor> inputs{
        torch::randn({count, 16}), torch::randn({40, 16}), torch::rand({count, 6}).round(),
        torch::randn({9, 6}),      torch::randn({9}),      torch::randn({6, 9}),
        torch::randn({6})};
    c10::InferenceMode inference;
    const auto outputs = loader.run(inputs);
    ASSERT_EQ(outputs.size(), 2u);
    EXPECT_TRUE(outputs[0].allclose(tilewright::info_nce(inputs[0], inputs[1]), 1e-5, 1e-6));
    EXPECT_TRUE(outputs[1].allclose(
        tilewright::nade(inputs[2], inputs[3], inputs[4], inputs[5], inputs[6]), 1e-5, 1e-6));
  }
}

}  // namespace
