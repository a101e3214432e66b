// The CPU's walk of NMS over boxes by descending score, for any exact test.
#pragma once
#include <limits>
#include <type_traits>

#include "tilewright/detection/nms_sweep.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
constexpr T kNmsInfinity = std::numeric_limits<T>::infinity();

// The bound of a box (see NmsArray): if intersection / (a + b - intersection) exceeds t then
// intersection > t / (1 + t) * (a + b). `given_away` is a share that is more than what rounding can
// do to either.
template <class T>
T nms_bound(T area, double threshold, double given_away) {
  // Products of an area from here on and any threshold in use are normal numbers.
  constexpr T kSmallArea = std::is_same_v<T, float> ? T(0x1p-100) : T(0x1p-900);
  constexpr double kSmallThreshold = 0x1p-20;
  // No overlap exceeds 1, boxes without a positive area meet nothing, and an overlap with an area
  // that is infinite is 0.
  if (threshold >= 1 || !(area > T(0) && area < kNmsInfinity<T>)) return kNmsInfinity<T>;
  if (area < kSmallArea) return -kNmsInfinity<T>;
  if (threshold < kSmallThreshold) return T(0);
  return area * T(threshold / (1 + threshold) * (1 - given_away));
}

template <class T, class Exact>
void nms_test(const NmsCpuParams<T>& p, const NmsProgress& progress, int64_t begin, int64_t end,
              bool* dropped) {
  for (int64_t i = begin; i < end; ++i) {
    dropped[i - begin] = false;
    // A box that meets nothing is in no bucket of the index either.
    if (!(p.boxes[kNmsBound][i] < kNmsInfinity<T>)) continue;
    const NmsQuery<T> query(p.boxes, i);
    const Exact exact(p, query, i);
    dropped[i - begin] =
        p.index == nullptr
            ? nms_suppressed(p.boxes, p.origin, 0, progress.moved, p.count, query, exact)
            : nms_suppressed_by_index(p, progress.moved, i, query, exact);
  }
}

template <class T>
void nms_insert(const NmsCpuParams<T>& p, const NmsIndex<T>& index, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    const uint32_t bucket = uint32_t(index.bucket_of[k]);
    const int64_t place = index.buckets[2 * bucket + 1]++;
    for (int a = 0; a < kNmsArrays; ++a) index.boxes[a][place] = p.boxes[a][k];
    if (p.origin != nullptr) index.origin[place] = p.origin[k];
    index.occupied[bucket / 64] |= uint64_t(1) << (bucket % 64);
  }
}

template <class T, class Exact>
void nms_settle(const NmsCpuParams<T>& p, NmsProgress& progress, int64_t end, const bool* dropped) {
  const int64_t begin = progress.visited, tested = progress.moved;
  for (int64_t i = begin; i < end && progress.kept < p.max_output; ++i) {
    if (p.boxes[kNmsBound][i] < kNmsInfinity<T>) {
      if (dropped != nullptr && dropped[i - begin]) continue;
      const NmsQuery<T> query(p.boxes, i);
      const Exact exact(p, query, i);
      const bool from_first = dropped == nullptr && p.index == nullptr;
      if (nms_suppressed(p.boxes, p.origin, from_first ? 0 : tested, progress.moved, p.count, query,
                         exact)) {
        continue;
      }
      if (dropped == nullptr && p.index != nullptr &&
          nms_suppressed_by_index(p, tested, i, query, exact)) {
        continue;
      }
      for (int a = 0; a < kNmsArrays; ++a) p.boxes[a][progress.moved] = p.boxes[a][i];
      if (p.origin != nullptr) p.origin[progress.moved] = i;
      if (p.index != nullptr) p.index->bucket_of[progress.moved] = p.index->bucket_of[i];
      ++progress.moved;
    }
    p.keep[i] = true;
    ++progress.kept;
  }
  progress.visited = end;
  if (p.index != nullptr) nms_insert(p, *p.index, tested, progress.moved);
}

template <class T>
void nms_find_buckets(const NmsCpuParams<T>& p, const NmsIndex<T>& index,
                      const NmsProgress& progress, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (i >= progress.moved && i < progress.visited) continue;
    const bool meets_nothing = p.boxes[kNmsBound][i] == kNmsInfinity<T>;
    index.bucket_of[i] = meets_nothing
                             ? -1
                             : nms_index::bucket_of(index, p.boxes[kNmsX1][i], p.boxes[kNmsY1][i],
                                                    p.boxes[kNmsX2][i], p.boxes[kNmsY2][i]);
  }
}

template <class T>
void nms_build_index(const NmsCpuParams<T>& p, const NmsIndex<T>& index,
                     const NmsProgress& progress) {
  const auto count = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (index.bucket_of[i] >= 0) ++index.buckets[2 * index.bucket_of[i]];
    }
  };
  count(0, progress.moved);
  count(progress.visited, p.count);
  int32_t place = 0;
  for (int64_t b = 0; b < int64_t(1) << index.bits; ++b) {
    const int32_t size = index.buckets[2 * b];
    index.buckets[2 * b] = index.buckets[2 * b + 1] = place;
    place += size;
  }
  nms_insert(p, index, 0, progress.moved);
}

// Exact is constructed from (params, query, candidate) and called as nms_suppressed does.
template <class T, class Exact>
NmsCpuKernels<T> nms_walk_kernels() {
  return {nms_test<T, Exact>, nms_settle<T, Exact>, nms_find_buckets<T>, nms_build_index<T>};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
