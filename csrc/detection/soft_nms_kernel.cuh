// Soft-NMS's device code. One block takes box after box: the steps depend on each other, and blocks
// never wait for each other. The backward pass is a gather, a thread per taken box.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/detection/soft_nms_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kSoftNmsThreads = 512;

template <class T>
struct SoftNmsParams {
  const T* boxes;  // (5, count): x1, y1, x2, y2, area
  T* scores;       // (count,): kSoftNmsOut where the box is not in play; overwritten
  int64_t count;
  SoftNmsRule<T> rule;
  int64_t* keep;   // (count,)
  T* kept_scores;  // (count,)
  int64_t* taken;  // how many
};

template <class T>
struct SoftNmsParts {
  T* scores;         // block_reduce's scratch
  int64_t* indices;  // the same
  TILEWRIGHT_HD explicit SoftNmsParts(SharedMemory& shared)
      : scores(shared.take<T>(kLanes)), indices(shared.take<int64_t>(kLanes)) {}
};

template <class T>
TILEWRIGHT_DEVICE NmsBox<T> soft_nms_box(const T* boxes, int64_t count, int64_t i) {
  return {ldg(boxes + i), ldg(boxes + count + i), ldg(boxes + 2 * count + i),
          ldg(boxes + 3 * count + i), ldg(boxes + 4 * count + i)};
}

template <class T>
__global__ void soft_nms_kernel(SoftNmsParams<T> p) {
  SharedMemory shared;
  const SoftNmsParts<T> parts(shared);
  // A thread's own boxes: every blockDim-th. Of equal scores it remembers the first.
  T best = T(kSoftNmsOut);
  int64_t best_index = p.count;
  const auto remember = [&](T score, int64_t i) {
    if (score > best) {
      best = score;
      best_index = i;
    }
  };
  for (int64_t i = threadIdx.x; i < p.count; i += blockDim.x) remember(p.scores[i], i);
  int64_t taken = 0;
  for (;; ++taken) {
    const T score = block_reduce(best, Max(), T(kSoftNmsOut), parts.scores);
    if (score < T(0)) break;  // the whole block
    const int64_t index =
        block_reduce(best == score ? best_index : p.count, Min(), p.count, parts.indices);
    if (threadIdx.x == 0) {
      p.keep[taken] = index;
      p.kept_scores[taken] = score;
    }
    const NmsBox<T> box = soft_nms_box(p.boxes, p.count, index);
    best = T(kSoftNmsOut);
    best_index = p.count;
    for (int64_t i = threadIdx.x; i < p.count; i += blockDim.x) {
      const T before = p.scores[i];
      if (before < T(0)) continue;
      const NmsBox<T> other = soft_nms_box(p.boxes, p.count, i);
      const T intersection = intersection_of(other, box);
      T after = before;
      if (i == index) {
        after = T(kSoftNmsOut);
      } else if (intersection > T(0)) {
        after = soft_nms_decayed(p.rule, before, soft_nms_overlap(other, box, intersection));
      }
      if (after != before) p.scores[i] = after;
      remember(after, i);
    }
  }
  if (threadIdx.x == 0) *p.taken = taken;
}

template <class T>
__global__ void soft_nms_grad_scores_kernel(SoftNmsGradParams<T> p) {
  for (int64_t i : grid_stride(p.count)) {
    const NmsBox<T> box = soft_nms_box(p.boxes, p.count, i);
    T factor = T(1);
    for (int64_t k = 0; k < i; ++k) {
      const NmsBox<T> other = soft_nms_box(p.boxes, p.count, k);
      const T intersection = intersection_of(box, other);
      if (!(intersection > T(0))) continue;
      factor *= soft_nms_factor(p.rule, soft_nms_overlap(box, other, intersection));
    }
    p.grad_scores[i] = p.grad[i] * factor;
    p.weight[i] = p.grad_scores[i] * p.scores[i];
  }
}

// After all of the kernel above.
template <class T>
__global__ void soft_nms_grad_boxes_kernel(SoftNmsGradParams<T> p) {
  for (int64_t i : grid_stride(p.count)) {
    const NmsBox<T> box = soft_nms_box(p.boxes, p.count, i);
    BoxGradient<T> sum{T(0), T(0), T(0), T(0)};
    for (int64_t k = 0; k < p.count; ++k) {
      const NmsBox<T> other = soft_nms_box(p.boxes, p.count, k);
      const T intersection = intersection_of(box, other);
      if (k == i || !(intersection > T(0))) continue;
      // Of two boxes the later one's score depends on the pair.
      const T weight = p.weight[k < i ? i : k];
      const BoxGradient<T> g = soft_nms_log_gradient(p.rule, box, other, intersection);
      sum.x1 += weight * g.x1;
      sum.y1 += weight * g.y1;
      sum.x2 += weight * g.x2;
      sum.y2 += weight * g.y2;
    }
    T* const out = p.grad_boxes + 4 * i;
    out[0] = sum.x1;
    out[1] = sum.y1;
    out[2] = sum.x2;
    out[3] = sum.y2;
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
