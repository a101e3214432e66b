// Whether one of many kept boxes suppresses a box: a vectorised filter, which only lets pairs pass
// that can exceed the threshold, and the exact test for what passes. Rotated boxes are filtered by
// the upright boxes around them, so both kinds of NMS share this.
#pragma once
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/nms_cpu.h"
#include "tilewright/detection/nms_index.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// One box in every lane.
template <class T>
struct NmsQuery {
  Vec<T> x1, y1, x2, y2, bound;
  NmsQuery(const T* const* boxes, int64_t i)
      : x1(boxes[kNmsX1][i]),
        y1(boxes[kNmsY1][i]),
        x2(boxes[kNmsX2][i]),
        y2(boxes[kNmsY2][i]),
        bound(boxes[kNmsBound][i]) {}
};

// Above 0 where a pair can exceed the threshold. A height below 0 is no matter: the product is then
// 0 or negative, or NaN, which is not above 0 either.
template <class T>
TILEWRIGHT_HD Vec<T> nms_excess(T* const* boxes, int64_t k, int64_t count,
                                const NmsQuery<T>& query) {
  const auto load = [&](NmsArray array) { return load_lanes(boxes[array] + k, count); };
  const Vec<T> width =
      max_of(min_of(load(kNmsX2), query.x2) - max_of(load(kNmsX1), query.x1), Vec<T>(T(0)));
  const Vec<T> height = min_of(load(kNmsY2), query.y2) - max_of(load(kNmsY1), query.y1);
  return width * height - (load(kNmsBound) + query.bound);
}

// Boxes [begin, end) of the arrays, which are `limit` long. exact(boxes, origin, k, count, whole):
// whether one of boxes [k, k + count), a register's width at most, exceeds the threshold; `whole`
// tells whether a whole register may be read.
template <class T, class Exact>
bool nms_suppressed(T* const* boxes, const int64_t* origin, int64_t begin, int64_t end,
                    int64_t limit, const NmsQuery<T>& query, const Exact& exact) {
  constexpr int64_t kStep = kLanes<T>, kUnroll = 4;
  const Vec<T> zero(T(0));
  int64_t k = begin;
  for (; k + kUnroll * kStep <= end; k += kUnroll * kStep) {
    Vec<T> most = nms_excess(boxes, k, kStep, query);
    for (int64_t u = 1; u < kUnroll; ++u) {
      most = max_of(most, nms_excess(boxes, k + u * kStep, kStep, query));
    }
    if (!any_lane(most > zero)) continue;
    for (int64_t u = 0; u < kUnroll; ++u) {
      if (exact(boxes, origin, k + u * kStep, kStep, true)) return true;
    }
  }
  for (; k < end; k += kStep) {
    const bool whole = k + kStep <= limit;
    const int64_t count = min_of(kStep, end - k);
    const Vec<T> excess = nms_excess(boxes, k, whole ? kStep : count, query);
    if (any_lane(excess > zero) && exact(boxes, origin, k, count, whole)) return true;
  }
  return false;
}

// Boxes of one bucket. Registers may reach beyond its end: those places hold kept boxes too, or 0.
template <class T, class Exact>
bool nms_suppressed_in_bucket(const NmsIndex<T>& index, int32_t bucket, const NmsQuery<T>& query,
                              const Exact& exact) {
  const Vec<T> zero(T(0));
  const int64_t begin = index.buckets[2 * bucket], end = index.buckets[2 * bucket + 1];
  for (int64_t k = begin; k < end; k += kLanes<T>) {
    if (any_lane(nms_excess(index.boxes, k, kLanes<T>, query) > zero) &&
        exact(index.boxes, index.origin, k, kLanes<T>, true)) {
      return true;
    }
  }
  return false;
}

// Candidate i of the walk against all boxes in the index.
template <class T, class Exact>
bool nms_suppressed_by_index(const NmsCpuParams<T>& p, int64_t moved, int64_t i,
                             const NmsQuery<T>& query, const Exact& exact) {
  const NmsIndex<T>& index = *p.index;
  const auto all = [&] {
    return nms_suppressed(p.boxes, p.origin, 0, moved, p.count, query, exact);
  };
  if (p.boxes[kNmsBound][i] < T(0)) return all();
  const int32_t own = index.bucket_of[i];
  if (nms_suppressed_in_bucket(index, own, query, exact)) return true;
  nms_index::Cells columns, rows;
  const T x1 = p.boxes[kNmsX1][i], y1 = p.boxes[kNmsY1][i];
  const T width = p.boxes[kNmsX2][i] - x1, height = p.boxes[kNmsY2][i] - y1;
  if (!nms_index::find_cells(index, 0, x1, width, columns) ||
      !nms_index::find_cells(index, 1, y1, height, rows)) {
    return all();
  }
  for (int64_t c = 0; c < columns.count; ++c) {
    for (int64_t r = 0; r < rows.count; ++r) {
      const uint32_t bucket = (columns.hashes[c] + rows.hashes[r]) >> (32 - index.bits);
      if (!(index.occupied[bucket / 64] >> (bucket % 64) & 1) || int32_t(bucket) == own) continue;
      if (nms_suppressed_in_bucket(index, int32_t(bucket), query, exact)) return true;
    }
  }
  return false;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
