// Deformable RoI pooling in a program without Python: values, training, errors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support.h"
#include "tilewright/deform/deform_roi_pool.h"
#include "tilewright/detection/roi_align.h"
#include "tilewright/models/deform_roi_pool_module.h"

namespace {

using tilewright::deform_ps_roi_pool;
using tilewright::deform_roi_pool;

// One at (x, y), falling off with distance.
torch::Tensor spot(double x, double y) {
  const auto at = torch::arange(16).to(torch::kFloat);
  return (-((at.view({-1, 1}) - y).square() + (at - x).square()) / 8).exp().view({1, 1, 16, 16});
}

TEST(DeformPool, IsRoiAlignWithoutOffsets) {
  torch::manual_seed(0);
  const auto x = torch::randn({1, 3, 9, 8}), rois = torch::tensor({{0.f, 1.f, 2.f, 6.f, 7.5f}});
  const auto expected = tilewright::roi_align(x, rois, 1, 2, 2, 2, true);
  EXPECT_TRUE(deform_roi_pool(x, rois, {}, 1, 2, 2, 2).equal(expected));
  EXPECT_TRUE(deform_roi_pool(x, rois, torch::zeros({1, 2, 2, 2}), 1, 2, 2, 2).allclose(expected));
}

// A bin climbs onto a spot beside its box.
TEST(DeformPool, LearnsWhereToLook) {
  const auto x = spot(11, 5);
  const auto rois = torch::tensor({{0.f, 4.f, 4.f, 12.f, 12.f}});
  for (const bool position_sensitive : {false, true}) {
    auto offset = torch::zeros({1, 2, 1, 1}, torch::requires_grad());
    torch::optim::Adam optimizer({offset}, torch::optim::AdamOptions(0.1));
    const auto seen = [&] {
      return position_sensitive ? deform_ps_roi_pool(x, rois, offset, 1, 1, 1, 1, 1)
                                : deform_roi_pool(x, rois, offset, 1, 1, 1);
    };
    const double before = seen().item<double>();
    for (int step = 0; step < 100; ++step) {
      optimizer.zero_grad();
      seen().sum().neg().backward();
      optimizer.step();
    }
    EXPECT_GT(seen().item<double>(), 1.5 * before);
    EXPECT_GT(offset[0][0].item<float>(), 0.5);   // to the right, by a tenth of 8 pixels each
    EXPECT_LT(offset[0][1].item<float>(), -0.5);  // upwards
  }
}

TEST(DeformPool, ModulePredictsItsOffsets) {
  torch::manual_seed(0);
  const auto x = torch::cat({spot(11, 5), spot(3, 3)}, 1);
  const auto rois = torch::tensor({{0.f, 4.f, 4.f, 12.f, 12.f}, {0.f, 1.f, 2.f, 8.f, 9.f}});
  tilewright::DeformRoIPool pool(
      tilewright::DeformRoIPoolOptions(2, 2).sampling_ratio(2).in_channels(2).fc_channels(16));
  const auto still = tilewright::roi_align(x, rois, 1, 2, 2, 2, true);
  EXPECT_TRUE(pool(x, rois).allclose(still));
  torch::optim::Adam optimizer(pool->parameters(), torch::optim::AdamOptions(0.01));
  for (int step = 0; step < 40; ++step) {
    optimizer.zero_grad();
    pool(x, rois).sum().neg().backward();
    optimizer.step();
  }
  EXPECT_GT(pool(x, rois).sum().item<float>(), 1.2f * still.sum().item<float>());
  EXPECT_EQ(pool->named_parameters().keys().front(), "offset_fc.0.weight");
  tilewright::DeformRoIPool given(tilewright::DeformRoIPoolOptions(2, 2).sampling_ratio(2));
  EXPECT_TRUE(given->parameters().empty());
  EXPECT_TRUE(given(x, rois).equal(still));
  EXPECT_MESSAGE(pool(x.narrow(1, 0, 1), rois), "input must have shape (N, in_channels = 2, H, W)");
  EXPECT_MESSAGE(tilewright::DeformRoIPool(tilewright::DeformRoIPoolOptions(2, 0)),
                 "DeformRoIPool: pooled_height and pooled_width must be positive, got 2 and 0");
}

TEST(DeformPool, ErrorsSayWhatWasExpected) {
  const auto x = torch::randn({1, 8, 9, 8}), rois = torch::zeros({3, 5});
  EXPECT_MESSAGE(deform_roi_pool(x, rois, torch::zeros({3, 2, 1, 2}), 1, 2, 2),
                 "offset must have shape (3, 2, 2, 2), got (3, 2, 1, 2)");
  EXPECT_MESSAGE(deform_ps_roi_pool(x, rois, {}, 1, 3, 2, 2, 2),
                 "input must have shape (N, output_dim * group_size^2 = 12, H, W), got");
}

}  // namespace
