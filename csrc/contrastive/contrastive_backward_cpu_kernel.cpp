// The backward pass of contrastive_lse: a tile of scores is made again and becomes weights, the
// gradients of its products, which are multiplied with the keys and with the queries.
#include "tilewright/contrastive/contrastive_cpu_tiles.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
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
      const A* key_rows = tiles_.load_keys(key, keys);
      load_side(p_.self ? p_.row_lse : p_.column_lse, p_.self ? p_.row_grad : p_.column_grad, key,
                keys, columns_, key_lse_, key_grad_);
      for (int64_t row = row_first; row < row_end; row += kRows) {
        const int64_t rows = min_of(kRows, row_end - row);
        const A* query_rows = tiles_.multiply(row, rows);
        load_side(p_.row_lse, p_.row_grad, row, rows, true, query_lse_, query_grad_);
        for (int64_t r = 0; r < rows; ++r)
          weigh(tiles_.row(r), query_lse_[r], query_grad_[r], keys);
        if (to_queries != nullptr) {
          gemm(tiles_.use_brgemm(),
               {rows, p_.depth, keys, tiles_.width(), p_.depth, p_.depth, true}, tiles_.row(0),
               key_rows, to_queries + row * p_.depth);
        }
        if (to_keys != nullptr) {
          transpose_tile(query_rows, p_.depth, rows, p_.depth, queries_transposed_, kRows);
          gemm(tiles_.use_brgemm(),
               {p_.depth, keys, rows, kRows, tiles_.width(), tiles_.width(), row > row_first},
               queries_transposed_, tiles_.row(0), grad_keys_);
        }
      }
      if (to_keys != nullptr) add_key_gradients(to_keys + key * p_.depth, keys);
    }
  }

 private:
  void take() {
    tiles_.take(scratch_);
    queries_transposed_ = scratch_.take<A>(kRows * p_.depth);
    grad_keys_ = scratch_.take<A>(tiles_.width() * p_.depth);
    grad_rows_ = scratch_.take<A>(tiles_.width() * p_.depth);
    query_lse_ = scratch_.take<A>(kRows);
    query_grad_ = scratch_.take<A>(kRows);
    key_lse_ = scratch_.take<A>(tiles_.width() + V::size());
    key_grad_ = scratch_.take<A>(tiles_.width() + V::size());
  }

  A* copy_of(void* grads, int64_t copy, int64_t count) const {
    return grads == nullptr ? nullptr : static_cast<A*>(grads) + copy * count * p_.depth;
  }

  // Log-sum-exps, +inf where nothing is seen, and gradients of the scores' products. With a shared
  // shift the gradients hold 2^(shift - lse) already.
  void load_side(const void* lse, const void* grad, int64_t first, int64_t count, bool counts,
                 A* to_lse, A* to_grad) const {
    for (int64_t i = 0; i < ScoreTiles<T>::whole(count); ++i) {
      to_lse[i] = std::numeric_limits<A>::infinity();
      to_grad[i] = A(0);
      if (!counts || i >= count) continue;
      const A sum = static_cast<const A*>(lse)[first + i];
      if (sum == kNoScore<A>) continue;
      to_lse[i] = sum;
      to_grad[i] = static_cast<const A*>(grad)[first + i] * A(p_.scale);
      if (shared_) to_grad[i] *= exp2_of(shift_ - sum);
    }
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
        weight = exp2_lanes<5>(at::vec::fmsub(score, factor, row_lse)) * row_grad;
        if (columns_) {
          const V share = exp2_lanes<5>(at::vec::fmsub(score, factor, V::loadu(key_lse_ + i)));
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
  ScoreTiles<T> tiles_;
  const bool shared_;
  const A shift_;
  bool columns_ = false;
  TileScratch scratch_;
  A* queries_transposed_;       // (depth, rows)
  A *grad_keys_, *grad_rows_;   // (depth, width), (width, depth)
  A *query_lse_, *query_grad_;  // (rows,)
  A *key_lse_, *key_grad_;      // (width,)
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(contrastive_backward)(const ContrastiveCpuParams& params,
                                                 const ContrastivePair* pairs, int64_t begin,
                                                 int64_t end) {
  dispatch_floating("_contrastive_lse_backward", params.dtype, [&](auto tag) {
    ContrastiveBackward<typename decltype(tag)::type> worker(params);
    for (int64_t i = begin; i < end; ++i) worker.run(pairs[i]);
  });
}

}  // namespace tilewright
