// Soft-NMS's vectorised sweeps, compiled once per instruction set.
#include "tilewright/core/cpu/vec.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The names of soft_nms_math.h for registers.
template <class T>
at::vec::Vectorized<T> select_of(const at::vec::Vectorized<T>& mask,
                                 const at::vec::Vectorized<T>& yes,
                                 const at::vec::Vectorized<T>& no) {
  return at::vec::Vectorized<T>::blendv(no, yes, mask);
}
template <class T>
at::vec::Vectorized<T> exp_of(const at::vec::Vectorized<T>& x) {
  return x.exp();
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE

#include "tilewright/detection/soft_nms_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
SoftNmsRule<Vec<T>> broadcast(const SoftNmsRule<T>& rule) {
  return {rule.method, Vec<T>(rule.threshold), Vec<T>(rule.sigma), Vec<T>(rule.min_score)};
}

// In the order of the lanes.
template <class T, class Op>
T over_lanes(const Vec<T>& lanes, Op op) {
  T values[kLanes<T>];
  lanes.store(values);
  T result = values[0];
  for (int64_t i = 1; i < kLanes<T>; ++i) result = op(result, values[i]);
  return result;
}
template <class T>
T highest_lane(const Vec<T>& lanes) {
  return over_lanes<T>(lanes, [](T a, T b) { return max_of(a, b); });
}

template <class T>
T highest(const SoftNmsCpuParams<T>& p, int64_t begin, int64_t end) {
  Vec<T> best{T(kSoftNmsOut)};
  for (int64_t k = begin; k < end; k += kLanes<T>) best = max_of(best, load_lanes(p.scores + k));
  return highest_lane<T>(best);
}

template <class T>
T decay(const SoftNmsCpuParams<T>& p, const T* taken, int64_t begin, int64_t end) {
  const NmsBox<Vec<T>> other{Vec<T>(taken[0]), Vec<T>(taken[1]), Vec<T>(taken[2]), Vec<T>(taken[3]),
                             Vec<T>(taken[4])};
  const auto rule = broadcast(p.rule);
  Vec<T> best{T(kSoftNmsOut)};
  for (int64_t k = begin; k < end; k += kLanes<T>) {
    Vec<T> score = load_lanes(p.scores + k);
    const NmsBox<Vec<T>> box{load_lanes(p.boxes[0] + k), load_lanes(p.boxes[1] + k),
                             load_lanes(p.boxes[2] + k), load_lanes(p.boxes[3] + k),
                             load_lanes(p.boxes[4] + k)};
    const Vec<T> intersection = intersection_of(box, other);
    if (any_lane(intersection > Vec<T>(T(0)))) {
      score = soft_nms_decayed(rule, score, soft_nms_overlap(box, other, intersection));
      store_lanes<T>(score, p.scores + k);
    }
    best = max_of(best, score);
  }
  return highest_lane<T>(best);
}

// Boxes [k, k + count) of the taken ones; lanes past that are 0 and meet nothing.
template <class T>
NmsBox<Vec<T>> taken_boxes(const SoftNmsGradParams<T>& p, int64_t k, int64_t count) {
  const auto part = [&](int array) { return load_lanes(p.boxes + array * p.count + k, count); };
  return {part(0), part(1), part(2), part(3), part(4)};
}
template <class T>
NmsBox<Vec<T>> taken_box(const SoftNmsGradParams<T>& p, int64_t i) {
  const auto value = [&](int array) { return Vec<T>(p.boxes[array * p.count + i]); };
  return {value(0), value(1), value(2), value(3), value(4)};
}

template <class T>
void grad_scores(const SoftNmsGradParams<T>& p, int64_t begin, int64_t end) {
  const auto rule = broadcast(p.rule);
  for (int64_t i = begin; i < end; ++i) {
    const auto box = taken_box(p, i);
    Vec<T> product(T(1));
    for (int64_t k = 0; k < i; k += kLanes<T>) {
      const auto other = taken_boxes(p, k, i - k);
      const Vec<T> intersection = intersection_of(box, other);
      if (!any_lane(intersection > Vec<T>(T(0)))) continue;
      product = product * soft_nms_factor(rule, soft_nms_overlap(box, other, intersection));
    }
    const T factor = over_lanes<T>(product, [](T a, T b) { return a * b; });
    p.grad_scores[i] = p.grad[i] * factor;
    p.weight[i] = p.grad_scores[i] * p.scores[i];
  }
}

template <class T>
void grad_boxes(const SoftNmsGradParams<T>& p, int64_t begin, int64_t end) {
  const auto rule = broadcast(p.rule);
  for (int64_t i = begin; i < end; ++i) {
    const auto box = taken_box(p, i);
    Vec<T> sum[4] = {Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0)), Vec<T>(T(0))};
    // Of two boxes the later one's score depends on the pair.
    const auto add = [&](int64_t k, int64_t count, const Vec<T>& weight) {
      const auto other = taken_boxes(p, k, count);
      const Vec<T> intersection = intersection_of(box, other);
      if (!any_lane(intersection > Vec<T>(T(0)))) return;
      const auto g = soft_nms_log_gradient(rule, box, other, intersection);
      sum[0] = sum[0] + weight * g.x1;
      sum[1] = sum[1] + weight * g.y1;
      sum[2] = sum[2] + weight * g.x2;
      sum[3] = sum[3] + weight * g.y2;
    };
    for (int64_t k = 0; k < i; k += kLanes<T>) add(k, i - k, Vec<T>(p.weight[i]));
    for (int64_t k = i + 1; k < p.count; k += kLanes<T>) {
      add(k, p.count - k, load_lanes(p.weight + k, p.count - k));
    }
    for (int c = 0; c < 4; ++c) {
      p.grad_boxes[4 * i + c] = over_lanes<T>(sum[c], [](T a, T b) { return a + b; });
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

#define TILEWRIGHT_SOFT_NMS_KERNELS(T)                                                     \
  SoftNmsCpuKernels<T> TILEWRIGHT_ON_MACHINE(soft_nms_kernels_##T)() {                     \
    return {decay<T>, highest<T>};                                                         \
  }                                                                                        \
  void TILEWRIGHT_ON_MACHINE(soft_nms_grad_scores_##T)(const SoftNmsGradParams<T>& params, \
                                                       int64_t begin, int64_t end) {       \
    grad_scores(params, begin, end);                                                       \
  }                                                                                        \
  void TILEWRIGHT_ON_MACHINE(soft_nms_grad_boxes_##T)(const SoftNmsGradParams<T>& params,  \
                                                      int64_t begin, int64_t end) {        \
    grad_boxes(params, begin, end);                                                        \
  }
TILEWRIGHT_SOFT_NMS_KERNELS(float)
TILEWRIGHT_SOFT_NMS_KERNELS(double)
#undef TILEWRIGHT_SOFT_NMS_KERNELS

}  // namespace tilewright
