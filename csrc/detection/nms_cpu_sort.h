// The order in which NMS visits boxes on the CPU. A sort of its own: ATen's costs more than the
// rest of NMS for ten boxes (its operators' overhead) and for 100 thousand (8 ms, against 1 ms
// here).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

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

// Unsigned integers that ascend as the values do; the two zeros are one.
inline uint32_t ascending(float value) {
  value += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 31 ? ~uint32_t(0) : uint32_t(1) << 31);
}
inline uint64_t ascending(double value) {
  value += 0.0;
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}
inline uint64_t ascending(int64_t value) { return uint64_t(value) ^ uint64_t(1) << 63; }

// By key, of equal keys by index; the items come by ascending index. A radix sort that leaves out
// the digits that all keys share.
template <class Item>
void sort_items(Item* items, Item* scratch, int64_t count) {
  using Key = decltype(Item::key);
  constexpr int64_t kFewItems = 300;  // below, measured, comparing is faster
  if (count < kFewItems) {
    std::sort(items, items + count, [](const Item& a, const Item& b) {
      return a.key < b.key || (a.key == b.key && a.index < b.index);
    });
    return;
  }
  constexpr int kDigits = sizeof(Key);
  const auto places = std::make_unique<int64_t[][256]>(kDigits);  // zeros
  for (int64_t i = 0; i < count; ++i) {
    for (int d = 0; d < kDigits; ++d) ++places[d][items[i].key >> (8 * d) & 255];
  }
  Item *from = items, *to = scratch;
  for (int d = 0; d < kDigits; ++d) {
    int64_t* const place = places[d];
    if (place[from[0].key >> (8 * d) & 255] == count) continue;
    int64_t sum = 0;
    for (int v = 0; v < 256; ++v) sum += std::exchange(place[v], sum);
    for (int64_t i = 0; i < count; ++i) to[place[from[i].key >> (8 * d) & 255]++] = from[i];
    std::swap(from, to);
  }
  if (from != items) std::copy(from, from + count, items);
}

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
    items[n++] = {Key(~Key(ascending(scores[i]))), Index(i)};
  }
  sort_items(items.get(), scratch, n);
  result.count = n;
  result.box = uninitialized<int64_t>(n);
  for (int64_t r = 0; r < n; ++r) result.box[r] = int64_t(items[r].index);
  result.group_begins = {0};
  if (classes != nullptr) {
    // Stable: descending scores stay so within a class.
    using ClassItem = nms_sort_internal::Item<uint64_t, Index>;
    const auto by_class = uninitialized<ClassItem>(2 * n);
    for (int64_t r = 0; r < n; ++r) {
      by_class[r] = {ascending(classes[result.box[r]]), Index(r)};
    }
    sort_items(by_class.get(), by_class.get() + n, n);
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
