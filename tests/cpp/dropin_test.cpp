// Existing operators on this library's kernels, in a program without Python.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support.h"
#include "tilewright/dropin/acceleration.h"

namespace {

using tilewright::Acceleration;

// Attention in float32 is as exact as sums allow; which kernel ran shows in the last bits.
torch::Tensor attend(const torch::Tensor& q) {
  return torch::scaled_dot_product_attention(q, q, q);
}

TEST(Acceleration, StandsForAsLongAsItLives) {
  const std::string name = "aten::_scaled_dot_product_flash_attention_for_cpu";
  torch::manual_seed(0);
  const auto q = torch::randn({2, 4, 130, 32}, torch::requires_grad());
  const auto before = attend(q);
  {
    const Acceleration active({name, name + "_backward"});
    EXPECT_EQ(active.replaced().front(), name + " on cpu");
    EXPECT_EQ(active.replaced().size(), 2);
    const auto during = attend(q);
    EXPECT_TRUE(during.allclose(before, 1e-4, 1e-5));
    EXPECT_FALSE(during.equal(before));
    EXPECT_EQ(during.strides(), before.strides());
    during.sum().backward();
    EXPECT_TRUE(q.grad().isfinite().all().item<bool>());
  }
  EXPECT_TRUE(attend(q).equal(before));
}

TEST(Acceleration, NamesWhatIsNotThere) {
  EXPECT_MESSAGE(Acceleration({"torchvision::nms"}),
                 "torchvision::nms is not registered: load what defines it first");
  EXPECT_MESSAGE(Acceleration({"aten::relu"}), "operators may be of torchvision::roi_align");
  EXPECT_MESSAGE(Acceleration({}, {"tpu"}), "devices may be of cpu and cuda, got tpu");
}

}  // namespace
