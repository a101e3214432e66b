// One row of scores at a time: from products to scores, to probabilities, and back to the gradients
// of products. Scores are kept times log2(e), so that probabilities are powers of 2.
#pragma once
#include <limits>

#include "tilewright/attention/attention_cpu.h"
#include "tilewright/core/cpu/exp2.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class A>
inline constexpr A kMinusInfinity = -std::numeric_limits<A>::infinity();

// Rows are whole groups of so many keys; dropout's counters serve as many.
inline constexpr int64_t kKeyGroup = 64;

// What turns products into scores, of one query head of one sequence. T: of the tensors, A: of
// sums.
template <class T, class A>
struct ScoreRules {
  const AttentionCpuParams* params;
  const AttentionCpuSequence* sequence;
  int64_t head;  // of queries
  A scale, softcap, slope;
  const char* bias;  // of this sequence and head
  // Whether there is more to a score than a positive factor.
  bool general;

  ScoreRules(const AttentionCpuParams& p, const AttentionCpuSequence& s, int64_t h)
      : params(&p), sequence(&s), head(h), scale(A(p.scale)), softcap(A(p.softcap)) {
    const auto* slopes = static_cast<const A*>(p.slopes);
    slope = slopes == nullptr ? A(0) : slopes[s.index * p.slopes_batch + h];
    const int64_t size = p.bias_kind == BiasKind::kBool    ? 1
                         : p.bias_kind == BiasKind::kFloat ? int64_t(sizeof(float))
                                                           : int64_t(sizeof(T));
    bias = static_cast<const char*>(p.bias) +
           size * (s.index * p.bias_strides[0] + h * p.bias_strides[1]);
    general = p.softcap > 0 || slopes != nullptr || p.bias_kind != BiasKind::kNone || !(scale > 0);
  }

  // Factor of the row's values on the way to powers of 2.
  A factor() const { return general ? A(1) : scale * A(kLog2E); }
  KeyRange keys(int64_t query) const {
    return params->window.keys(query, sequence->q_len, sequence->k_len);
  }
  bool bias_keeps(int64_t query, int64_t key) const {
    const int64_t at = query * params->bias_strides[2] + key * params->bias_strides[3];
    switch (params->bias_kind) {
      case BiasKind::kNone: return true;
      case BiasKind::kBool: return reinterpret_cast<const bool*>(bias)[at];
      case BiasKind::kFloat:
        return reinterpret_cast<const float*>(bias)[at] > kMinusInfinity<float>;
      default: return A(reinterpret_cast<const T*>(bias)[at]) > kMinusInfinity<A>;
    }
  }
};

// The row's keys outside [begin, end) are not seen.
template <class A>
inline void mask_row(A* row, int64_t count, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < min_of(begin, count); ++i) row[i] = kMinusInfinity<A>;
  for (int64_t i = max_of(end, int64_t(0)); i < count; ++i) row[i] = kMinusInfinity<A>;
}

// row = factor * row + bias, in powers of 2.
template <class A, class B>
inline void add_bias(A* row, A factor, const B* bias, int64_t stride, int64_t count) {
  // -inf hides whatever stands there, NaN too.
  const auto add = [&](int64_t i, A value) {
    row[i] = value == kMinusInfinity<A> ? value : row[i] * factor + bias_log2(value);
  };
  if (stride == 0) {
    for (int64_t i = 0; i < count; ++i) add(i, A(*bias));
  } else if constexpr (std::is_same_v<A, Accumulate<B>>) {
    const Vec<B> infinite(kMinusInfinity<A>), scale(factor), log2e{A(kLog2E)};
    const Vec<B> greatest(std::numeric_limits<A>::max()), least(-std::numeric_limits<A>::max());
    for (int64_t i = 0; i < count; i += kLanes<B>) {
      const int64_t lanes = min_of(kLanes<B>, count - i);
      const Vec<B> value = load_lanes(bias + i, lanes);
      // bias_log2() of each lane.
      const Vec<B> added = min_of(max_of(value * log2e, least), greatest);
      const Vec<B> sum = at::vec::fmadd(Vec<B>::loadu(row + i), scale, added);
      Vec<B>::blendv(sum, infinite, value == infinite).store(row + i);
    }
  } else {  // float beside double
    for (int64_t i = 0; i < count; ++i) add(i, A(bias[i]));
  }
}

template <class A>
inline void add_bias(A* row, A factor, const bool* keeps, int64_t stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    row[i] = keeps[i * stride] ? row[i] * factor : kMinusInfinity<A>;
  }
}

// Products of one query with the keys [first, first + count) become scores. Keys from `count` on
// are left as they are. `derivative`, where not null, gets d score / d product over scale.
template <class T, class A>
inline void score_row(const ScoreRules<T, A>& rules, int64_t query, int64_t first, int64_t count,
                      A* row, A* derivative) {
  using V = at::vec::Vectorized<A>;
  constexpr int64_t kStep = V::size();
  const AttentionCpuParams& params = *rules.params;
  A factor = rules.scale * A(kLog2E);  // of what stands in the row, on the way to powers of 2
  if (rules.softcap > 0) {
    const V cap(rules.softcap * A(kLog2E)), inverse(rules.scale / rules.softcap);
    for (int64_t i = 0; i < count; i += kStep) {
      const V bent = (V::loadu(row + i) * inverse).tanh();
      (bent * cap).store(row + i);
      if (derivative != nullptr) (V(A(1)) - bent * bent).store(derivative + i);
    }
    factor = A(1);
  }
  if (params.slopes != nullptr) {
    const A center =
        A(query + params.window.offset(rules.sequence->q_len, rules.sequence->k_len) - first);
    const V slope(-rules.slope * A(kLog2E));
    for (int64_t i = 0; i < count; i += kStep) {
      const V distance = (V(center) - V::arange(A(i), A(1))).abs();
      at::vec::fmadd(slope, distance, V::loadu(row + i) * V(factor)).store(row + i);
    }
    factor = A(1);
  }
  const int64_t stride = params.bias_strides[3];
  const int64_t at = query * params.bias_strides[2] + first * stride;
  switch (params.bias_kind) {
    case BiasKind::kNone:
      if (factor != A(1)) {
        for (int64_t i = 0; i < count; i += kStep) (V::loadu(row + i) * V(factor)).store(row + i);
      }
      break;
    case BiasKind::kBool:
      add_bias(row, factor, reinterpret_cast<const bool*>(rules.bias) + at, stride, count);
      break;
    case BiasKind::kFloat:
      add_bias(row, factor, reinterpret_cast<const float*>(rules.bias) + at, stride, count);
      break;
    case BiasKind::kInput:
      add_bias(row, factor, reinterpret_cast<const T*>(rules.bias) + at, stride, count);
      break;
  }
}

template <class A>
inline A row_max(const A* row, int64_t count) {
  using V = at::vec::Vectorized<A>;
  V most = V::loadu(row);
  for (int64_t i = V::size(); i < count; i += V::size()) {
    most = max_of(most, V::loadu(row + i));
  }
  return at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return max_of(a, b); }, most);
}

// What dropout leaves of each of `count` keys' probabilities: 0 or 1 / (1 - p).
template <class A>
inline void dropout_row(const AttentionCpuParams& params, int64_t head, int64_t query,
                        int64_t first, int64_t count, A* keeps) {
  constexpr int kCounters = 16;
  const A scale = A(params.dropout_scale);
  const uint32_t threshold = params.dropout.threshold;
  for (int64_t group = 0; group < count; group += kKeyGroup) {
    uint32_t words[4][kCounters];
    for (int lane = 0; lane < kCounters; ++lane) {
      const Philox random = params.dropout.words(
          head, query, AttentionDropout::counter_of(first + group) + uint32_t(lane));
      for (int word = 0; word < 4; ++word) words[word][lane] = random.word[word];
    }
    for (int word = 0; word < 4; ++word) {
      for (int lane = 0; lane < kCounters; ++lane) {
        keeps[group + word * kCounters + lane] = words[word][lane] >= threshold ? scale : A(0);
      }
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
