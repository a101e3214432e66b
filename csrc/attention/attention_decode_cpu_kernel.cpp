// Attention of a few query rows to many keys: bound by reading the keys, so they are read once, as
// they lie, by all query heads of their group. Runs of keys are separate tasks, merged at the end.
#include <algorithm>

#include "tilewright/attention/attention_cpu.h"
#include "tilewright/attention/attention_cpu_keys.h"
#include "tilewright/attention/attention_cpu_merge.h"
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
class DecodeTask {
  using A = Accumulate<T>;
  using V = Vec<T>;
  static constexpr int64_t kKeys = kAttentionKeyBlock, kRows = kAttentionDecodeRows;
  static constexpr int kTogether = 4;  // query rows that share a read of keys
  // Registers of one row of values that are summed over a block of keys.
  template <int kCount>
  static constexpr int kStrip = kCount <= 2 ? 8 : 4;

 public:
  explicit DecodeTask(const AttentionCpuParams& params)
      : p_(params), depth_(ceil_div(params.head_dim, kLanes<T>) * kLanes<T>) {
    take();
    scratch_.allocate();
    take();
  }

  void run(int64_t index) {
    const AttentionCpuTask& task = p_.tasks[index];
    sequence_ = p_.sequences + task.sequence;
    const int64_t group = p_.heads / p_.kv_heads;
    first_head_ = task.kv_head * group;
    rows_ = group * sequence_->q_len;
    out_ = p_.partials == nullptr
               ? own_
               : static_cast<A*>(p_.partials) + index * p_.decode_rows * (p_.value_dim + 2);
    for (int64_t r = 0; r < rows_; ++r) {
      A* row = queries_ + r * depth_;
      std::fill(row, row + depth_, A(0));
      convert_row(static_cast<const T*>(sequence_->query) + head(r) * p_.query.head +
                      query(r) * p_.query.row,
                  row, p_.head_dim);
      most(r) = kMinusInfinity<A>;
      sum(r) = A(0);
      std::fill(out(r), out(r) + p_.value_dim, A(0));
    }
    const KeyRange low = keys_of(0), high = keys_of(sequence_->q_len - 1);
    const int64_t begin = max_of(int64_t(task.first), low.begin);
    const int64_t end = min_of(int64_t(task.last), high.end);
    const KeyRows<T> keys(p_, *sequence_, task.kv_head);
    for (int64_t first = begin; first < end; first += kKeys) {
      const int64_t count = min_of(kKeys, end - first);
      last_ = end;
      for (int64_t r = 0; r < rows_; r += kTogether) {
        switch (min_of(rows_ - r, int64_t(kTogether))) {
          case 1: multiply_keys<1>(keys, r, first, count); break;
          case 2: multiply_keys<2>(keys, r, first, count); break;
          case 3: multiply_keys<3>(keys, r, first, count); break;
          default: multiply_keys<kTogether>(keys, r, first, count);
        }
      }
      for (int64_t r = 0; r < rows_; ++r) weigh(r, first, count);
      find_seen(count);
      for (int64_t r = 0; r < rows_; r += kTogether) {
        switch (min_of(rows_ - r, int64_t(kTogether))) {
          case 1: add_values<1>(keys, r, first, count); break;
          case 2: add_values<2>(keys, r, first, count); break;
          case 3: add_values<3>(keys, r, first, count); break;
          default: add_values<kTogether>(keys, r, first, count);
        }
      }
    }
    if (p_.partials == nullptr) merge<T>(p_, task, own_, 1, total_);
  }

 private:
  int64_t head(int64_t r) const { return first_head_ + r / sequence_->q_len; }
  int64_t query(int64_t r) const { return r % sequence_->q_len; }
  KeyRange keys_of(int64_t query) const {
    return p_.window.keys(query, sequence_->q_len, sequence_->k_len);
  }
  // A row of the partial result: values, maximum, sum.
  A* out(int64_t r) { return out_ + r * (p_.value_dim + 2); }
  A& most(int64_t r) { return out(r)[p_.value_dim]; }
  A& sum(int64_t r) { return out(r)[p_.value_dim + 1]; }

  void take() {
    queries_ = scratch_.take<A>(kRows * depth_);
    scores_ = scratch_.take<A>(kRows * kKeys);
    lanes_ = scratch_.take<A>(kTogether * kLanes<T> * kLanes<T>);
    keeps_ = scratch_.take<A>(kKeys + kKeyGroup);
    seen_ = scratch_.take<uint8_t>(kKeys);
    own_ = scratch_.take<A>(p_.partials == nullptr ? kRows * (p_.value_dim + 2) : 0);
    total_ = scratch_.take<A>(p_.partials == nullptr ? p_.value_dim : 0);
  }

  // Values are fetched while keys are multiplied and the other way round: two streams hide more of
  // the memory's latency than one.
  static void fetch(const T* row, int64_t size) {
    constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    for (int64_t i = 0; i < size; i += kLine) __builtin_prefetch(row + i, 0, 2);
  }

  // scores_ (rows, keys) of kCount query rows.
  template <int kCount>
  void multiply_keys(const KeyRows<T>& keys, int64_t r, int64_t first, int64_t count) {
    const A* queries = queries_ + r * depth_;
    const int64_t whole = p_.head_dim / kLanes<T> * kLanes<T>;
    for (int64_t k = 0; k < count; k += kLanes<T>) {
      const int64_t together = min_of(kLanes<T>, count - k);
      for (int64_t i = 0; i < together; ++i) {
        const T* key = keys.key(first + k + i);
        if (r == 0) fetch(keys.value(first + k + i), p_.value_dim);
        V sums[kCount];
        for (int q = 0; q < kCount; ++q) sums[q] = V(A(0));
        for (int64_t d = 0; d < whole; d += kLanes<T>) {
          const V value = load_lanes(key + d);
          for (int q = 0; q < kCount; ++q) {
            sums[q] = at::vec::fmadd(value, V::loadu(queries + q * depth_ + d), sums[q]);
          }
        }
        if (whole < p_.head_dim) {
          const V value = load_lanes(key + whole, p_.head_dim - whole);
          for (int q = 0; q < kCount; ++q) {
            sums[q] = at::vec::fmadd(value, V::loadu(queries + q * depth_ + whole), sums[q]);
          }
        }
        for (int q = 0; q < kCount; ++q) sums[q].store(lanes_ + (q * kLanes<T> + i) * kLanes<T>);
      }
      // The lanes of each sum are added by turning so many sums around.
      for (int q = 0; q < kCount; ++q) {
        Square<A> square;
        for (int64_t i = 0; i < kLanes<T>; ++i) {
          if (i < together) {
            square.load(int(i), lanes_ + (q * kLanes<T> + i) * kLanes<T>);
          } else {
            square.clear(int(i));
          }
        }
        square.transpose();
        square.add_up().store(scores_ + (r + q) * kKeys + k);
      }
    }
  }

  // Scores of one row become weights; what was summed so far is brought to the new maximum.
  void weigh(int64_t r, int64_t first, int64_t count) {
    const ScoreRules<T, A> rules(p_, *sequence_, head(r));
    const int64_t width = ceil_div(count, 2 * kLanes<T>) * 2 * kLanes<T>;
    A* row = scores_ + r * kKeys;
    const KeyRange keys = keys_of(query(r));
    const int64_t end = min_of(keys.end - first, count);
    if (rules.general && end > 0) {
      score_row(rules, query(r), first, end, row, static_cast<A*>(nullptr));
    }
    mask_row(row, width, keys.begin - first, end);
    const A factor = rules.factor();
    const A before = most(r), now = max_of(before, row_max(row, width) * factor);
    const A shift = now == kMinusInfinity<A> ? A(0) : now;
    most(r) = now;
    V total(A(0));
    const V scale(factor), offset(-shift);
    for (int64_t i = 0; i < width; i += kLanes<T>) {
      const V weight = exp2_lanes<5>(at::vec::fmadd(V::loadu(row + i), scale, offset));
      total = total + weight;
      weight.store(row + i);
    }
    if (p_.dropout.threshold != 0) {
      // Dropout's groups begin at multiples of their size.
      const int64_t aligned = first / kKeyGroup * kKeyGroup;
      const int64_t group = sequence_->index * p_.heads + head(r);
      dropout_row(p_, group, query(r), aligned, first - aligned + count, keeps_);
      for (int64_t i = 0; i < count; ++i) row[i] *= keeps_[first - aligned + i];
    }
    const A shrink = exp2_of(before - shift);
    sum(r) = sum(r) * shrink +
             at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return a + b; }, total);
    if (before != now) {
      for (int64_t i = 0; i < p_.value_dim; ++i) out(r)[i] *= shrink;
    }
  }

  // With a bias, values behind a weight of 0 in all rows may be NaN and are not read.
  void find_seen(int64_t count) {
    std::memset(seen_, p_.bias_kind == BiasKind::kNone, size_t(count));
    if (p_.bias_kind == BiasKind::kNone) return;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t i = 0; i < count; ++i) seen_[i] |= scores_[r * kKeys + i] != A(0);
    }
  }

  template <int kCount>
  void add_values(const KeyRows<T>& keys, int64_t r, int64_t first, int64_t count) {
    int64_t d = 0;
    constexpr int kWide = kStrip<kCount>;
    for (; d + kWide * kLanes<T> <= p_.value_dim; d += kWide * kLanes<T>) {
      add_strip<kCount, kWide>(keys, r, first, count, d, kLanes<T>);
    }
    for (; d + 2 * kLanes<T> <= p_.value_dim; d += 2 * kLanes<T>) {
      add_strip<kCount, 2>(keys, r, first, count, d, kLanes<T>);
    }
    for (; d < p_.value_dim; d += kLanes<T>) {
      add_strip<kCount, 1>(keys, r, first, count, d, min_of(kLanes<T>, p_.value_dim - d));
    }
  }

  template <int kCount, int kVectors>
  void add_strip(const KeyRows<T>& keys, int64_t r, int64_t first, int64_t count, int64_t d,
                 int64_t lanes) {
    V sums[kCount][kVectors];
    for (int q = 0; q < kCount; ++q) {
      for (int v = 0; v < kVectors; ++v) {
        sums[q][v] = load_lanes(out(r + q) + d + v * kLanes<T>, lanes);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      if (!seen_[i]) continue;
      if (r == 0 && d == 0 && first + kKeys + i < last_) {
        fetch(keys.key(first + kKeys + i), p_.head_dim);
      }
      const T* value = keys.value(first + i) + d;
      V row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = load_lanes(value + v * kLanes<T>, lanes);
      for (int q = 0; q < kCount; ++q) {
        const V weight(scores_[(r + q) * kKeys + i]);
        for (int v = 0; v < kVectors; ++v) {
          sums[q][v] = at::vec::fmadd(weight, row[v], sums[q][v]);
        }
      }
    }
    for (int q = 0; q < kCount; ++q) {
      for (int v = 0; v < kVectors; ++v) {
        store_lanes<A>(sums[q][v], out(r + q) + d + v * kLanes<T>, lanes);
      }
    }
  }

  const AttentionCpuParams& p_;
  const AttentionCpuSequence* sequence_ = nullptr;
  int64_t depth_, first_head_ = 0, rows_ = 0, last_ = 0;
  TileScratch scratch_;
  A* queries_;  // (kRows, depth)
  A* scores_;   // (kRows, kKeys)
  A* lanes_;    // (kTogether, lanes, lanes)
  A* keeps_;
  uint8_t* seen_;    // (kKeys,)
  A *own_, *total_;  // (kRows, value_dim + 2), (value_dim,): without partials
  A* out_ = nullptr;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(attention_decode)(const AttentionCpuParams& params, NextTask next,
                                             void* state) {
  dispatch_floating("flash_attention", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    DecodeTask<T> worker(params);
    for (int64_t task = next(state); task >= 0; task = next(state)) worker.run(task);
  });
}

void TILEWRIGHT_ON_MACHINE(attention_decode_merge)(const AttentionCpuParams& params, NextTask next,
                                                   void* state) {
  dispatch_floating("flash_attention", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    Buffer<A> total;
    total.resize(params.value_dim);
    for (int64_t item = next(state); item >= 0; item = next(state)) {
      const int64_t begin = params.items[item], count = params.items[item + 1] - begin;
      const int64_t size = params.decode_rows * (params.value_dim + 2);
      merge<T>(params, params.tasks[begin], static_cast<const A*>(params.partials) + begin * size,
               count, total.data());
    }
  });
}

}  // namespace tilewright
