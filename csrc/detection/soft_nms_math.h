// What Soft-NMS does to a score, and the derivative of that, once, for scalars and SIMD registers.
#pragma once
#include "tilewright/detection/nms_math.h"

namespace tilewright {

// Data that passes between machines, so not within the namespace of one.
enum class SoftNmsMethod { kHard, kLinear, kGaussian };

template <class V>
struct SoftNmsRule {
  SoftNmsMethod method;
  V threshold, sigma, min_score;
};

// What the backward pass is called with on every machine.
template <class T>
struct SoftNmsGradParams {
  const T* boxes;  // (5, count): the taken boxes in the order of their taking
  const T* scores;
  const T* grad;
  int64_t count;
  SoftNmsRule<T> rule;
  T* weight;       // (count,): the gradient of each result times the result
  T* grad_scores;  // (count,)
  T* grad_boxes;   // (count, 4)
};

}  // namespace tilewright

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What the score of a box becomes that may no longer be taken; those in play are not negative.
constexpr int kSoftNmsOut = -1;

template <class T>
TILEWRIGHT_HD T select_of(bool condition, T yes, T no) {
  return condition ? yes : no;
}
TILEWRIGHT_HD float exp_of(float x) { return expf(x); }
TILEWRIGHT_HD double exp_of(double x) { return exp(x); }

// Intersection over union; 0 for pairs that do not meet, among them those without area and those
// whose areas overflow.
template <class V>
TILEWRIGHT_HD V soft_nms_overlap(const NmsBox<V>& a, const NmsBox<V>& b, const V& intersection) {
  const V overlap = select_of(intersection > V(0), iou_of(a, b, intersection), V(0));
  return select_of(overlap >= V(0), overlap, V(0));  // NaN: 0
}

// What a score in play is multiplied by; for kHard: 0 where the box is out.
template <class V>
TILEWRIGHT_HD V soft_nms_factor(const SoftNmsRule<V>& rule, const V& overlap) {
  if (rule.method == SoftNmsMethod::kGaussian) {
    return exp_of(V(0) - overlap * overlap / rule.sigma);
  }
  const V less = rule.method == SoftNmsMethod::kHard ? V(0) : V(1) - overlap;
  return select_of(overlap > rule.threshold, less, V(1));
}

// The score after a box with this overlap was taken.
template <class V>
TILEWRIGHT_HD V soft_nms_decayed(const SoftNmsRule<V>& rule, const V& score, const V& overlap) {
  const V out(kSoftNmsOut);
  V next = score * soft_nms_factor(rule, overlap);
  if (rule.method == SoftNmsMethod::kHard) {
    next = select_of(overlap > rule.threshold, out, score);
  }
  next = select_of(next >= rule.min_score, next, out);  // NaN: out
  return select_of(score >= V(0), next, out);
}

template <class V>
struct BoxGradient {
  V x1, y1, x2, y2;
};

// How much of a side's end belongs to the one of the two boxes whose end is `own`: all, none, or
// half where both end there.
template <class V>
TILEWRIGHT_HD V share_of_end(const V& own, const V& other) {
  return select_of(own < other, V(1), select_of(other < own, V(0), V(0.5)));
}

// The derivative of log(factor) by the corners of box a. Where the factor has none (overlaps of
// exactly 1 under kLinear, whose factor is 0) it is 0.
template <class V>
TILEWRIGHT_HD BoxGradient<V> soft_nms_log_gradient(const SoftNmsRule<V>& rule, const NmsBox<V>& a,
                                                   const NmsBox<V>& b, const V& intersection) {
  const V zero(0), one(1);
  const V overlap = soft_nms_overlap(a, b, intersection);
  V by_overlap = zero;
  if (rule.method == SoftNmsMethod::kGaussian) {
    by_overlap = V(-2) * overlap / rule.sigma;
  } else if (rule.method == SoftNmsMethod::kLinear) {
    const V slope = select_of(overlap < one, V(-1) / (one - overlap), zero);
    by_overlap = select_of(overlap > rule.threshold, slope, zero);
  }
  const V union_area = a.area + b.area - intersection;
  const V width = min_of(a.x2, b.x2) - max_of(a.x1, b.x1);
  const V height = min_of(a.y2, b.y2) - max_of(a.y1, b.y1);
  const V by_intersection = by_overlap * ((one + overlap) / union_area);
  const V by_area = V(0) - by_overlap * (overlap / union_area);
  const V of_width = by_intersection * height, of_height = by_intersection * width;
  const V area_by_x = by_area * (a.y2 - a.y1), area_by_y = by_area * (a.x2 - a.x1);
  const auto meets = overlap > zero;
  const auto end = [&](const V& value) { return select_of(meets, value, zero); };
  return {end(zero - of_width * share_of_end(b.x1, a.x1) - area_by_x),
          end(zero - of_height * share_of_end(b.y1, a.y1) - area_by_y),
          end(of_width * share_of_end(a.x2, b.x2) + area_by_x),
          end(of_height * share_of_end(a.y2, b.y2) + area_by_y)};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
