// The forward pass of contrastive_lse: tiles of scores are raised and added up, by rows and where
// they are asked for by columns, and never stored. Partial sums of blocks are merged at the end.
#include "tilewright/contrastive/contrastive_cpu_tiles.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// A run of log-sum-exps on the way: the largest score, and sums of 2^(score - largest).
template <class A>
struct PartialSums {
  A *most, *sums;
};

template <class T, class G>
class ContrastiveForward {
  using A = Accumulate<T>;
  using V = Vec<T>;
  static constexpr int64_t kRows = kContrastiveRows;
  static constexpr int64_t kChunk = 16 * kRows;  // queries for which keys are packed once

 public:
  explicit ContrastiveForward(const ContrastiveCpuParams& params)
      : p_(params), tiles_(params), shared_(std::isfinite(params.shift)), shift_(A(params.shift)) {
    take();
    scratch_.allocate();
    take();
  }

  void run(const ContrastivePair& pair) {
    const bool columns = p_.columns || (p_.self && pair.queries != pair.keys);
    const int64_t row_end = block_end(pair.queries, p_.blocks.queries, p_.queries);
    const int64_t key_first = pair.keys * p_.blocks.keys;
    const int64_t key_end = block_end(pair.keys, p_.blocks.keys, p_.keys);
    const A nothing = shared_ ? shift_ : kNoScore<A>;
    if (columns) {
      for (int64_t i = 0; i < ScoreTiles<T, G>::whole(key_end - key_first); ++i) {
        columns_.most[i] = nothing;
        columns_.sums[i] = A(0);
      }
    }
    auto* most = static_cast<A*>(p_.row_most) + pair.keys * p_.queries;
    auto* sums = static_cast<A*>(p_.row_sums) + pair.keys * p_.queries;
    for (int64_t chunk = pair.queries * p_.blocks.queries; chunk < row_end; chunk += kChunk) {
      const int64_t rows = min_of(kChunk, row_end - chunk);
      for (int64_t r = 0; r < rows; ++r) {
        rows_.most[r] = nothing;
        V(A(0)).store(rows_.sums + r * V::size());
      }
      for (int64_t key = key_first; key < key_end; key += tiles_.width()) {
        const int64_t keys = min_of(tiles_.width(), key_end - key);
        tiles_.load_keys(key, keys);
        for (int64_t r = 0; r < rows; r += kRows) {
          const int64_t count = min_of(kRows, rows - r);
          tiles_.multiply(chunk + r, count);
          add_rows(r, count, keys, columns && shared_ ? key - key_first : -1);
          if (columns && !shared_) add_columns(count, keys, key - key_first);
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        most[chunk + r] = rows_.most[r];
        A sum = 0;
        for (int64_t i = 0; i < V::size(); ++i) sum += rows_.sums[r * V::size() + i];
        sums[chunk + r] = shared_ ? sum : sum_below_maximum(rows_.most[r], sum);
      }
    }
    if (!columns) return;
    // Where self the keys are queries too, and the queries' block is their part.
    auto* to_most = static_cast<A*>(p_.self ? p_.row_most : p_.column_most);
    auto* to_sums = static_cast<A*>(p_.self ? p_.row_sums : p_.column_sums);
    for (int64_t i = 0; i < key_end - key_first; ++i) {
      to_most[pair.queries * p_.keys + key_first + i] = columns_.most[i];
      to_sums[pair.queries * p_.keys + key_first + i] =
          shared_ ? columns_.sums[i] : sum_below_maximum(columns_.most[i], columns_.sums[i]);
    }
  }

 private:
  void take() {
    tiles_.take(scratch_);
    rows_ = {scratch_.take<A>(kChunk), scratch_.take<A>(kChunk * V::size())};
    const int64_t keys = ScoreTiles<T, G>::whole(p_.blocks.keys) + tiles_.width();
    columns_ = {scratch_.take<A>(keys), scratch_.take<A>(keys)};
  }

  // Adds a tile to its rows; of scores with a shared shift to the columns from `column` on too.
  void add_rows(int64_t first, int64_t count, int64_t keys, int64_t column) {
    const V factor(tiles_.factor());
    for (int64_t r = 0; r < count; ++r) {
      const A* row = tiles_.row(r);
      A& most = rows_.most[first + r];
      A* sums = rows_.sums + (first + r) * V::size();
      V sum = V::loadu(sums);
      A shift = shift_;
      if (!shared_) {
        const A before = most;
        V now(kNoScore<A>);
        for (int64_t i = 0; i < keys; i += V::size()) now = max_of(now, V::loadu(row + i));
        const A here =
            at::vec::vec_reduce_all<A>([](auto& a, auto& b) { return max_of(a, b); }, now);
        most = max_of(before, here * tiles_.factor());
        // Where nothing is seen yet, all is 2^-inf.
        shift = most == kNoScore<A> ? A(0) : most;
        sum = sum * V(exp2_of(before - shift));
      }
      const V offset(-shift);
      if (column >= 0) {
        A* to = columns_.sums + column;
        for (int64_t i = 0; i < keys; i += V::size()) {
          const V e = exp2_lanes<5>(at::vec::fmadd(V::loadu(row + i), factor, offset));
          sum = sum + e;
          (V::loadu(to + i) + e).store(to + i);
        }
      } else {
        for (int64_t i = 0; i < keys; i += V::size()) {
          sum = sum + exp2_lanes<5>(at::vec::fmadd(V::loadu(row + i), factor, offset));
        }
      }
      min_of(sum, V(kMostSum<A>)).store(sums);
    }
  }

  // The same tile by columns, with maxima of their own.
  void add_columns(int64_t count, int64_t keys, int64_t column) {
    const V factor(tiles_.factor());
    for (int64_t i = 0; i < keys; i += V::size()) {
      const V before = V::loadu(columns_.most + column + i), none(kNoScore<A>);
      V here = none;
      for (int64_t r = 0; r < count; ++r) here = max_of(here, V::loadu(tiles_.row(r) + i));
      const V most = max_of(before, here * factor);
      const V shift = V::blendv(most, V(A(0)), most == none);
      V sum = V::loadu(columns_.sums + column + i) * exp2_lanes<5>(before - shift);
      for (int64_t r = 0; r < count; ++r) {
        sum = sum + exp2_lanes<5>(at::vec::fmsub(V::loadu(tiles_.row(r) + i), factor, shift));
      }
      most.store(columns_.most + column + i);
      min_of(sum, V(kMostSum<A>)).store(columns_.sums + column + i);
    }
  }

  const ContrastiveCpuParams& p_;
  ScoreTiles<T, G> tiles_;
  const bool shared_;
  const A shift_;
  TileScratch scratch_;
  PartialSums<A> rows_;     // most (chunk,), sums of lanes (chunk, V::size())
  PartialSums<A> columns_;  // (keys of a block,)
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(contrastive_forward)(const ContrastiveCpuParams& params,
                                                const ContrastivePair* pairs, int64_t begin,
                                                int64_t end) {
  dispatch_floating("contrastive_lse", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto run = [&](auto worker_of) {
      typename decltype(worker_of)::type worker(params);
      for (int64_t i = begin; i < end; ++i) worker.run(pairs[i]);
    };
    if constexpr (kPaired<T> && kHasPairs) {
      if (takes_bfloat16<T>(params)) return run(TypeTag<ContrastiveForward<T, T>>());
    }
    run(TypeTag<ContrastiveForward<T, Accumulate<T>>>());
  });
}

void TILEWRIGHT_ON_MACHINE(contrastive_merge)(c10::ScalarType dtype, const void* most_of_parts,
                                              const void* sums_of_parts, int64_t parts,
                                              int64_t count, void* lse, int64_t begin,
                                              int64_t end) {
  const auto merge = [&](auto zero) {
    using A = decltype(zero);
    const auto* most = static_cast<const A*>(most_of_parts);
    const auto* sums = static_cast<const A*>(sums_of_parts);
    for (int64_t i = begin; i < end; ++i) {
      A largest = kNoScore<A>;
      for (int64_t part = 0; part < parts; ++part) {
        const A one = most[part * count + i];
        largest = one > largest || one != one ? one : largest;
      }
      const A shift = largest == kNoScore<A> ? A(0) : largest;
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) {
        const A below = most[part * count + i] - shift;
        sum += double(sums[part * count + i]) * (below == A(0) ? 1.0 : exp2_of(double(below)));
      }
      static_cast<A*>(lse)[i] = A((double(shift) + std::log2(sum)) * kLn2);
    }
  };
  dtype == c10::ScalarType::Double ? merge(0.0) : merge(0.f);
}

}  // namespace tilewright
