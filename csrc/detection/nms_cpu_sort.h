// The order in which NMS visits boxes on the CPU.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "tilewright/core/radix_sort.h"

namespace tilewright {

// Memory that is not initialised.
template <class T>
std::unique_ptr<T[]> uninitialized(int64_t count) {
  return std::unique_ptr<T[]>(new T[size_t(count)]);
}

// The usable boxes: by class, within a class by descending score, of equal scores by index.
struct NmsOrder {
  int64_t count = 0;
  std::unique_ptr<int64_t[]> box;     // (count,): which box of the input
  std::unique_ptr<int64_t[]> rank;    // (count,): place by score among all; null for one class
  std::vector<int64_t> group_begins;  // where each class begins, and count
};

namespace nms_sort_internal {

template <class Key, class Index>
struct Item {
  Key key;
  Index index;
};

template <class T>
bool all_finite(const T* row, int columns) {
  T sum = 0;
  for (int c = 0; c < columns; ++c) sum += row[c] - row[c];  // 0, or NaN
  return sum == 0;
}

template <class Key, class Index, class T, class S>
NmsOrder order(const T* boxes, int columns, const S* scores, const int64_t* classes,
               int64_t num_boxes) {
  using Item = Item<Key, Index>;
  const auto items = uninitialized<Item>(2 * num_boxes);
  Item* const scratch = items.get() + num_boxes;
  NmsOrder result;
  int64_t n = 0;
  for (int64_t i = 0; i < num_boxes; ++i) {
    if (std::isnan(scores[i]) || !all_finite(boxes + i * columns, columns)) continue;
    items[n++] = {Key(~Key(ascending_bits(scores[i]))), Index(i)};
  }
  radix_sort(items.get(), scratch, n);
  result.count = n;
  result.box = uninitialized<int64_t>(n);
  for (int64_t r = 0; r < n; ++r) result.box[r] = int64_t(items[r].index);
  result.group_begins = {0};
  if (classes != nullptr) {
    // Stable: descending scores stay so within a class.
    using ClassItem = nms_sort_internal::Item<uint64_t, Index>;
    const auto by_class = uninitialized<ClassItem>(2 * n);
    for (int64_t r = 0; r < n; ++r) {
      by_class[r] = {ascending_bits(classes[result.box[r]]), Index(r)};
    }
    radix_sort(by_class.get(), by_class.get() + n, n);
    result.rank = uninitialized<int64_t>(n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t rank = int64_t(by_class[i].index);
      result.rank[i] = rank;
      result.box[i] = int64_t(items[rank].index);
      if (i > 0 && by_class[i].key != by_class[i - 1].key) result.group_begins.push_back(i);
    }
  }
  if (n > 0) result.group_begins.push_back(n);
  return result;
}

}  // namespace nms_sort_internal

// boxes: (num_boxes, columns); those with a coordinate that is not finite, or a NaN score, are left
// out. classes: (num_boxes,), or null: one class.
template <class T, class S>
NmsOrder nms_order(const T* boxes, int columns, const S* scores, const int64_t* classes,
                   int64_t num_boxes) {
  if constexpr (std::is_same_v<S, float>) {
    if (num_boxes <= std::numeric_limits<uint32_t>::max()) {
      return nms_sort_internal::order<uint32_t, uint32_t>(boxes, columns, scores, classes,
                                                          num_boxes);
    }
  }
  return nms_sort_internal::order<uint64_t, uint64_t>(boxes, columns, scores, classes, num_boxes);
}

}  // namespace tilewright
