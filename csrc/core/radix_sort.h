// A sort of numbers by their bits, for orders that a kernel needs at once: ATen's costs more than
// the rest of NMS for ten boxes (its operators' overhead) and for 100 thousand (8 ms, against 1 ms
// here).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

namespace tilewright {

// Unsigned integers that ascend as the values do; the two zeros are one.
inline uint32_t ascending_bits(float value) {
  value += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 31 ? ~uint32_t(0) : uint32_t(1) << 31);
}
inline uint64_t ascending_bits(double value) {
  value += 0.0;
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}
inline uint64_t ascending_bits(int64_t value) { return uint64_t(value) ^ uint64_t(1) << 63; }

// The value of ascending_bits(float).
inline float from_ascending_bits(uint32_t bits) {
  bits ^= bits >> 31 ? uint32_t(1) << 31 : ~uint32_t(0);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Items {key, index} by key, of equal keys by index; they come by ascending index. A radix sort
// that leaves out the digits that all keys share.
template <class Item>
void radix_sort(Item* items, Item* scratch, int64_t count) {
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

// Keys alone, ascending: three digits of 11 bits.
inline void radix_sort_keys(uint32_t* keys, uint32_t* scratch, int64_t count) {
  constexpr int64_t kFewKeys = 2000;
  if (count < kFewKeys) return std::sort(keys, keys + count);
  constexpr int kDigits = 3, kBits = 11;
  constexpr uint32_t kMask = (1u << kBits) - 1;
  const auto places = std::make_unique<int64_t[][kMask + 1]>(kDigits);  // zeros
  for (int64_t i = 0; i < count; ++i) {
    for (int d = 0; d < kDigits; ++d) ++places[d][keys[i] >> (kBits * d) & kMask];
  }
  uint32_t *from = keys, *to = scratch;
  for (int d = 0; d < kDigits; ++d) {
    int64_t* const place = places[d];
    if (place[from[0] >> (kBits * d) & kMask] == count) continue;
    int64_t sum = 0;
    for (uint32_t v = 0; v <= kMask; ++v) sum += std::exchange(place[v], sum);
    for (int64_t i = 0; i < count; ++i) to[place[from[i] >> (kBits * d) & kMask]++] = from[i];
    std::swap(from, to);
  }
  if (from != keys) std::copy(from, from + count, keys);
}

}  // namespace tilewright
