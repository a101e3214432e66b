// Attention's forward pass on tiles: a task packs each block of keys once and updates all its
// blocks of queries with it, by the online softmax (Milakov and Gimelshein, arXiv:1805.02867).
#include "tilewright/attention/attention_cpu.h"
#include "tilewright/attention/attention_cpu_keys.h"
#include "tilewright/attention/attention_cpu_rows.h"
#include "tilewright/core/cpu/gemm_loops.h"
#include "tilewright/core/cpu/tile_pack.h"
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// T: of the tensors, G: of the operands of products, float or T.
template <class T, class G>
class ForwardTask {
  using A = Accumulate<T>;
  using V = at::vec::Vectorized<A>;
  static constexpr int64_t kRows = kAttentionQueryBlock, kKeys = kAttentionKeyBlock;
  static constexpr int kDegree = kPaired<G> ? 4 : 5;

 public:
  explicit ForwardTask(const AttentionCpuParams& params)
      : p_(params), depth_(padded_depth<G>(params.head_dim)) {
    take();
    scratch_.allocate();
    take();
    use_brgemm_ = kPaired<G> || brgemm_serves_float();
  }
  ~ForwardTask() { brgemm_done(); }

  void run(const AttentionCpuTask& task) {
    task_ = &task;
    sequence_ = p_.sequences + task.sequence;
    row_blocks_ = ceil_div(sequence_->q_len, kRows);
    KeyRange seen = load_queries();
    for (int64_t first = seen.begin / kKeys * kKeys; first < seen.end; first += kKeys) {
      const int64_t count = keys_in_block(first, seen);
      load_keys(first, count, seen);
      for (int64_t b = 0; b < task.last - task.first; ++b) update(b, first, count);
    }
    for (int64_t b = 0; b < task.last - task.first; ++b) finish(b);
  }

 private:
  struct Block {
    int64_t head, row, rows;  // of queries
    KeyRange seen;
    bool started;
  };

  void take() {
    const int64_t rows = kAttentionTaskBlocks * kRows;
    blocks_ = scratch_.take<Block>(kAttentionTaskBlocks);
    query_ = scratch_.take<G>(rows * depth_);
    out_ = scratch_.take<A>(rows * p_.value_dim);
    most_ = scratch_.take<A>(rows);
    sums_ = scratch_.take<A>(rows * V::size());
    scores_ = scratch_.take<A>(kRows * kKeys);
    weights_ = scratch_.take<G>(kPaired<G> ? kRows * kKeys : 0);
    now_ = scratch_.take<A>(kRows);
    shift_ = scratch_.take<A>(kRows);
    shrink_ = scratch_.take<A>(kRows);
    keeps_ = scratch_.take<A>(kKeys);
    rows_ = scratch_.take<G>(kKeys * max_of(depth_, padded_depth<G>(p_.value_dim)));
    keys_ = scratch_.take<G>(kKeys * depth_);
    values_ = scratch_.take<G>(kPaired<G> ? kKeys * p_.value_dim : 0);
  }

  // Reads the queries and returns the keys that any of them sees.
  KeyRange load_queries() {
    KeyRange all{sequence_->k_len, 0};
    for (int64_t b = 0; b < task_->last - task_->first; ++b) {
      Block& block = blocks_[b];
      const int64_t index = task_->first + b;
      block.head = task_->kv_head * (p_.heads / p_.kv_heads) + index / row_blocks_;
      block.row = index % row_blocks_ * kRows;
      block.rows = min_of(kRows, sequence_->q_len - block.row);
      block.started = false;
      const auto range = [&](int64_t row) {
        return p_.window.keys(row, sequence_->q_len, sequence_->k_len);
      };
      block.seen = {range(block.row).begin, range(block.row + block.rows - 1).end};
      if (block.seen.begin < block.seen.end) {
        all = {min_of(all.begin, block.seen.begin), max_of(all.end, block.seen.end)};
      }
      const T* rows = static_cast<const T*>(sequence_->query) + block.head * p_.query.head +
                      block.row * p_.query.row;
      pack_rows<T>([&](int64_t r) { return r < block.rows ? rows + r * p_.query.row : nullptr; },
                   rows_in_product(block.rows), p_.head_dim, query_ + b * kRows * depth_, depth_);
      for (int64_t r = b * kRows; r < (b + 1) * kRows; ++r) {
        most_[r] = kMinusInfinity<A>;
        V(A(0)).store(sums_ + r * V::size());
      }
    }
    return all;
  }

  void load_keys(int64_t first, int64_t count, KeyRange seen) {
    const KeyRows<T> from(p_, *sequence_, task_->kv_head);
    const auto sees = [&](int64_t key) {
      for (int64_t b = 0; b < task_->last - task_->first; ++b) {
        const Block& block = blocks_[b];
        const int64_t end = block.row + block.rows;
        if (sees_key<T>(p_, *sequence_, block.head, block.row, end, key)) return true;
      }
      return false;
    };
    const Rows<G> keys = key_rows<T>(
        p_, sequence_->pages, [&](int64_t key) { return from.key(key); }, p_.key.row, first, count,
        seen, p_.head_dim, rows_, sees);
    pack_transposed_operand(keys.data, keys.stride, count, depth_, keys_, kKeys);
    const Rows<G> values = key_rows<T>(
        p_, sequence_->pages, [&](int64_t key) { return from.value(key); }, p_.value.row, first,
        count, seen, p_.value_dim, rows_, sees);
    value_operand_ = operand_of(values, count, p_.value_dim, values_);
  }

  // One block of queries and the keys [first, first + count).
  void update(int64_t b, int64_t first, int64_t count) {
    Block& block = blocks_[b];
    const auto [begin, end] = groups_seen(block.seen, first, count);
    if (begin >= end) return;
    const int64_t width = end - begin, padded = rows_in_product(block.rows);
    gemm(use_brgemm_, {padded, width, depth_, depth_, kKeys, kKeys, false},
         query_ + b * kRows * depth_, keys_ + begin * (kPaired<G> ? 2 : 1), scores_);
    const ScoreRules<T, A> rules(p_, *sequence_, block.head);
    prepare(block, rules, first + begin, width);
    A* out = out_ + b * kRows * p_.value_dim;
    const A factor = rules.factor();
    A* most = most_ + b * kRows;
    for (int64_t r = 0; r < block.rows; ++r) {
      now_[r] = max_of(most[r], row_max(scores_ + r * kKeys, width) * factor);
    }
    for (int64_t r = 0; r < block.rows; r += V::size()) {
      const V before = V::loadu(most + r), now = V::loadu(now_ + r), none(kMinusInfinity<A>);
      // Where nothing is seen yet, all weights are 2^-inf.
      const V shift = V::blendv(now, V(A(0)), now == none);
      exp2_lanes<5>(before - shift).store(shrink_ + r);
      shift.store(shift_ + r);
      now.store(most + r);
    }
    for (int64_t r = 0; r < block.rows; ++r) {
      A* row = scores_ + r * kKeys;
      if (block.started && shrink_[r] != A(1)) scale_row(out + r * p_.value_dim, shrink_[r]);
      A* sums = sums_ + (b * kRows + r) * V::size();
      V sum = V::loadu(sums) * V(shrink_[r]);
      if (p_.dropout.threshold != 0) {
        dropout_row(p_, sequence_->index * p_.heads + block.head, block.row + r, first + begin,
                    width, keeps_);
        sum = weigh<true>(row, width, factor, shift_[r], sum, weights_ + r * kKeys);
      } else {
        sum = weigh<false>(row, width, factor, shift_[r], sum, weights_ + r * kKeys);
      }
      sum.store(sums);
    }
    const G* weights;
    if constexpr (kPaired<G>) {
      weights = weights_;
    } else {
      weights = scores_;
    }
    gemm(use_brgemm_,
         {padded, p_.value_dim, width, kKeys, value_operand_.stride, p_.value_dim, block.started},
         weights, value_operand_.data + begin * value_operand_.stride, out);
    block.started = true;
  }

  // Scores by all the options, and -inf where a key is not seen.
  void prepare(const Block& block, const ScoreRules<T, A>& rules, int64_t first, int64_t width) {
    const KeyRange low = rules.keys(block.row), high = rules.keys(block.row + block.rows - 1);
    // Whether all rows see all keys.
    if (!rules.general && high.begin <= first && low.end >= first + width) return;
    for (int64_t r = 0; r < block.rows; ++r) {
      A* row = scores_ + r * kKeys;
      const KeyRange keys = rules.keys(block.row + r);
      const int64_t begin = keys.begin - first, end = min_of(keys.end - first, width);
      if (rules.general && end > 0) {
        score_row(rules, block.row + r, first, end, row, static_cast<A*>(nullptr));
      }
      mask_row(row, width, begin, end);
    }
  }

  // Weights 2^(factor * score - shift), in place or as bfloat16; returns the sums of lanes.
  template <bool kDrop>
  V weigh(A* row, int64_t width, A factor, A shift, V sum, G* weights) {
    const V scale(factor), offset(-shift);
    for (int64_t i = 0; i < width; i += 2 * V::size()) {
      V a = exp2_lanes<kDegree>(at::vec::fmadd(V::loadu(row + i), scale, offset));
      V b = exp2_lanes<kDegree>(at::vec::fmadd(V::loadu(row + i + V::size()), scale, offset));
      sum = sum + (a + b);
      if constexpr (kDrop) {
        a = a * V::loadu(keeps_ + i);
        b = b * V::loadu(keeps_ + i + V::size());
      }
      if constexpr (kPaired<G>) {
        store_bfloat16(a, b, weights + i);
      } else {
        a.store(row + i);
        b.store(row + i + V::size());
      }
    }
    return sum;
  }

  void scale_row(A* row, A factor) {
    int64_t i = 0;
    for (; i + V::size() <= p_.value_dim; i += V::size()) {
      (V::loadu(row + i) * V(factor)).store(row + i);
    }
    for (; i < p_.value_dim; ++i) row[i] *= factor;
  }

  // Divides by the sums, with the sinks in them.
  void finish(int64_t b) {
    const Block& block = blocks_[b];
    T* out = static_cast<T*>(sequence_->out) + block.head * p_.out.head + block.row * p_.out.row;
    A* lse = static_cast<A*>(sequence_->lse) + block.head * p_.lse_head + block.row;
    for (int64_t r = 0; r < block.rows; ++r) {
      double most = most_[b * kRows + r], sum = 0;
      const A* sums = sums_ + (b * kRows + r) * V::size();
      for (int64_t i = 0; i < V::size(); ++i) sum += sums[i];
      double shrink = 1;
      if (p_.sinks != nullptr) {
        const double sink = static_cast<const A*>(p_.sinks)[block.head] * kLog2E;
        const double with = max_of(most, sink);
        if (with != -std::numeric_limits<double>::infinity()) {
          shrink = exp2_of(most - with);
          sum = sum * shrink + exp2_of(sink - with);
          most = with;
        }
      }
      // Rows without keys have sum 0 (or their sink's) and no out yet.
      A* row = out_ + (b * kRows + r) * p_.value_dim;
      T* to = out + r * p_.out.row;
      if (!block.started || sum == 0) {
        for (int64_t i = 0; i < p_.value_dim; ++i) to[i] = T(0);
      } else {
        scale_row(row, A(shrink / sum));
        convert_row(row, to, p_.value_dim);
      }
      lse[r] = sum == 0 ? kMinusInfinity<A> : A((most + std::log2(sum)) * kLn2);
    }
  }

  const AttentionCpuParams& p_;
  const AttentionCpuTask* task_ = nullptr;
  const AttentionCpuSequence* sequence_ = nullptr;
  int64_t depth_, row_blocks_ = 0;
  bool use_brgemm_ = false;
  TileScratch scratch_;
  Block* blocks_;
  G* query_;  // (blocks, kRows, depth)
  A *out_, *most_, *sums_;
  A* scores_;                  // (kRows, kKeys)
  G* weights_;                 // the same for bfloat16; else the scores become weights in place
  A *now_, *shift_, *shrink_;  // (kRows,)
  A* keeps_;                   // (kKeys,)
  G* rows_;                    // (kKeys, depth) or (kKeys, value_dim)
  G* keys_;                    // transposed, (depth, kKeys)
  G* values_;                  // in pairs, (kKeys, value_dim)
  Rows<G> value_operand_{};
};

template <class T, class G>
void run_tasks(const AttentionCpuParams& params, NextTask next, void* state) {
  int64_t task = next(state);
  if (task < 0) return;
  ForwardTask<T, G> worker(params);
  for (; task >= 0; task = next(state)) worker.run(params.tasks[task]);
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(attention_forward)(const AttentionCpuParams& params, NextTask next,
                                              void* state) {
  dispatch_floating("flash_attention", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (kPaired<T> && kHasPairs) {
      if (brgemm_serves_bfloat16()) return run_tasks<T, T>(params, next, state);
    }
    run_tasks<T, Accumulate<T>>(params, next, state);
  });
}

}  // namespace tilewright
