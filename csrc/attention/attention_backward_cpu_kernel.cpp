// Attention's backward pass on tiles, from out and lse alone: P = 2^(s - lse), dS = P (dP - D) with
// D = rowsum(dO * O) - dLSE. A task owns blocks of keys and walks over all queries, so that the
// gradients of keys and values are sums in one order; those of queries are summed per split of
// keys.
#include <cmath>

#include "tilewright/attention/attention_cpu.h"
#include "tilewright/attention/attention_cpu_gradients.h"
#include "tilewright/attention/attention_cpu_keys.h"
#include "tilewright/attention/attention_cpu_options.h"
#include "tilewright/core/cpu/gemm_loops.h"
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T, class G>
class BackwardTask {
  using A = Accumulate<T>;
  using V = at::vec::Vectorized<A>;
  static constexpr int64_t kRows = kAttentionQueryBlock, kKeys = kAttentionKeyBlock;
  static constexpr int64_t kChunk = 16 * kRows;  // queries that are packed together

 public:
  BackwardTask(const AttentionCpuParams& params, int64_t most_blocks)
      : p_(params),
        depth_(padded_depth<G>(params.head_dim)),
        value_depth_(padded_depth<G>(params.value_dim)),
        most_blocks_(most_blocks) {
    take();
    scratch_.allocate();
    take();
    use_brgemm_ = kPaired<G> || brgemm_serves_float();
  }
  ~BackwardTask() { brgemm_done(); }

  // `first` of its work item: nothing is in the bias's gradient yet.
  void run(const AttentionCpuTask& task, bool first) {
    task_ = &task;
    first_ = first;
    sequence_ = p_.sequences + task.sequence;
    const int64_t blocks = task.last > task.first ? ceil_div(task.last - task.first, task.step) : 0;
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t width = width_of(task.first + i * task.step);
      clear_columns(grad_keys_ + i * kKeys * p_.head_dim, p_.head_dim, width);
      clear_columns(grad_values_ + i * kKeys * p_.value_dim, p_.value_dim, width);
    }
    const int64_t group = p_.heads / p_.kv_heads;
    for (head_ = task.kv_head * group; head_ < (task.kv_head + 1) * group; ++head_) {
      for (row_ = 0; row_ < sequence_->q_len; row_ += kChunk) {
        rows_in_chunk_ = min_of(kChunk, sequence_->q_len - row_);
        walk_keys();
      }
    }
    for (int64_t i = 0; i < blocks; ++i) store_key_gradients(task.first + i * task.step, i);
  }

 private:
  void take() {
    queries_ = scratch_.take<G>(kChunk * depth_);
    queries_transposed_ = scratch_.take<G>(kChunk * p_.head_dim);
    grads_ = scratch_.take<G>(kChunk * value_depth_);
    grads_transposed_ = scratch_.take<G>(kChunk * p_.value_dim);
    lse_ = scratch_.take<A>(kChunk);
    lse_rest_ = scratch_.take<A>(kChunk);
    delta_ = scratch_.take<A>(kChunk);
    grad_queries_ = scratch_.take<A>(kChunk * p_.head_dim);
    scores_ = scratch_.take<A>(kRows * kKeys);
    grad_scores_ = scratch_.take<A>(kRows * kKeys);
    paired_weights_ = scratch_.take<G>(kPaired<G> ? kRows * kKeys : 0);
    paired_grads_ = scratch_.take<G>(kPaired<G> ? kRows * kKeys : 0);
    plain_grads_ = scratch_.take<G>(kPaired<G> ? kRows * kKeys : 0);
    derivative_ = scratch_.take<A>(kKeys);
    keeps_ = scratch_.take<A>(kKeys);
    rows_ = scratch_.take<G>(kKeys * max_of(depth_, value_depth_));
    keys_transposed_ = scratch_.take<G>(kKeys * depth_);
    values_transposed_ = scratch_.take<G>(kKeys * value_depth_);
    keys_ = scratch_.take<G>(kPaired<G> ? kKeys * p_.head_dim : 0);
    grad_keys_ = scratch_.take<A>(most_blocks_ * kKeys * p_.head_dim);
    grad_values_ = scratch_.take<A>(most_blocks_ * kKeys * p_.value_dim);
  }

  // The columns of a block's gradients that are in use: its keys, in whole groups.
  int64_t width_of(int64_t block) const {
    return keys_in_block(block * kKeys, {0, sequence_->k_len});
  }
  static void clear_columns(A* tile, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r) clear_row(tile + r * kKeys, width);
  }

  // All keys of the task for one chunk of queries.
  void walk_keys() {
    const auto range = [&](int64_t row) {
      return p_.window.keys(row, sequence_->q_len, sequence_->k_len);
    };
    const KeyRange seen{range(row_).begin, range(row_ + rows_in_chunk_ - 1).end};
    clear_row(grad_queries_, ceil_div(rows_in_chunk_, 16) * 16 * p_.head_dim);
    bool loaded = false;
    for (int64_t block = task_->first, i = 0; block < task_->last; block += task_->step, ++i) {
      const int64_t first = block * kKeys;
      if (first >= seen.end || first + kKeys <= seen.begin) continue;
      if (!loaded) load_queries();
      loaded = true;
      const int64_t count = keys_in_block(first, seen);
      load_keys(first, count, seen);
      for (int64_t row = 0; row < rows_in_chunk_; row += kRows) {
        const int64_t last = min_of(row + kRows, rows_in_chunk_) - 1;
        const KeyRange groups =
            groups_seen({range(row_ + row).begin, range(row_ + last).end}, first, count);
        if (groups.begin < groups.end) {
          visit(row, last + 1 - row, first, groups, grad_keys_ + i * kKeys * p_.head_dim,
                grad_values_ + i * kKeys * p_.value_dim);
        }
      }
    }
    store_query_gradients();
  }

  void load_queries() {
    const auto* query = static_cast<const T*>(sequence_->query) + head_ * p_.query.head;
    const auto* grad = static_cast<const T*>(sequence_->grad_out) + head_ * p_.grad_out.head;
    const auto* out = static_cast<const T*>(sequence_->out) + head_ * p_.out.head;
    const auto* lse = static_cast<const A*>(sequence_->lse) + head_ * p_.lse_head;
    const auto* grad_lse = static_cast<const A*>(sequence_->grad_lse);
    if (grad_lse != nullptr) grad_lse += head_ * p_.lse_head;
    const int64_t whole = rows_in_chunk_ / kRows * kRows;
    const int64_t padded =
        whole + (whole < rows_in_chunk_ ? rows_in_product(rows_in_chunk_ - whole) : 0);
    // Rows that see nothing may hold anything.
    const auto counts = [=, this](int64_t r) {
      return r < rows_in_chunk_ && lse[row_ + r] != kMinusInfinity<A>;
    };
    const auto rows_of = [&](const T* tensor, int64_t stride) {
      return [=, this](int64_t r) { return counts(r) ? tensor + (row_ + r) * stride : nullptr; };
    };
    pack_rows<T>(rows_of(query, p_.query.row), padded, p_.head_dim, queries_, depth_);
    pack_rows<T>(rows_of(grad, p_.grad_out.row), padded, p_.value_dim, grads_, value_depth_);
    transpose_tile(queries_, depth_, padded, p_.head_dim, queries_transposed_, kChunk);
    transpose_tile(grads_, value_depth_, padded, p_.value_dim, grads_transposed_, kChunk);
    for (int64_t r = 0; r < padded; ++r) {
      // 2^(s - inf) = 0: rows that see nothing, and those that fill the last block.
      lse_[r] = std::numeric_limits<A>::infinity();
      lse_rest_[r] = delta_[r] = A(0);
      if (!counts(r)) continue;
      const int64_t row = row_ + r;
      const double in_bits = double(lse[row]) * kLog2E;
      lse_[r] = A(in_bits);
      if (std::isfinite(lse_[r])) lse_rest_[r] = A(in_bits - double(lse_[r]));
      delta_[r] = dot(grad + row * p_.grad_out.row, out + row * p_.out.row, p_.value_dim);
      if (grad_lse != nullptr) delta_[r] -= grad_lse[row];
    }
  }

  void load_keys(int64_t first, int64_t count, KeyRange seen) {
    const KeyRows<T> from(p_, *sequence_, task_->kv_head);
    const auto sees = [&](int64_t key) {
      return sees_key<T>(p_, *sequence_, head_, row_, row_ + rows_in_chunk_, key);
    };
    const Rows<G> values = key_rows<T>(
        p_, sequence_->pages, [&](int64_t key) { return from.value(key); }, p_.value.row, first,
        count, seen, p_.value_dim, rows_, sees);
    pack_transposed_operand(values.data, values.stride, count, value_depth_, values_transposed_,
                            kKeys);
    const Rows<G> keys = key_rows<T>(
        p_, sequence_->pages, [&](int64_t key) { return from.key(key); }, p_.key.row, first, count,
        seen, p_.head_dim, rows_, sees);
    pack_transposed_operand(keys.data, keys.stride, count, depth_, keys_transposed_, kKeys);
    key_operand_ = operand_of(keys, count, p_.head_dim, keys_);
  }

  // scores_ (padded, kKeys) of a block of queries. Of few queries the sum over the depth is made of
  // four parts: so few rows have large weights, which show how scores are rounded, and cost little.
  void multiply_keys(int64_t row, int64_t padded, int64_t begin, int64_t width) {
    constexpr int64_t kParts = 4, kPair = kPaired<G> ? 2 : 1;
    const G* queries = queries_ + row * depth_;
    if (kPaired<G> || padded * kParts > kRows || depth_ < 16) {
      gemm(use_brgemm_, {padded, width, depth_, depth_, kKeys, kKeys, false}, queries,
           keys_transposed_ + begin * kPair, scores_);
      return;
    }
    const int64_t size = padded * kKeys;
    for (int64_t part = 0; part < kParts; ++part) {
      const int64_t first = depth_ * part / kParts, last = depth_ * (part + 1) / kParts;
      gemm(use_brgemm_, {padded, width, last - first, depth_, kKeys, kKeys, false}, queries + first,
           keys_transposed_ + first * kKeys + begin, scores_ + part * size);
    }
    for (int64_t r = 0; r < padded; ++r) {
      A* sums = scores_ + r * kKeys;
      for (int64_t i = 0; i < width; ++i) {
        sums[i] = (sums[i] + sums[size + i]) + (sums[2 * size + i] + sums[3 * size + i]);
      }
    }
  }

  // One block of queries and the keys of `groups` in the block from `first` on.
  void visit(int64_t row, int64_t rows, int64_t first, KeyRange groups, A* grad_keys,
             A* grad_values) {
    const int64_t begin = groups.begin, width = groups.end - begin;
    const int64_t padded = rows_in_product(rows);
    constexpr int64_t kPair = kPaired<G> ? 2 : 1;
    multiply_keys(row, padded, begin, width);
    gemm(use_brgemm_, {padded, width, value_depth_, value_depth_, kKeys, kKeys, false},
         grads_ + row * value_depth_, values_transposed_ + begin * kPair, grad_scores_);
    differentiate(row, rows, padded, first + begin, width);
    const G *weights, *grads, *paired_grads;
    if constexpr (kPaired<G>) {
      for (int64_t r = 0; r < padded; r += 2) pair_rows_at(r, width);
      weights = paired_weights_;
      grads = plain_grads_;
      paired_grads = paired_grads_;
    } else {
      weights = scores_;
      grads = paired_grads = grad_scores_;
    }
    gemm(use_brgemm_, {p_.value_dim, width, padded, kChunk, kKeys, kKeys, true},
         grads_transposed_ + row, weights, grad_values + begin);
    gemm(use_brgemm_, {p_.head_dim, width, padded, kChunk, kKeys, kKeys, true},
         queries_transposed_ + row, paired_grads, grad_keys + begin);
    gemm(use_brgemm_, {padded, p_.head_dim, width, kKeys, key_operand_.stride, p_.head_dim, true},
         grads, key_operand_.data + begin * key_operand_.stride, grad_queries_ + row * p_.head_dim);
  }

  // Weights and gradients of two rows as bfloat16: both in pairs, gradients in rows too.
  void pair_rows_at(int64_t r, int64_t width) {
    const A *scores = scores_ + r * kKeys, *grads = grad_scores_ + r * kKeys;
    for (int64_t i = 0; i < width; i += 2 * V::size()) {
      const V even = V::loadu(grads + i), even_next = V::loadu(grads + i + V::size());
      const V odd = V::loadu(grads + kKeys + i), odd_next = V::loadu(grads + kKeys + i + V::size());
      store_bfloat16(even, even_next, plain_grads_ + r * kKeys + i);
      store_bfloat16(odd, odd_next, plain_grads_ + (r + 1) * kKeys + i);
      G* pairs = paired_grads_ + r * kKeys + 2 * i;
      store_pairs(even, odd, pairs);
      store_pairs(even_next, odd_next, pairs + 2 * V::size());
      G* weights = paired_weights_ + r * kKeys + 2 * i;
      store_pairs(V::loadu(scores + i), V::loadu(scores + kKeys + i), weights);
      store_pairs(V::loadu(scores + i + V::size()), V::loadu(scores + kKeys + i + V::size()),
                  weights + 2 * V::size());
    }
  }

  // Products in scores_ and grad_scores_ become probabilities and gradients of products.
  void differentiate(int64_t row, int64_t rows, int64_t padded, int64_t first, int64_t width) {
    const ScoreRules<T, A> rules(p_, *sequence_, head_);
    const OptionGradients<T> options{p_, *sequence_, split(), head_, first_};
    const KeyRange low = rules.keys(row_ + row), high = rules.keys(row_ + row + rows - 1);
    const bool whole = high.begin <= first && low.end >= first + width;
    GradientRow<A> item{};
    item.width = width;
    item.factor = rules.factor();
    item.general = rules.general;
    for (int64_t r = 0; r < padded; ++r) {
      item.scores = scores_ + r * kKeys;
      item.grads = grad_scores_ + r * kKeys;
      item.lse = lse_[row + r];
      item.lse_rest = lse_rest_[row + r];
      item.delta = delta_[row + r];
      if (r >= rows) {
        clear_row(item.scores, width);
        clear_row(item.grads, width);
        continue;
      }
      const int64_t query = row_ + row + r;
      const KeyRange keys = rules.keys(query);
      const int64_t from = keys.begin - first, end = min_of(keys.end - first, width);
      A* derivative = rules.softcap > 0 ? derivative_ : nullptr;
      if (rules.general && end > 0) score_row(rules, query, first, end, item.scores, derivative);
      if (!whole || rules.general) mask_row(item.scores, width, from, end);
      item.keeps = nullptr;
      if (p_.dropout.threshold != 0) {
        dropout_row(p_, sequence_->index * p_.heads + head_, query, first, width, keeps_);
        item.keeps = keeps_;
      }
      differentiate_row(item);
      if (p_.grad_bias != nullptr || p_.grad_slopes != nullptr) {
        options.add(query, first, max_of(from, int64_t(0)), end, item.grads);
      }
      if (derivative != nullptr && end > 0) multiply_rows(item.grads, derivative, end);
    }
  }

  int64_t split() const { return task_->first; }

  void store_query_gradients() {
    const A scale = A(p_.scale);
    if (p_.splits > 1) {
      A* to = static_cast<A*>(p_.query_parts) + split() * p_.query_parts_total +
              (p_.first_rows[task_->sequence] * p_.heads + head_ * sequence_->q_len + row_) *
                  p_.head_dim;
      const int64_t count = rows_in_chunk_ * p_.head_dim;
      for (int64_t i = 0; i < count; ++i) to[i] = grad_queries_[i] * scale;
      return;
    }
    T* to = static_cast<T*>(sequence_->grad_query) + head_ * p_.grad_query.head;
    for (int64_t r = 0; r < rows_in_chunk_; ++r) {
      A* row = grad_queries_ + r * p_.head_dim;
      for (int64_t i = 0; i < p_.head_dim; ++i) row[i] *= scale;
      convert_row(row, to + (row_ + r) * p_.grad_query.row, p_.head_dim);
    }
  }

  void store_key_gradients(int64_t block, int64_t i) {
    const int64_t first = block * kKeys, count = min_of(kKeys, sequence_->k_len - first);
    A* grad_keys = grad_keys_ + i * kKeys * p_.head_dim;
    for (int64_t d = 0; d < p_.head_dim; ++d) {
      for (int64_t k = 0; k < count; ++k) grad_keys[d * kKeys + k] *= A(p_.scale);
    }
    T* key = static_cast<T*>(sequence_->grad_key) + task_->kv_head * p_.grad_key.head;
    tile_to_rows(grad_keys, kKeys, count, p_.head_dim, key + first * p_.grad_key.row,
                 p_.grad_key.row);
    T* value = static_cast<T*>(sequence_->grad_value) + task_->kv_head * p_.grad_value.head;
    tile_to_rows(grad_values_ + i * kKeys * p_.value_dim, kKeys, count, p_.value_dim,
                 value + first * p_.grad_value.row, p_.grad_value.row);
  }

  const AttentionCpuParams& p_;
  const AttentionCpuTask* task_ = nullptr;
  const AttentionCpuSequence* sequence_ = nullptr;
  int64_t depth_, value_depth_, most_blocks_;
  int64_t head_ = 0, row_ = 0, rows_in_chunk_ = 0;
  bool use_brgemm_ = false, first_ = false;
  TileScratch scratch_;
  G *queries_, *queries_transposed_;  // (kChunk, depth), (head_dim, kChunk)
  G *grads_, *grads_transposed_;      // of out: (kChunk, value_depth), (value_dim, kChunk)
  A *lse_, *lse_rest_, *delta_;       // (kChunk,), lse in powers of 2
  A* grad_queries_;                   // (kChunk, head_dim)
  A *scores_, *grad_scores_;          // (kRows, kKeys)
  G *paired_weights_, *paired_grads_, *plain_grads_;  // the same for bfloat16
  A *derivative_, *keeps_;                            // (kKeys,)
  G* rows_;                                           // (kKeys, depth) or (kKeys, value_depth)
  Rows<G> key_operand_{};
  G *keys_transposed_, *values_transposed_;  // (depth, kKeys), (value_depth, kKeys)
  G* keys_;                                  // (kKeys, head_dim)
  A *grad_keys_, *grad_values_;  // (blocks, head_dim, kKeys), (blocks, value_dim, kKeys)
};

template <class T, class G>
void run_items(const AttentionCpuParams& params, NextTask next, void* state) {
  int64_t item = next(state);
  if (item < 0) return;
  BackwardTask<T, G> worker(params, params.most_key_blocks);
  for (; item >= 0; item = next(state)) {
    for (int64_t i = params.items[item]; i < params.items[item + 1]; ++i) {
      worker.run(params.tasks[i], i == params.items[item]);
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(attention_backward)(const AttentionCpuParams& params, NextTask next,
                                               void* state) {
  dispatch_floating("flash_attention", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (kPaired<T> && kHasPairs) {
      if (brgemm_serves_bfloat16()) return run_items<T, T>(params, next, state);
    }
    run_items<T, Accumulate<T>>(params, next, state);
  });
}

}  // namespace tilewright
