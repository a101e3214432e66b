// Partial results over runs of keys become rows of out and lse.
#pragma once
#include <algorithm>

#include "tilewright/attention/attention_cpu_rows.h"
#include "tilewright/core/cpu/tile_pack.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// `count` partial results of one group of query heads become its rows of out and lse. task: any of
// the item's; total: (value_dim,), of which nothing is kept.
template <class T>
inline void merge(const AttentionCpuParams& p, const AttentionCpuTask& task,
                  const Accumulate<T>* parts, int64_t count, Accumulate<T>* total) {
  using A = Accumulate<T>;
  const AttentionCpuSequence& s = p.sequences[task.sequence];
  const int64_t group = p.heads / p.kv_heads, width = p.value_dim + 2;
  for (int64_t r = 0; r < group * s.q_len; ++r) {
    const int64_t head = task.kv_head * group + r / s.q_len, query = r % s.q_len;
    const auto part = [&](int64_t i) { return parts + (i * p.decode_rows + r) * width; };
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    if (p.sinks != nullptr) {
      most = static_cast<const A*>(p.sinks)[head] * kLog2E;
      sum = most == -std::numeric_limits<double>::infinity() ? 0 : 1;
    }
    const double sink = most;
    for (int64_t i = 0; i < count; ++i) most = max_of(most, double(part(i)[p.value_dim]));
    // Parts that saw no key weigh 2^-inf; so do those whose scores were all NaN, and 0 NaN is NaN.
    const double base = most == -std::numeric_limits<double>::infinity() ? 0 : most;
    sum *= exp2_of(sink - base);
    std::fill(total, total + p.value_dim, A(0));
    for (int64_t i = 0; i < count; ++i) {
      const double share = exp2_of(double(part(i)[p.value_dim]) - base);
      sum += share * part(i)[p.value_dim + 1];
      for (int64_t d = 0; d < p.value_dim; ++d) total[d] += A(share) * part(i)[d];
    }
    for (int64_t d = 0; d < p.value_dim; ++d) total[d] = sum == 0 ? A(0) : total[d] / A(sum);
    convert_row(total, static_cast<T*>(s.out) + head * p.out.head + query * p.out.row, p.value_dim);
    static_cast<A*>(s.lse)[head * p.lse_head + query] =
        sum == 0 ? kMinusInfinity<A> : A((most + std::log2(sum)) * kLn2);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
