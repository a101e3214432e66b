// Tiles of scores, as both passes make them: products of a few queries and a run of keys, of which
// some are no pairs.
#pragma once
#include <limits>

#include "tilewright/contrastive/contrastive_cpu.h"
#include "tilewright/core/cpu/exp2.h"
#include "tilewright/core/cpu/gemm_loops.h"
#include "tilewright/core/cpu/tile_pack.h"
#include "tilewright/core/cpu/tile_scratch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class A>
inline constexpr A kNoScore = -std::numeric_limits<A>::infinity();

// Scores beyond the digits of A leave a rounding of whole powers of 2 between a maximum and its own
// score. So sums of powers below a maximum are kept finite, and end at 1 at least, which the
// maximum itself adds. NaN stays what it is.
template <class A>
inline constexpr A kMostSum = A(int64_t(1) << 62);
template <class A>
inline A sum_below_maximum(A most, A sum) {
  return most != kNoScore<A> && sum < A(1) ? A(1) : sum;
}

// Rows [first, first + count) of a tensor (rows, depth) as products take them: where they lie, or
// widened in `copy`.
template <class T, class G>
inline const G* rows_of_products(const void* tensor, int64_t depth, int64_t first, int64_t count,
                                 G* copy) {
  const T* from = static_cast<const T*>(tensor) + first * depth;
  if constexpr (std::is_same_v<T, G>) {
    return from;
  } else {
    for (int64_t r = 0; r < count; ++r) convert_row(from + r * depth, copy + r * depth, depth);
    return copy;
  }
}

// Whether products take bfloat16 as it is. Rows of an odd depth would be cut within pairs.
template <class T>
inline bool takes_bfloat16(const ContrastiveCpuParams& params) {
  return params.depth % 2 == 0 && brgemm_serves_bfloat16() && params.depth <= kMostLeadingDimension;
}

// G: the type of products, T where takes_bfloat16() and else that of sums.
template <class T, class G>
class ScoreTiles {
 public:
  using A = Accumulate<T>;
  using V = Vec<T>;

  explicit ScoreTiles(const ContrastiveCpuParams& params)
      : p_(params),
        width_(contrastive_width(params.depth)),
        scale_(A(params.scale * kLog2E)),
        use_brgemm_(brgemm_serves_float() && params.depth <= kMostLeadingDimension) {}
  ~ScoreTiles() { brgemm_done(); }

  int64_t width() const { return width_; }
  // What scores are multiplied by on the way to powers of 2; positive: it keeps their order.
  A factor() const { return scale_ > A(0) ? scale_ : A(1); }
  bool use_brgemm() const { return use_brgemm_; }

  void take(TileScratch& scratch) {
    constexpr int64_t kCopied = std::is_same_v<T, G> ? 0 : 1;  // rows that are widened
    query_copy_ = scratch.take<G>(kCopied * kContrastiveRows * p_.depth);
    key_copy_ = scratch.take<G>(kCopied * width_ * p_.depth);
    keys_transposed_ = scratch.take<G>(width_ * p_.depth);
    scores_ = scratch.take<A>(kContrastiveRows * width_);
  }

  // Keys [first, first + count), count <= width(); their rows.
  const G* load_keys(int64_t first, int64_t count) {
    first_key_ = first;
    keys_ = count;
    const G* rows = rows_of_products<T>(p_.key, p_.depth, first, count, key_copy_);
    pack_transposed_operand(rows, p_.depth, count, p_.depth, keys_transposed_, width_);
    return rows;
  }

  // Scores of the queries [first, first + rows), rows <= kContrastiveRows, and the keys, but for
  // factor(): (rows, width()). -inf where the two are no pair. Returns the queries' rows.
  const G* multiply(int64_t first, int64_t rows) {
    const G* queries = rows_of_products<T>(p_.query, p_.depth, first, rows, query_copy_);
    gemm(use_brgemm_, {rows, keys_, p_.depth, p_.depth, width_, width_, false}, queries,
         keys_transposed_, scores_);
    for (int64_t r = 0; r < rows; ++r) {
      A* row = scores_ + r * width_;
      if (!(scale_ > A(0))) {
        for (int64_t i = 0; i < keys_; i += V::size()) {
          (V::loadu(row + i) * V(scale_)).store(row + i);
        }
      }
      // Registers are filled: what lies behind the keys counts as no pair.
      for (int64_t i = keys_; i < whole(keys_); ++i) row[i] = kNoScore<A>;
      leave_out(first + r, row);
    }
    return queries;
  }
  A* row(int64_t r) { return scores_ + r * width_; }

  static int64_t whole(int64_t count) { return ceil_div(count, V::size()) * V::size(); }

 private:
  void leave_out(int64_t query, A* row) const {
    if (!p_.diagonal && (p_.exclude == nullptr || p_.exclude[query] < 0)) return;
    const int64_t count = p_.exclude_count;
    const int64_t from = p_.diagonal ? query / count * count : p_.exclude[query];
    const int64_t begin = max_of(from - first_key_, int64_t(0));
    const int64_t end = min_of(from + count - first_key_, keys_);
    for (int64_t i = begin; i < end; ++i) row[i] = kNoScore<A>;
  }

  const ContrastiveCpuParams& p_;
  int64_t width_, first_key_ = 0, keys_ = 0;
  A scale_;
  bool use_brgemm_;
  G *query_copy_, *key_copy_;  // (rows, depth), (width, depth)
  G* keys_transposed_;         // (depth, width), of bfloat16 in pairs along the depth
  A* scores_;                  // (rows, width)
};

// The rows of a block, and its end.
inline int64_t block_end(int64_t block, int64_t size, int64_t count) {
  return min_of((block + 1) * size, count);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
