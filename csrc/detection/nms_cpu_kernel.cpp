// NMS's walk over boxes by descending score, compiled once per instruction set.
#include <limits>

#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/nms_math.h"
#include "tilewright/detection/nms_sweep.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// Areas and intersections of which the product with any threshold in use is a normal number.
template <class T>
constexpr T kSmallArea = std::is_same_v<T, float> ? T(0x1p-100) : T(0x1p-900);
constexpr double kSmallThreshold = 0x1p-20;

// If intersection / (a + b - intersection) exceeds t then intersection > t / (1 + t) * (a + b).
// What rounding can do to either is less than the share given away here.
template <class T>
T bound_of(T x1, T y1, T x2, T y2, double threshold) {
  const T area = box_area_of(x1, y1, x2, y2);
  // No overlap exceeds 1, boxes without a positive area meet nothing, and an overlap with an area
  // that is infinite is 0.
  if (threshold >= 1 || !(x2 > x1 && y2 > y1 && area > T(0) && area < kInfinity<T>)) {
    return kInfinity<T>;
  }
  if (area < kSmallArea<T>) return -kInfinity<T>;
  if (threshold < kSmallThreshold) return T(0);
  constexpr double kGivenAway = 32 * double(std::numeric_limits<T>::epsilon());
  return area * T(threshold / (1 + threshold) * (1 - kGivenAway));
}

template <class T>
void load(const T* rows, const int64_t* order, double threshold, int64_t begin, int64_t end,
          T* const* out) {
  for (int64_t i = begin; i < end; ++i) {
    const T* const row = rows + 4 * order[i];
    for (int a = 0; a < 4; ++a) out[a][i] = row[a];
    out[kNmsBound][i] = bound_of(row[0], row[1], row[2], row[3], threshold);
  }
}

// Intersection over union, as every machine computes it.
template <class T>
class Exceeds {
 public:
  Exceeds(const NmsQuery<T>& query, T threshold)
      : box_{query.x1, query.y1, query.x2, query.y2,
             box_area_of(query.x1, query.y1, query.x2, query.y2)},
        threshold_(threshold) {}

  bool operator()(T* const* boxes, int64_t k, int64_t count, bool whole) const {
    const auto part = [&](NmsArray array) {
      return load_lanes(boxes[array] + k, whole ? kLanes<T> : count);
    };
    NmsBox<Vec<T>> kept{part(kNmsX1), part(kNmsY1), part(kNmsX2), part(kNmsY2), Vec<T>(T(0))};
    kept.area = box_area_of(kept.x1, kept.y1, kept.x2, kept.y2);
    const Vec<T> intersection = intersection_of(kept, box_);
    const Vec<T> exceeds =
        (iou_of(kept, box_, intersection) > threshold_) & (intersection > Vec<T>(T(0)));
    const int lanes = (1 << count) - 1;
    return (exceeds.zero_mask() & lanes) != lanes;
  }

 private:
  NmsBox<Vec<T>> box_;
  Vec<T> threshold_;
};

template <class T>
void test(const NmsCpuParams<T>& p, const NmsProgress& progress, int64_t begin, int64_t end,
          bool* dropped) {
  for (int64_t i = begin; i < end; ++i) {
    const NmsQuery<T> query(p.boxes, i);
    const Exceeds<T> exceeds(query, p.threshold);
    dropped[i - begin] =
        p.index == nullptr
            ? nms_suppressed(p.boxes, 0, progress.moved, p.count, query, exceeds)
            : nms_suppressed_by_index(p, progress.moved, i, query, exceeds);
  }
}

template <class T>
void insert(const NmsIndex<T>& index, T* const* boxes, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    const uint32_t bucket = uint32_t(index.bucket_of[k]);
    const int64_t place = index.buckets[2 * bucket + 1]++;
    for (int a = 0; a < kNmsArrays; ++a) index.boxes[a][place] = boxes[a][k];
    index.occupied[bucket / 64] |= uint64_t(1) << (bucket % 64);
  }
}

template <class T>
void settle(const NmsCpuParams<T>& p, NmsProgress& progress, int64_t end, const bool* dropped) {
  const int64_t begin = progress.visited, tested = progress.moved;
  for (int64_t i = begin; i < end && progress.kept < p.max_output; ++i) {
    if (p.boxes[kNmsBound][i] < kInfinity<T>) {
      if (dropped != nullptr && dropped[i - begin]) continue;
      const NmsQuery<T> query(p.boxes, i);
      const Exceeds<T> exceeds(query, p.threshold);
      const bool from_first = dropped == nullptr && p.index == nullptr;
      if (nms_suppressed(p.boxes, from_first ? 0 : tested, progress.moved, p.count, query,
                         exceeds)) {
        continue;
      }
      if (dropped == nullptr && p.index != nullptr &&
          nms_suppressed_by_index(p, tested, i, query, exceeds)) {
        continue;
      }
      for (int a = 0; a < kNmsArrays; ++a) p.boxes[a][progress.moved] = p.boxes[a][i];
      if (p.index != nullptr) p.index->bucket_of[progress.moved] = p.index->bucket_of[i];
      ++progress.moved;
    }
    p.keep[i] = true;
    ++progress.kept;
  }
  progress.visited = end;
  if (p.index != nullptr) insert(*p.index, p.boxes, tested, progress.moved);
}

template <class T>
void find_buckets(const NmsCpuParams<T>& p, const NmsIndex<T>& index, const NmsProgress& progress,
                  int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (i >= progress.moved && i < progress.visited) continue;
    const bool meets_nothing = p.boxes[kNmsBound][i] == kInfinity<T>;
    index.bucket_of[i] =
        meets_nothing ? -1
                      : nms_index::bucket_of(index, p.boxes[kNmsX1][i], p.boxes[kNmsY1][i],
                                             p.boxes[kNmsX2][i], p.boxes[kNmsY2][i]);
  }
}

template <class T>
void build_index(const NmsCpuParams<T>& p, const NmsIndex<T>& index, const NmsProgress& progress) {
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
  insert(index, p.boxes, 0, progress.moved);
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

#define TILEWRIGHT_NMS_KERNELS(T)                                                                 \
  void TILEWRIGHT_ON_MACHINE(nms_load_##T)(const T* rows, const int64_t* order, double threshold, \
                                           int64_t begin, int64_t end, T* const* out) {           \
    load(rows, order, threshold, begin, end, out);                                                \
  }                                                                                               \
  NmsCpuKernels<T> TILEWRIGHT_ON_MACHINE(nms_kernels_##T)() {                                     \
    return {test<T>, settle<T>, find_buckets<T>, build_index<T>};                                 \
  }
TILEWRIGHT_NMS_KERNELS(float)
TILEWRIGHT_NMS_KERNELS(double)
#undef TILEWRIGHT_NMS_KERNELS

}  // namespace tilewright
