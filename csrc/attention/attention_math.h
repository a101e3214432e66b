// The definition of attention's scores, for every machine: which keys a query sees, what turns a
// product into a score, which probabilities dropout keeps.
//
//   s = scale * q.k;  softcap > 0: s = softcap * tanh(s / softcap);  s -= slope * |i + o - j|;
//   s += bias;  then the window, in which o = k_len - q_len (top_left: 0).
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "tilewright/core/log2.h"
#include "tilewright/core/math.h"
#include "tilewright/core/philox.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A finite bias in powers of 2: those beyond 2.36e38, as finfo(float32).min is, stay finite. NaN
// stays NaN.
template <class A>
TILEWRIGHT_HD A bias_log2(A bias) {
  constexpr A kMost = std::numeric_limits<A>::max();
  return min_of(max_of(bias * A(kLog2E), -kMost), kMost);
}

// kInput: of the tensors' dtype.
enum class BiasKind : int { kNone, kBool, kInput, kFloat };

struct KeyRange {
  int64_t begin, end;  // empty where end <= begin
};

// Query i sees key j if j <= i + o (where causal) and i + o - left <= j <= i + o + right (each
// unlimited where -1). Both ends of the range grow with i, so queries [a, b) together see no key
// outside [keys(a).begin, keys(b - 1).end), and, within it, each key is seen by one of them.
struct AttentionWindow {
  bool causal, top_left;
  int64_t left, right;

  TILEWRIGHT_HD bool limited() const { return causal || left >= 0 || right >= 0; }
  TILEWRIGHT_HD int64_t offset(int64_t q_len, int64_t k_len) const {
    return top_left ? 0 : k_len - q_len;
  }
  TILEWRIGHT_HD KeyRange keys(int64_t query, int64_t q_len, int64_t k_len) const {
    const int64_t center = query + offset(q_len, k_len);
    int64_t begin = 0, end = k_len;
    if (left >= 0 && center > left) begin = min_of(center - left, k_len);
    if (right >= 0) end = min_of(end, center + right + 1);
    if (causal) end = min_of(end, center + 1);
    return {begin, max_of(begin, end)};
  }
  // The queries that see a key, the other way round.
  TILEWRIGHT_HD KeyRange queries(int64_t key, int64_t q_len, int64_t k_len) const {
    const int64_t center = key - offset(q_len, k_len);
    int64_t begin = 0, end = q_len;
    if (right >= 0 && center > right) begin = min_of(center - right, q_len);
    if (causal && center > begin) begin = min_of(center, q_len);
    if (left >= 0) end = min_of(end, center + left + 1);
    return {begin, max_of(begin, end)};
  }
};

// The bits of dropout at 64 neighbouring keys of one query come from 16 counters of four words:
// key j has word (j / 16) % 4 of counter 16 * (j / 64) + j % 16.
struct AttentionDropout {
  uint64_t seed;
  uint32_t offset, threshold;  // a word below the threshold drops its key; 0: no dropout

  TILEWRIGHT_HD static uint32_t counter_of(int64_t key) {
    return uint32_t(key / 64 * 16 + key % 16);
  }
  TILEWRIGHT_HD static int word_of(int64_t key) { return int(key / 16 % 4); }
  // `head` counts over the batch: b * heads + h.
  TILEWRIGHT_HD Philox words(int64_t head, int64_t query, uint32_t counter) const {
    return philox(counter, uint32_t(query), uint32_t(head), offset, seed);
  }
  TILEWRIGHT_HD bool keeps(int64_t head, int64_t query, int64_t key) const {
    return words(head, query, counter_of(key)).word[word_of(key)] >= threshold;
  }
};

// p * 2^32, for 0 <= p < 1.
inline uint32_t dropout_threshold(double p) {
  const double scaled = std::ceil(p * 4294967296.0);
  return scaled >= 4294967295.0 ? 0xffffffffu : uint32_t(scaled);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
