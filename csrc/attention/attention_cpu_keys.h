// A block of keys and values as the products of the tiles read them.
#pragma once
#include "tilewright/attention/attention_cpu_rows.h"
#include "tilewright/core/cpu/gemm.h"
#include "tilewright/core/cpu/tile_pack.h"
#include "tilewright/core/cpu/tile_scratch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Rows of keys and values of one head, in a tensor or in pages.
template <class T>
class KeyRows {
 public:
  KeyRows(const AttentionCpuParams& p, const AttentionCpuSequence& s, int64_t kv_head)
      : p_(p),
        pages_(s.pages),
        key_(static_cast<const T*>(s.key) + kv_head * p.key.head),
        value_(static_cast<const T*>(s.value) + kv_head * p.value.head) {}

  const T* key(int64_t row) const { return key_ + at(row, p_.key_page, p_.key.row); }
  const T* value(int64_t row) const { return value_ + at(row, p_.value_page, p_.value.row); }

 private:
  int64_t at(int64_t row, int64_t page, int64_t stride) const {
    if (pages_ == nullptr) return row * stride;
    return pages_[row / p_.page_size] * page + row % p_.page_size * stride;
  }
  const AttentionCpuParams& p_;
  const int32_t* pages_;
  const T *key_, *value_;
};

// Whether one of the queries [begin, end) of a head sees a key.
template <class T>
inline bool sees_key(const AttentionCpuParams& params, const AttentionCpuSequence& sequence,
                     int64_t head, int64_t begin, int64_t end, int64_t key) {
  const ScoreRules<T, Accumulate<T>> rules(params, sequence, head);
  for (int64_t q = begin; q < end; ++q) {
    const KeyRange keys = rules.keys(q);
    if (key >= keys.begin && key < keys.end && rules.bias_keeps(q, key)) return true;
  }
  return false;
}

template <class G>
struct Rows {
  const G* data;
  int64_t stride;
};

// The rows [first, first + count) of keys (or values), with zeros for those outside `seen`: where
// they lie if they can be used so, or in `tile`, with an even stride for bfloat16. A weight of 0
// does not hide a NaN, so with a bias rows that are not finite become zeros too where sees(row) is
// false: no query of the task sees them.
template <class T, class G, class RowOf, class Sees>
inline Rows<G> key_rows(const AttentionCpuParams& params, const int32_t* pages, RowOf row_of,
                        int64_t row_stride, int64_t first, int64_t count, KeyRange seen,
                        int64_t size, G* tile, Sees sees) {
  if constexpr (std::is_same_v<T, G>) {
    const bool even = !kPaired<G> || (size % 2 == 0 && row_stride % 2 == 0);
    const bool near = row_stride > 0 && row_stride <= kMostLeadingDimension;
    if (pages == nullptr && params.bias_kind == BiasKind::kNone && even && near &&
        first >= seen.begin && first + count <= seen.end) {
      return {row_of(first), row_stride};
    }
  }
  const int64_t stride = padded_depth<G>(size);
  pack_rows<T>(
      [&](int64_t r) {
        return first + r >= seen.begin && first + r < seen.end ? row_of(first + r) : nullptr;
      },
      count, size, tile, stride);
  if (params.bias_kind != BiasKind::kNone) {
    for (int64_t r = 0; r < count; ++r) {
      G* row = tile + r * stride;
      if (has_non_finite(row, size) && !sees(first + r)) {
        std::memset(static_cast<void*>(row), 0, size_t(size) * sizeof(G));
      }
    }
  }
  return {tile, stride};
}

// The second operand of a product with `rows`, whose K is their number: the rows themselves, or
// pairs of them in `packed`.
template <class G>
inline Rows<G> operand_of(const Rows<G>& rows, int64_t count, int64_t size, G* packed) {
  if constexpr (kPaired<G>) {
    for (int64_t r = 0; r < count; r += 2) {
      const G* row = rows.data + r * rows.stride;
      pair_rows(row, row + rows.stride, size, packed + r * size);
    }
    return {packed, size};
  } else {
    return rows;
  }
}

// How many of the keys from `first` on a block holds, in whole groups; half a group where that is
// enough for short sequences.
inline int64_t keys_in_block(int64_t first, KeyRange seen) {
  const int64_t keys = seen.end - first;
  if (keys <= kKeyGroup / 2) return kKeyGroup / 2;
  return min_of(kAttentionKeyBlock, ceil_div(keys, kKeyGroup) * kKeyGroup);
}

// The rows of a product that has `rows` of queries: few different numbers, since each has its
// machine code, and even ones for pairs.
inline int64_t rows_in_product(int64_t rows) {
  if (rows > 8) return ceil_div(rows, int64_t(16)) * 16;
  return rows > 4 ? 8 : rows > 2 ? 4 : 2;
}

// The groups of keys in a block of `count` from `first` on that queries with the range `seen` need.
inline KeyRange groups_seen(KeyRange seen, int64_t first, int64_t count) {
  return {max_of(seen.begin - first, int64_t(0)) / kKeyGroup * kKeyGroup,
          min_of(ceil_div(seen.end - first, kKeyGroup) * kKeyGroup, count)};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
