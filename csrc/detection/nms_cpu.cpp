// NMS on the CPU: sorts, groups by class, and walks the candidates in blocks. A block is first
// tested against all kept boxes, in parallel, then its own boxes are settled in order; so the
// result does not depend on the number of threads.
#include "tilewright/detection/nms_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <type_traits>
#include <vector>

#include "tilewright/detection/nms_sort.h"

namespace tilewright {
namespace {

constexpr int64_t kBlock = 512;
// Pairs of boxes below which a second thread costs more than it brings.
constexpr int64_t kGrainPairs = 65536;

template <class T>
int64_t run_group(const NmsCpuParams<T>& params) {
  bool dropped[kBlock];
  int64_t kept = 0;
  for (int64_t begin = 0; begin < params.count && kept < params.max_output; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, params.count), tested = kept;
    const auto test = [&](int64_t from, int64_t to) {
      if constexpr (std::is_same_v<T, float>) {
        nms_test_float(params, tested, from, to, dropped + (from - begin));
      } else {
        nms_test_double(params, tested, from, to, dropped + (from - begin));
      }
    };
    at::parallel_for(begin, end, 1 + kGrainPairs / (1 + tested), test);
    if constexpr (std::is_same_v<T, float>) {
      kept = nms_keep_float(params, tested, begin, end, dropped);
    } else {
      kept = nms_keep_double(params, tested, begin, end, dropped);
    }
  }
  return kept;
}

// Fills `keep` (a flag per box of `sorted`) for the boxes of one class, which lie in [begin, end).
template <class T>
void keep_group(const T* boxes, int64_t num_boxes, int64_t begin, int64_t end, T threshold,
                int64_t max_output, bool* keep) {
  const int64_t count = end - begin;
  std::vector<T> kept(5 * count);
  std::vector<int64_t> index(count);
  NmsCpuParams<T> params{};
  for (int a = 0; a < 5; ++a) {
    params.candidates[a] = boxes + a * num_boxes + begin;
    params.kept[a] = kept.data() + a * count;
  }
  params.count = count;
  params.threshold = threshold;
  params.kept_index = index.data();
  params.max_output = max_output;
  const int64_t num_kept = run_group(params);
  for (int64_t i = 0; i < num_kept; ++i) keep[begin + index[i]] = true;
}

template <class T>
at::Tensor run(const NmsSorted& sorted, double iou_threshold, int64_t max_output) {
  const int64_t n = sorted.order.numel();
  const T* boxes = sorted.boxes.const_data_ptr<T>();
  const T threshold = nms_threshold<T>(iou_threshold);
  const int64_t most = max_output < 0 ? n : max_output;
  at::Tensor keep = at::empty({n}, at::kBool).zero_();
  bool* flags = keep.data_ptr<bool>();
  const auto& groups = sorted.group_begins;
  const int64_t num_groups = int64_t(groups.size()) - 1;
  at::parallel_for(0, num_groups, 1, [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) {
      keep_group(boxes, n, groups[g], groups[g + 1], threshold, most, flags);
    }
  });
  return nms_kept(sorted, keep, max_output);
}

at::Tensor keep_boxes(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                      const std::optional<at::Tensor>& idxs, double iou_threshold,
                      int64_t max_output) {
  check_nms(op, boxes, scores, idxs, iou_threshold, max_output);
  const NmsSorted sorted = nms_sort(boxes, scores, idxs);
  return sorted.boxes.scalar_type() == at::kDouble ? run<double>(sorted, iou_threshold, max_output)
                                                   : run<float>(sorted, iou_threshold, max_output);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { NmsKernels<keep_boxes>::add_to(m); }

}  // namespace tilewright
