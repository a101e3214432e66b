// Soft-NMS on the CPU: takes the box of the highest score, lowers the others, and moves together
// what is left from time to time.
#include "tilewright/detection/soft_nms_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "tilewright/core/math.h"
#include "tilewright/detection/nms_cpu_sort.h"
#include "tilewright/detection/soft_nms_data.h"

namespace tilewright {
namespace {

// Scores whose highest is kept together; the threads share blocks.
constexpr int64_t kSweepBlock = 4096;
// Blocks below which a second thread costs more than it brings.
constexpr int64_t kGrainBlocks = 8;
// Boxes that are out are thrown out after so many steps, if they are one in so many.
constexpr int64_t kStepsBetween = 32, kOutShare = 8;
// Pairs of taken boxes that a thread should have in the backward pass.
constexpr int64_t kDecayGrain = 1 << 15;

template <class T>
SoftNmsCpuKernels<T> kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return soft_nms_kernels_float();
  } else {
    return soft_nms_kernels_double();
  }
}

// The boxes in play, in the order of the input.
template <class T>
class Play {
 public:
  Play(const T* rows, const T* scores, int64_t count, const SoftNmsRule<T>& rule)
      : padded_(ceil_div(std::max<int64_t>(count, 1), kSoftNmsPadding) * kSoftNmsPadding),
        storage_(uninitialized<T>(6 * padded_)),
        index_(uninitialized<int64_t>(padded_)),
        highest_(size_t(ceil_div(padded_, kSweepBlock))) {
    params_.rule = rule;
    for (int a = 0; a < 5; ++a) params_.boxes[a] = storage_.get() + a * padded_;
    params_.scores = storage_.get() + 5 * padded_;
    for (int64_t i = 0; i < count; ++i) {
      const T* row = rows + 4 * i;
      if (!(scores[i] >= rule.min_score) || !nms_sort_internal::all_finite(row, 4)) continue;
      put(size_++, row[0], row[1], row[2], row[3], box_area_of(row[0], row[1], row[2], row[3]),
          scores[i], i);
    }
    pad(padded_);
    over_blocks([&](int64_t begin, int64_t end) { return kernels_.highest(params_, begin, end); });
  }

  // Takes a box; false if none is left.
  bool take(int64_t& index, T& score) {
    const auto best = std::max_element(highest_.begin(), highest_.end());  // the first of equals
    if (*best < T(0)) return false;
    T* const first = params_.scores + (best - highest_.begin()) * kSweepBlock;
    const int64_t at = std::find(first, params_.scores + size_, *best) - params_.scores;
    index = index_[at];
    score = *best;
    params_.scores[at] = T(kSoftNmsOut);
    T taken[5];
    for (int a = 0; a < 5; ++a) taken[a] = params_.boxes[a][at];
    if (++steps_ % kStepsBetween == 0) throw_out();
    over_blocks(
        [&](int64_t begin, int64_t end) { return kernels_.decay(params_, taken, begin, end); });
    return true;
  }

 private:
  void put(int64_t at, T x1, T y1, T x2, T y2, T area, T score, int64_t index) {
    const T values[] = {x1, y1, x2, y2, area};
    for (int a = 0; a < 5; ++a) params_.boxes[a][at] = values[a];
    params_.scores[at] = score;
    index_[at] = index;
  }

  void pad(int64_t end) {
    for (int64_t i = size_; i < end; ++i) put(i, T(0), T(0), T(0), T(0), T(0), T(kSoftNmsOut), -1);
  }

  void throw_out() {
    const auto out = [](T score) { return score < T(0); };
    if (std::count_if(params_.scores, params_.scores + size_, out) * kOutShare < size_) return;
    int64_t left = 0;
    for (int64_t i = 0; i < size_; ++i) {
      if (out(params_.scores[i])) continue;
      put(left++, params_.boxes[0][i], params_.boxes[1][i], params_.boxes[2][i],
          params_.boxes[3][i], params_.boxes[4][i], params_.scores[i], index_[i]);
    }
    size_ = left;
    pad(end_of_scores());
    highest_.resize(size_t(std::max<int64_t>(ceil_div(size_, kSweepBlock), 1)));
  }

  int64_t end_of_scores() const { return ceil_div(size_, kSoftNmsPadding) * kSoftNmsPadding; }

  template <class Sweep>
  void over_blocks(const Sweep& sweep) {
    const int64_t end_of_all = end_of_scores();
    at::parallel_for(0, int64_t(highest_.size()), kGrainBlocks, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        highest_[b] = sweep(b * kSweepBlock, std::min((b + 1) * kSweepBlock, end_of_all));
      }
    });
  }

  const SoftNmsCpuKernels<T> kernels_ = kernels<T>();
  SoftNmsCpuParams<T> params_{};
  int64_t padded_, size_ = 0, steps_ = 0;
  std::unique_ptr<T[]> storage_;
  std::unique_ptr<int64_t[]> index_;
  std::vector<T> highest_;  // of each block
};

template <class T>
std::tuple<at::Tensor, at::Tensor> take_all(const SoftNmsArgs& args, const at::Tensor& boxes,
                                            const at::Tensor& scores) {
  Play<T> play(boxes.const_data_ptr<T>(), scores.const_data_ptr<T>(), boxes.size(0),
               args.rule<T>());
  std::vector<int64_t> taken;
  std::vector<T> taken_scores;
  int64_t index = 0;
  for (T score; play.take(index, score);) {
    taken.push_back(index);
    taken_scores.push_back(score);
  }
  const int64_t count = int64_t(taken.size());
  at::Tensor keep = at::empty({count}, boxes.options().dtype(at::kLong));
  at::Tensor kept_scores = at::empty({count}, scores.options());
  std::copy(taken.begin(), taken.end(), keep.mutable_data_ptr<int64_t>());
  std::copy(taken_scores.begin(), taken_scores.end(), kept_scores.mutable_data_ptr<T>());
  return {keep, kept_scores};
}

std::tuple<at::Tensor, at::Tensor> keep_softly(const SoftNmsArgs& args, const at::Tensor& boxes,
                                               const at::Tensor& scores) {
  const auto type = soft_nms_type(boxes, scores);
  const at::Tensor b = boxes.to(type).contiguous(), s = scores.to(type).contiguous();
  auto [keep, kept_scores] =
      type == at::kDouble ? take_all<double>(args, b, s) : take_all<float>(args, b, s);
  return {keep, kept_scores.to(scores.scalar_type())};
}

template <class T>
void fill(const SoftNmsArgs& args, const SoftNmsGradients& g) {
  SoftNmsGradParams<T> params{};
  params.boxes = g.boxes.const_data_ptr<T>();
  params.scores = g.scores.const_data_ptr<T>();
  params.grad = g.grad.const_data_ptr<T>();
  params.count = g.scores.size(0);
  params.rule = args.rule<T>();
  params.weight = g.weight.mutable_data_ptr<T>();
  params.grad_scores = g.grad_scores.mutable_data_ptr<T>();
  params.grad_boxes = g.grad_boxes.mutable_data_ptr<T>();
  const int64_t grain = 1 + kDecayGrain / std::max<int64_t>(params.count, 1);
  at::parallel_for(0, params.count, grain, [&](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<T, float>) {
      soft_nms_grad_scores_float(params, begin, end);
    } else {
      soft_nms_grad_scores_double(params, begin, end);
    }
  });
  at::parallel_for(0, params.count, grain, [&](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<T, float>) {
      soft_nms_grad_boxes_float(params, begin, end);
    } else {
      soft_nms_grad_boxes_double(params, begin, end);
    }
  });
}

std::tuple<at::Tensor, at::Tensor> backward(const SoftNmsArgs& args, const at::Tensor& grad,
                                            const at::Tensor& boxes, const at::Tensor& scores,
                                            const at::Tensor& keep) {
  const SoftNmsGradients g = soft_nms_gradients(grad, boxes, scores, keep);
  g.scores.scalar_type() == at::kDouble ? fill<double>(args, g) : fill<float>(args, g);
  return soft_nms_scatter(g, boxes, scores, keep);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { SoftNmsKernels<keep_softly, backward>::add_to(m); }

}  // namespace tilewright
