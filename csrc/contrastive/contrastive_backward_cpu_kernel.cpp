// The backward pass of contrastive_lse: a tile of scores is made again and becomes weights, the
// gradients of its products, which are multiplied with the keys and with the queries.
#include <algorithm>

#include "tilewright/contrastive/contrastive_cpu_tiles.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// G: the type of products (ScoreTiles).
template <class T, class G>
class ContrastiveBackward {
  using A = Accumulate<T>;
  using V = Vec<T>;
  static constexpr int64_t kRows = kContrastiveRows;

 public:
  explicit ContrastiveBackward(const ContrastiveCpuParams& params)
      : p_(params), tiles_(params), shared_(std::isfinite(params.shift)), shift_(A(params.shift)) {
    take();
    scratch_.allocate();
    take();
  }

  void run(const ContrastivePair& pair) {
    const int64_t row_first = pair.queries * p_.blocks.queries;
    const int64_t row_end = block_end(pair.queries, p_.blocks.queries, p_.queries);
    const int64_t key_end = block_end(pair.keys, p_.blocks.keys, p_.keys);
    // A block of queries beside itself holds each pair both ways round.
    columns_ = p_.columns || (p_.self && pair.queries != pair.keys);
    A* to_queries = copy_of(p_.grad_query, pair.keys % p_.query_copies, p_.queries);
    A* to_keys = copy_of(p_.grad_key, pair.queries % p_.key_copies, p_.keys);
    for (int64_t key = pair.keys * p_.blocks.keys; key < key_end; key += tiles_.width()) {
      const int64_t keys = min_of(tiles_.width(), key_end - key);
      const G* key_rows = load_keys(key, keys);
      load_side(p_.self ? p_.row_lse : p_.column_lse, p_.self ? p_.row_grad : p_.column_grad, key,
                keys, columns_, key_lse_, key_grad_);
      for (int64_t row = row_first; row < row_end; row += kRows) {
        const int64_t rows = min_of(kRows, row_end - row);
        const G* query_rows = tiles_.multiply(row, rows);
        load_side(p_.row_lse, p_.row_grad, row, rows, true, query_lse_, query_grad_);
        for (int64_t r = 0; r < rows; ++r)
          weigh(tiles_.row(r), query_lse_[r], query_grad_[r], keys);
        const Weights weights = weights_of(rows, keys);
        if (to_queries != nullptr) {
          gemm(tiles_.use_brgemm(),
               {rows, p_.depth, in_pairs(keys), tiles_.width(), p_.depth, p_.depth, true},
               weights.rows, key_rows, to_queries + row * p_.depth);
        }
        if (to_keys != nullptr) {
          transpose_tile(query_rows, p_.depth, rows, p_.depth, queries_transposed_, kRows);
          if (in_pairs(rows) > rows) {
            for (int64_t d = 0; d < p_.depth; ++d) queries_transposed_[d * kRows + rows] = G(0);
          }
          gemm(tiles_.use_brgemm(),
               {p_.depth, keys, in_pairs(rows), kRows, tiles_.width(), tiles_.width(),
                row > row_first},
               queries_transposed_, weights.operand, grad_keys_);
        }
      }
      if (to_keys != nullptr) add_key_gradients(to_keys + key * p_.depth, keys);
    }
  }

 private:
  void take() {
    tiles_.take(scratch_);
    queries_transposed_ = scratch_.take<G>(kRows * p_.depth);
    const int64_t width = kPaired<G> ? tiles_.width() : 0;
    paired_keys_ = scratch_.take<G>(width * p_.depth);
    plain_weights_ = scratch_.take<G>(width * kRows);
    paired_weights_ = scratch_.take<G>(width * kRows);
    grad_keys_ = scratch_.take<A>(tiles_.width() * p_.depth);
    grad_rows_ = scratch_.take<A>(tiles_.width() * p_.depth);
    query_lse_ = scratch_.take<A>(kRows);
    query_grad_ = scratch_.take<A>(kRows);
    key_lse_ = scratch_.take<A>(tiles_.width() + V::size());
    key_grad_ = scratch_.take<A>(tiles_.width() + V::size());
  }

  // The rows of a tile as the second operand of weights times keys: of bfloat16 in pairs of rows.
  const G* load_keys(int64_t first, int64_t count) {
    const G* rows = tiles_.load_keys(first, count);
    if constexpr (kPaired<G>) {
      const int64_t depth = p_.depth;
      for (int64_t r = 0; r < count; r += 2) {
        G* pairs = paired_keys_ + r * depth;
        if (r + 1 < count) {
          pair_rows(rows + r * depth, rows + (r + 1) * depth, depth, pairs);
        } else {
          for (int64_t d = 0; d < depth; ++d) {
            pairs[2 * d] = rows[r * depth + d];
            pairs[2 * d + 1] = G(0);
          }
        }
      }
      return paired_keys_;
    } else {
      return rows;
    }
  }

  // Products of bfloat16 add up pairs; what fills the last one is zero.
  static int64_t in_pairs(int64_t count) { return padded_depth<G>(count); }

  // The weights of a tile, (rows, width()), and as a second operand.
  struct Weights {
    const G *rows, *operand;
  };
  Weights weights_of(int64_t rows, int64_t keys) {
    if constexpr (kPaired<G>) {
      const int64_t width = tiles_.width();
      const V zero(A(0));
      for (int64_t r = 0; r < rows; r += 2) {
        const A *even = tiles_.row(r), *odd = tiles_.row(r + 1);
        const bool both = r + 1 < rows;
        for (int64_t i = 0; i < keys; i += 2 * V::size()) {
          const bool whole = i + V::size() < keys;
          const V a = V::loadu(even + i), a_next = whole ? V::loadu(even + i + V::size()) : zero;
          const V b = both ? V::loadu(odd + i) : zero;
          const V b_next = both && whole ? V::loadu(odd + i + V::size()) : zero;
          store_bfloat16(a, a_next, plain_weights_ + r * width + i);
          store_bfloat16(b, b_next, plain_weights_ + (r + 1) * width + i);
          store_pairs(a, b, paired_weights_ + r * width + 2 * i);
          store_pairs(a_next, b_next, paired_weights_ + r * width + 2 * (i + V::size()));
        }
      }
      return {plain_weights_, paired_weights_};
    } else {
      return {tiles_.row(0), tiles_.row(0)};
    }
  }

  A* copy_of(void* grads, int64_t copy, int64_t count) const {
    return grads == nullptr ? nullptr : static_cast<A*>(grads) + copy * count * p_.depth;
  }

  // Log-sum-exps, +inf where nothing is seen, and gradients of the scores' products. With a shared
  // shift the gradients hold 2^(shift - lse) already. Sums may be of more keys than are here, and
  // of far smaller ones where all that are here are left out: then what it is does not matter.
  void load_side(const void* lse, const void* grad, int64_t first, int64_t count, bool counts,
                 A* to_lse, A* to_grad) const {
    for (int64_t i = 0; i < ScoreTiles<T, G>::whole(count); ++i) {
      to_lse[i] = std::numeric_limits<A>::infinity();
      to_grad[i] = A(0);
      if (!counts || i >= count) continue;
      const A sum = static_cast<const A*>(lse)[first + i];
      if (sum == kNoScore<A>) continue;
      to_lse[i] = sum;
      to_grad[i] = static_cast<const A*>(grad)[first + i] * A(p_.scale);
      if (shared_) to_grad[i] *= exp2_of(std::min(shift_ - sum, A(2 * kMostSharedShift + 1)));
    }
  }

  // 2^(score - lse), at most 1: there are scores beyond the digits of A.
  static V share_of(const V& score, const V& factor, const V& lse) {
    return exp2_lanes<5>(min_of(at::vec::fmsub(score, factor, lse), V(A(0))));
  }

  // Scores become weights.
  void weigh(A* row, A lse, A grad, int64_t keys) const {
    const V row_lse(lse), row_grad(grad), shift(shift_), factor(tiles_.factor());
    for (int64_t i = 0; i < keys; i += V::size()) {
      const V score = V::loadu(row + i);
      V weight;
      if (shared_) {
        weight = exp2_lanes<5>(at::vec::fmsub(score, factor, shift)) *
                 (row_grad + V::loadu(key_grad_ + i));
      } else {
        weight = share_of(score, factor, row_lse) * row_grad;
        if (columns_) {
          const V share = share_of(score, factor, V::loadu(key_lse_ + i));
          weight = at::vec::fmadd(share, V::loadu(key_grad_ + i), weight);
        }
      }
      weight.store(row + i);
    }
  }

  // From (depth, width) to rows.
  void add_key_gradients(A* to, int64_t keys) {
    transpose_tile(grad_keys_, tiles_.width(), p_.depth, keys, grad_rows_, p_.depth);
    const int64_t count = keys * p_.depth;
    for (int64_t i = 0; i < count; ++i) to[i] += grad_rows_[i];
  }

  const ContrastiveCpuParams& p_;
  ScoreTiles<T, G> tiles_;
  const bool shared_;
  const A shift_;
  bool columns_ = false;
  TileScratch scratch_;
  G* queries_transposed_;               // (depth, rows)
  G* paired_keys_;                      // (width / 2, depth) pairs, of bfloat16
  G *plain_weights_, *paired_weights_;  // (rows, width), (rows / 2, width) pairs
  A *grad_keys_, *grad_rows_;           // (depth, width), (width, depth)
  A *query_lse_, *query_grad_;          // (rows,)
  A *key_lse_, *key_grad_;              // (width,)
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(contrastive_backward)(const ContrastiveCpuParams& params,
                                                 const ContrastivePair* pairs, int64_t begin,
                                                 int64_t end) {
  dispatch_floating("_contrastive_lse_backward", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto run = [&](auto worker_of) {
      typename decltype(worker_of)::type worker(params);
      for (int64_t i = begin; i < end; ++i) worker.run(pairs[i]);
    };
    if constexpr (kPaired<T> && kHasPairs) {
      if (takes_bfloat16<T>(params)) return run(TypeTag<ContrastiveBackward<T, T>>());
    }
    run(TypeTag<ContrastiveBackward<T, Accumulate<T>>>());
  });
}

}  // namespace tilewright
