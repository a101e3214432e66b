// Faster R-CNN in a program without Python: it trains, detects, is saved and loaded, and says what
// is wrong with its inputs.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdio>

#include "small_detector.h"
#include "support.h"
#include "tilewright/models/faster_rcnn.h"
#include "tilewright/models/feature_pyramid.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::DetectionTarget;
using tilewright::FasterRCNN;
using tilewright::FasterRCNNOptions;

TEST(FasterRCNN, LearnsAScene) {
  torch::manual_seed(0);
  FasterRCNN model(small_options());
  torch::optim::SGD optimizer(model->parameters(), 0.005);
  const auto history = learn_scene(model, optimizer, 10);
  EXPECT_LT(history.back(), 0.7 * history.front());
}

TEST(FasterRCNN, Detects) {
  torch::manual_seed(0);
  FasterRCNN model(small_options().box_score_thresh(0.0).box_detections_per_img(7));
  model->eval();
  torch::NoGradGuard no_grad;
  const auto output = model->forward({torch::rand({3, 50, 80}), torch::rand({3, 40, 30})});
  EXPECT_TRUE(output.losses.is_empty());
  ASSERT_EQ(output.detections.size(), 2);
  const auto& found = output.detections[1];
  EXPECT_EQ(found.boxes.sizes(), (std::vector<int64_t>{7, 4}));
  EXPECT_TRUE((found.boxes.select(1, 2) <= 30.01).all().item<bool>());  // pixels as given
  EXPECT_TRUE((found.scores.diff() <= 0).all().item<bool>());
  EXPECT_TRUE((found.labels >= 1).all().item<bool>());
}

TEST(FasterRCNN, TakesAnotherBackbone) {
  const auto options = small_options().anchor_sizes({{16, 32}});
  FasterRCNN model(std::make_shared<SingleMap>(), options);
  const auto [images, targets] = scene();
  model(images, targets).total_loss().backward();
  EXPECT_TRUE(
      model->named_parameters()["backbone.layer.weight"].grad().isfinite().all().item<bool>());
  model->eval();
  EXPECT_MESSAGE(model->fold_batch_norm(), "override fold_batch_norm");
}

TEST(FasterRCNN, IsSavedAndLoaded) {
  const auto path = temporary("model.pt"), other_path = temporary("other.pt");
  FasterRCNN model(small_options()), copy(small_options()), third(small_options());
  tilewright::save_module(*model, path);
  tilewright::load_module(*copy, path);
  torch::load(third, path);
  const auto state = tilewright::state_dict(*model);
  EXPECT_TRUE(state.contains("backbone.body.layer1.0.bn1.running_mean"));
  EXPECT_TRUE(state.contains("rpn.head.conv.0.0.weight"));
  for (const auto& item : state) {
    EXPECT_TRUE(torch::equal(item.value(), tilewright::state_dict(*copy)[item.key()]));
    EXPECT_TRUE(torch::equal(item.value(), tilewright::state_dict(*third)[item.key()]));
  }
  torch::save(FasterRCNN(small_options().num_classes(9)), other_path);
  EXPECT_MESSAGE(tilewright::load_module(*copy, other_path),
                 other_path +
                     ": roi_heads.box_predictor.cls_score.weight must have shape (3, 64), "
                     "got (9, 64)");
  EXPECT_MESSAGE(tilewright::load_module(*copy, temporary("none.pt")), "no file ");
  torch::save(torch::nn::Linear(2, 2), other_path);
  EXPECT_MESSAGE(tilewright::load_module(*copy, other_path), "conv1.weight is missing");
  std::remove(path.c_str());
  std::remove(other_path.c_str());
}

TEST(FasterRCNN, NamesWhatIsWrong) {
  FasterRCNN model(small_options());
  auto [images, targets] = scene();
  EXPECT_MESSAGE(model(images), "tilewright::FasterRCNN: targets must be given in training mode");
  EXPECT_MESSAGE(model(images, std::vector<DetectionTarget>{{}}),
                 "targets[0] must have boxes and labels");
  images.push_back(images[0]);
  EXPECT_MESSAGE(model(images, targets), "one entry for each of 2 images, got 1");
  targets.push_back({torch::tensor({{5.f, 5.f, 5.f, 9.f}}), torch::tensor({1})});
  EXPECT_MESSAGE(
      model(images, targets),
      "boxes[1] must hold finite boxes with x2 > x1 and y2 > y1, got box 0: (5, 5, 5, 9)");
  targets[1] = {torch::tensor({{5.f, 5.f, 8.f, 9.f}}), torch::tensor({3})};
  EXPECT_MESSAGE(model(images, targets), "labels[1] must lie in [1, 3)");
  images[1] = torch::rand({64, 64});
  EXPECT_MESSAGE(model(images, targets), "images[1] must have shape (3, H, W)");
  EXPECT_MESSAGE(FasterRCNN(FasterRCNNOptions(1)), "must be at least 2, got 1");
  EXPECT_MESSAGE(FasterRCNN(small_options().anchor_sizes({{8}})), "each of the 5 levels, got 1");
}

}  // namespace
