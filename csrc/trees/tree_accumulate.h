// Words of rows to the counters of their codes: the loop that growing a tree spends most of its
// time in. A processor stores once a cycle, and so often a counter can grow at best.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Features whose counters are kept in a first-level cache, at most: 32 KB of them.
constexpr int64_t kBlockFeatures = 16;
// Rows that all blocks go over before the next ones: their codes stay in a second-level cache.
constexpr int64_t kPassRows = 1024;
constexpr int64_t kByteCodes = 256;
// Codes of a row that one cache line holds. Longer rows are copied first, a block's codes side by
// side: lines of codes, of which a block needs a part each, would chase counters from the cache.
constexpr int64_t kLineCodes = 64;
// Blocks that are copied together.
constexpr int64_t kCopiedBlocks = 8;

// Of two rows at a time, so that additions to equal codes are apart. A number of features that is
// known when this is compiled leaves no loop over them.
template <class Code, class Row, class Count>
void add_block(Count features, const Code* table, int64_t stride, const int64_t* words, Row row_at,
               bool scattered, int64_t count, int64_t step, int64_t* packed) {
  int64_t i = 0;
  for (; i + 2 <= count; i += 2) {
    if (scattered) {
      __builtin_prefetch(table + row_at(i + kTreePrefetch) * stride);
      __builtin_prefetch(table + row_at(i + 1 + kTreePrefetch) * stride);
    }
    const Code *one = table + row_at(i) * stride, *two = table + row_at(i + 1) * stride;
    const int64_t word_one = words[i], word_two = words[i + 1];
    int64_t* bins = packed;
    int64_t f = 0;
#pragma GCC unroll 8
    for (; f + 2 <= features; f += 2, bins += 2 * step) {
      bins[one[f]] += word_one;
      bins[step + one[f + 1]] += word_one;
      bins[two[f]] += word_two;
      bins[step + two[f + 1]] += word_two;
    }
    if (f < features) {
      bins[one[f]] += word_one;
      bins[two[f]] += word_two;
    }
  }
  if (i < count) {
    const Code* row = table + row_at(i) * stride;
    for (int64_t f = 0; f < features; ++f) packed[f * step + row[f]] += words[i];
  }
}

// Calls body with a number of features, 1 to 16, as a type.
template <class Body>
void with_width(int64_t features, Body body) {
  switch (features) {
#define TILEWRIGHT_WIDTH(n) \
  case n: return body(std::integral_constant<int64_t, n>());
    TILEWRIGHT_WIDTH(1)
    TILEWRIGHT_WIDTH(2)
    TILEWRIGHT_WIDTH(3)
    TILEWRIGHT_WIDTH(4)
    TILEWRIGHT_WIDTH(5)
    TILEWRIGHT_WIDTH(6)
    TILEWRIGHT_WIDTH(7)
    TILEWRIGHT_WIDTH(8)
    TILEWRIGHT_WIDTH(9)
    TILEWRIGHT_WIDTH(10)
    TILEWRIGHT_WIDTH(11)
    TILEWRIGHT_WIDTH(12)
    TILEWRIGHT_WIDTH(13)
    TILEWRIGHT_WIDTH(14)
    TILEWRIGHT_WIDTH(15)
    TILEWRIGHT_WIDTH(16)
#undef TILEWRIGHT_WIDTH
  }
}

// Calls body(first, count) for features [first, last) in blocks of about equal widths.
template <class Body>
void over_blocks(int64_t first, int64_t last, Body body) {
  for (int64_t blocks = ceil_div(last - first, kBlockFeatures); blocks > 0; --blocks) {
    const int64_t width = ceil_div(last - first, blocks);
    body(first, width);
    first += width;
  }
}

// One block after the other over the same rows, whose codes lie `stride` apart.
template <class Row>
void add_blocks(const TreeCodes& codes, const int64_t* words, Row row_at, bool scattered,
                int64_t count, int64_t* packed) {
  over_blocks(0, codes.features, [&](int64_t first, int64_t width) {
    with_width(width, [&](auto features) {
      add_block(features, static_cast<const uint8_t*>(codes.rows) + first, codes.row_stride, words,
                row_at, scattered, count, kByteCodes, packed + first * kByteCodes);
    });
  });
}

// The same by way of copies: of some blocks the codes of all rows.
template <class Row>
void copy_and_add_blocks(const TreeCodes& codes, const int64_t* words, Row row_at, bool scattered,
                         int64_t count, int64_t* packed) {
  struct Block {
    int64_t first, width;
  };
  alignas(64) uint8_t copies[kCopiedBlocks][kPassRows][kBlockFeatures];
  const auto* table = static_cast<const uint8_t*>(codes.rows);
  for (int64_t group = 0; group < codes.features; group += kCopiedBlocks * kBlockFeatures) {
    Block blocks[kCopiedBlocks];
    int64_t known = 0;
    over_blocks(group, std::min(group + kCopiedBlocks * kBlockFeatures, codes.features),
                [&](int64_t first, int64_t width) {
                  blocks[known++] = {first, width};
                });
    for (int64_t i = 0; i < count; ++i) {
      if (scattered) {
        const auto* ahead = table + row_at(i + kTreePrefetch) * codes.row_stride;
        for (int64_t b = 0; b < known; b += 4) __builtin_prefetch(ahead + blocks[b].first);
      }
      const auto* row = table + row_at(i) * codes.row_stride;
      for (int64_t b = 0; b < known; ++b) {
        std::memcpy(copies[b][i], row + blocks[b].first, kBlockFeatures);
      }
    }
    for (int64_t b = 0; b < known; ++b) {
      with_width(blocks[b].width, [&](auto features) {
        add_block(
            features, copies[b][0], kBlockFeatures, words, [](int64_t i) { return i; }, false,
            count, kByteCodes, packed + blocks[b].first * kByteCodes);
      });
    }
  }
}

// Codes beyond bytes have more counters than a first-level cache has room for.
template <class Row>
void add_wide(const TreeCodes& codes, const int64_t* words, Row row_at, bool scattered,
              int64_t count, int64_t* packed) {
  add_block(codes.features, static_cast<const uint16_t*>(codes.rows), codes.row_stride, words,
            row_at, scattered, count, codes.codes, packed);
}

template <class Row>
void accumulate(const TreeCodes& codes, const int64_t* words, Row row_at, bool scattered,
                int64_t count, int64_t* packed) {
  for (int64_t from = 0; from < count; from += kPassRows) {
    const auto row = [=](int64_t i) { return row_at(from + i); };
    const int64_t rows = std::min(kPassRows, count - from);
    if (codes.wide) {
      add_wide(codes, words + from, row, scattered, rows, packed);
    } else if (codes.row_stride <= kLineCodes) {
      add_blocks(codes, words + from, row, scattered, rows, packed);
    } else {
      copy_and_add_blocks(codes, words + from, row, scattered, rows, packed);
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
