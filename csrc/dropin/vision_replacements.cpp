// torchvision's operators: most take the arguments that ours take.
#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

constexpr int64_t kMostSamples = 1024;  // of a bin and axis: roi_align's limit

// kPlace: where the arguments have sampling_ratio.
template <size_t kPlace>
bool few_samples(const Stack& arguments) {
  return arguments[kPlace].toInt() <= kMostSamples;
}

bool is_share(const Stack& arguments) {
  const double threshold = arguments[2].toDouble();
  return threshold >= 0 && threshold <= 1;
}

void add_max_output(Stack& arguments) { arguments.emplace_back(int64_t(-1)); }

// (grad, rois, channel_mapping, scale, height, width, [sampling_ratio,] batch, channels, H, W)
void drop_mapping(Stack& arguments) { arguments.erase(arguments.begin() + 2); }
void drop_mapping_and_move_ratio(Stack& arguments) {
  drop_mapping(arguments);
  std::rotate(arguments.begin() + 5, arguments.begin() + 6, arguments.end());
}

// Their stride_h, stride_w, pad_h, ... as pairs, from `first` on; groups and offset_groups follow.
void pair_up(const Stack& from, size_t first, Stack& to) {
  for (size_t i = first; i < first + 6; i += 2) {
    to.emplace_back(std::vector<int64_t>{from[i].toInt(), from[i + 1].toInt()});
  }
  to.push_back(from[first + 6]);
  to.push_back(from[first + 7]);
}

// (input, weight, offset, mask, bias, 8 numbers, use_mask); without a mask theirs holds anything.
void arrange_deform(Stack& arguments) {
  Stack ours(arguments.begin(), arguments.begin() + 5);
  if (!arguments[13].toBool()) ours[3] = c10::IValue();
  pair_up(arguments, 5, ours);
  arguments = std::move(ours);
}
// The same behind the gradient. All five gradients are wanted.
void arrange_deform_backward(Stack& arguments) {
  Stack ours(arguments.begin(), arguments.begin() + 5);
  const bool use_mask = arguments[14].toBool();
  if (!use_mask) ours[4] = c10::IValue();
  pair_up(arguments, 6, ours);
  ours.emplace_back(c10::List<bool>({true, true, true, use_mask, true}));
  arguments = std::move(ours);
}
void finish_deform_backward(const Stack& theirs, Stack& results) {
  make_contiguous(theirs, results);
  if (!theirs[14].toBool()) results[3] = at::zeros_like(theirs[4].toTensor());
}

}  // namespace

void make_contiguous(const Stack&, Stack& results) {
  for (c10::IValue& result : results) result = result.toTensor().contiguous();
}

std::vector<Replacement> vision_replacements() {
  return {
      {"torchvision::roi_align", "tilewright::roi_align", true, &few_samples<5>, nullptr,
       &make_contiguous},
      {"torchvision::_roi_align_backward", "tilewright::_roi_align_backward", true, &few_samples<9>,
       nullptr, &make_contiguous},
      {"torchvision::roi_pool", "tilewright::roi_pool", true, nullptr, nullptr, &make_contiguous},
      {"torchvision::_roi_pool_backward", "tilewright::_roi_pool_backward", true, nullptr, nullptr,
       &make_contiguous},
      {"torchvision::ps_roi_align", "tilewright::ps_roi_align", true, &few_samples<5>, nullptr,
       &make_contiguous},
      {"torchvision::_ps_roi_align_backward", "tilewright::_ps_roi_align_backward", true,
       &few_samples<6>, &drop_mapping_and_move_ratio, &make_contiguous},
      {"torchvision::ps_roi_pool", "tilewright::ps_roi_pool", true, nullptr, nullptr,
       &make_contiguous},
      {"torchvision::_ps_roi_pool_backward", "tilewright::_ps_roi_pool_backward", true, nullptr,
       &drop_mapping, &make_contiguous},
      {"torchvision::nms", "tilewright::nms", true, &is_share, &add_max_output, &make_contiguous},
      {"torchvision::deform_conv2d", "tilewright::deform_conv2d", true, nullptr, &arrange_deform,
       &make_contiguous},
      {"torchvision::_deform_conv2d_backward", "tilewright::_deform_conv2d_backward", true, nullptr,
       &arrange_deform_backward, &finish_deform_backward},
  };
}

}  // namespace tilewright
