// Every pooling and suppression operator there is, found in the dispatcher, on boxes that are no
// boxes and maps that fit no tile: results are finite, errors are errors. Under the sanitizers this
// is the test that looks for reads and writes beside the tensors (tests/sanitize.py).
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
const std::vector<torch::Dtype> kDtypes{torch::kDouble, torch::kFloat, torch::kHalf,
                                        torch::kBFloat16};

// The operators of tilewright, backward passes (with a leading underscore) left out, whose first
// arguments have these names.
std::vector<c10::OperatorHandle> operators(const std::vector<std::string>& arguments) {
  std::vector<c10::OperatorHandle> found;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("tilewright::", 0) != 0 || name.name.rfind("tilewright::_", 0) == 0)
      continue;
    const auto op = dispatcher.findSchema(name);
    if (!op) continue;
    const auto& schema = op->schema().arguments();
    bool same = schema.size() >= arguments.size();
    for (size_t i = 0; same && i < arguments.size(); ++i) same = schema[i].name() == arguments[i];
    if (same) found.push_back(*op);
  }
  return found;
}

bool is_rotated(const c10::OperatorHandle& op) {
  return op.schema().name().find("rotated") != std::string::npos;
}

// Calls with these first arguments and the defaults of the others; returns the first result.
torch::Tensor call(const c10::OperatorHandle& op, std::vector<c10::IValue> arguments) {
  const auto& schema = op.schema().arguments();
  for (size_t i = arguments.size(); i < schema.size(); ++i) {
    arguments.push_back(schema[i].default_value().value());
  }
  op.callBoxed(arguments);
  return arguments.front().toTensor();
}

// Corners of boxes on a map of 37 x 23 pixels: inside, across each edge, and none that is one.
torch::Tensor odd_corners() {
  std::vector<double> all;
  for (const auto& corners : std::vector<std::vector<double>>{
           {2, 3, 17, 30},        {-4, -5, 6, 7},       {15, 20, 40, 60},  {0, 0, 23, 37},
           {22.9, 36.9, 23, 37},  {8, 8, 8, 8},         {9, 9, 3, 2},      {5, 1, 5, 30},
           {-900, -900, -1, -1},  {1e4, 1e4, 2e4, 2e4}, {-6e4, 0, 6e4, 9}, {1e30, 0, 2e30, 9},
           {kNan, 1, 2, 3},       {1, 1, kNan, 9},      {1, 1, kInf, 9},   {-kInf, 1, 5, kInf},
           {-kInf, kNan, 5, 5.5}, {-1, -1, 0, 0},       {23, 37, 24, 38},  {1e-30, 0, 2e-30, 9}}) {
    all.insert(all.end(), corners.begin(), corners.end());
  }
  return torch::tensor(all, torch::kDouble).view({-1, 4});
}

torch::Tensor odd_rois(int64_t images, bool rotated, torch::Dtype dtype) {
  const auto corners = odd_corners();
  const auto index = torch::arange(corners.size(0), torch::kDouble).remainder(images).unsqueeze(1);
  std::vector<torch::Tensor> columns{index, corners};
  if (rotated) columns.push_back(index * 0.7 - 3);
  return torch::cat(columns, 1).to(dtype);
}

TEST(Edges, EveryPoolingIsFinite) {
  const auto found = operators({"input", "rois", "spatial_scale", "pooled_height", "pooled_width"});
  ASSERT_FALSE(found.empty());
  for (const auto& op : found) {
    for (const auto dtype : kDtypes) {
      for (const auto layout :
           {torch::MemoryFormat::Contiguous, torch::MemoryFormat::ChannelsLast}) {
        for (const int64_t bins : {1, 3}) {
          SCOPED_TRACE(op.schema().name() + " " + c10::toString(dtype));
          auto input = torch::rand({2, 7 * bins * bins, 37, 23}, dtype).contiguous(layout);
          input.requires_grad_();
          const auto rois = odd_rois(2, is_rotated(op), dtype);
          const auto out = call(op, {input, rois, 0.77, bins, bins});
          EXPECT_TRUE(out.isfinite().all().item<bool>());
          out.sum().backward();
          EXPECT_TRUE(input.grad().isfinite().all().item<bool>());
        }
      }
    }
  }
}

TEST(Edges, EveryPoolingRefusesImagesThatAreNot) {
  for (const auto& op :
       operators({"input", "rois", "spatial_scale", "pooled_height", "pooled_width"})) {
    for (const double image : {-1.0, 2.0, 1e9, kNan, kInf}) {
      SCOPED_TRACE(op.schema().name() + " " + std::to_string(image));
      auto rois = odd_rois(2, is_rotated(op), torch::kFloat);
      rois[0][0] = image;
      EXPECT_THROW(call(op, {torch::rand({2, 4, 37, 23}), rois, 1.0, 2, 2}), c10::Error);
    }
  }
}

TEST(Edges, EverySuppressionKeepsBoxesThatAreBoxes) {
  const auto found = operators({"boxes", "scores"});
  ASSERT_FALSE(found.empty());
  for (const auto& op : found) {
    for (const auto dtype : kDtypes) {
      for (const int64_t copies : {1, 4, 70}) {
        SCOPED_TRACE(op.schema().name() + " " + c10::toString(dtype));
        auto boxes = odd_corners().repeat({copies, 1});
        if (is_rotated(op)) boxes = torch::cat({boxes, boxes.slice(1, 0, 1)}, 1);  // angles
        boxes = boxes.to(dtype);
        const int64_t count = boxes.size(0);
        auto scores = torch::rand({count}, torch::kDouble).to(dtype);
        scores[0] = kNan;
        std::vector<c10::IValue> arguments{boxes, scores};
        for (size_t i = 2; i < op.schema().arguments().size(); ++i) {
          const auto& name = op.schema().arguments()[i].name();
          if (name == "idxs") arguments.push_back(torch::arange(count).remainder(3));
          if (name == "iou_threshold") arguments.push_back(0.5);
        }
        const auto keep = call(op, arguments);
        ASSERT_EQ(keep.scalar_type(), torch::kLong);
        ASSERT_GT(keep.numel(), 0);
        EXPECT_GE(keep.min().item<int64_t>(), 0);
        EXPECT_LT(keep.max().item<int64_t>(), count);
        EXPECT_TRUE(boxes.index({keep}).isfinite().all().item<bool>());
        EXPECT_TRUE(scores.index({keep}).isfinite().all().item<bool>());
      }
    }
  }
}

// So many that the index over kept boxes and the threads have a part in it.
TEST(Edges, ManyBoxesSomeOfThemNone) {
  const int before = torch::get_num_threads();
  torch::set_num_threads(2);
  constexpr int64_t kCount = 6000;
  const auto place = torch::arange(kCount, torch::kFloat);
  const auto corner = torch::stack({place.remainder(80) * 8, place.div(80).floor() * 8}, 1);
  auto boxes = torch::cat({corner, torch::full({kCount, 2}, 7.0f)}, 1);  // corner and size
  for (const int64_t side : {2, 3}) {                                    // without area, inverted
    boxes.slice(0, side, kCount, 50).select(1, side).fill_(side == 2 ? 0.0f : -3.0f);
  }
  const auto scores = torch::arange(kCount, torch::kFloat).div(kCount);
  for (const auto& op : operators({"boxes", "scores"})) {
    SCOPED_TRACE(op.schema().name());
    auto given = is_rotated(op) ? torch::cat({boxes, torch::zeros({kCount, 1})}, 1)
                                : torch::cat({corner, corner + boxes.slice(1, 2)}, 1);
    std::vector<c10::IValue> arguments{given, scores};
    for (size_t i = 2; i < op.schema().arguments().size(); ++i) {
      const auto& name = op.schema().arguments()[i].name();
      if (name == "idxs") arguments.push_back(torch::zeros({kCount}, torch::kLong));
      if (name == "iou_threshold") arguments.push_back(0.5);
    }
    EXPECT_GT(call(op, arguments).numel(), kCount - 300);  // no two of them meet
  }
  torch::set_num_threads(before);
}

}  // namespace
