// What attention's kernels are given, and where a block finds its sequence in it.
#pragma once
#include "tilewright/attention/attention_math.h"
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kAttentionWarps = 4;
inline constexpr int kAttentionThreads = kAttentionWarps * 32;
// Queries and keys of a tile of scores in the kernels that take every option: 16 queries per warp,
// and as many keys as 16 counters of dropout serve.
inline constexpr int kTileQueries = 64;
inline constexpr int kTileKeys = 64;

// (batch, head, row, column), the last stride 1. Packed sequences have batch 0; of a cache of
// pages, batch is the page and row the row in it.
template <class T>
struct HeadRows {
  T* data;
  int64_t batch, head, row;  // strides
  TILEWRIGHT_HD T* at(int64_t b, int64_t h, int64_t r) const {
    return data + b * batch + h * head + r * row;
  }
};

template <class T>
struct AttentionParams {
  using Acc = accumulate_t<T>;

  HeadRows<const T> query, key, value;
  HeadRows<T> out;
  int batch, heads, group;  // group: query heads of one key head
  int q_len, k_len;         // of every sequence, or the most that one may have
  int head_dim, value_dim;
  int capability;  // of the GPU: 10 * major + minor
  // Copies of 16 bytes may read the rows; pairs may be written.
  bool aligned, pairs;
  // Rows of a tile are the queries of all heads of a group: row = query * group + head.
  bool packs_group;

  AttentionWindow window;
  Acc scale, softcap;
  bool tf32;  // products of float32 on tensor cores

  // Packed sequences: rows [cu[b], cu[b + 1]) of total; null without.
  const int *cu_q, *cu_k;
  int total_q, total_k;
  // Pages: row j of sequence b is row j % page_size of page table[b * max_pages + j / page_size].
  const int *table, *lengths;
  int pages, max_pages, page_size;

  const void* bias;
  BiasKind bias_kind;
  int64_t bias_batch, bias_head, bias_row, bias_column;  // strides, 0 where it broadcasts
  const Acc* slopes;                                     // null without
  int64_t slopes_batch;
  const Acc* sinks;
  const int64_t* rng_state;  // null without dropout
  uint32_t dropout_threshold;
  Acc keep_scale;  // 1 / (1 - dropout_p)

  Acc* lse;
  int64_t lse_batch, lse_head;  // strides of lse, of delta and of grad_lse
  // Of splits > 1: (splits, batch, heads, q_len, value_dim) and (splits, batch, heads, q_len).
  int splits;
  Acc *partial_out, *partial_lse;

  // The backward's; lse_log2 and delta have lse's strides.
  HeadRows<const T> grad_out, saved_out;
  HeadRows<T> grad_query, grad_key, grad_value;
  const Acc *saved_lse, *grad_lse;  // grad_lse: null without
  Acc *lse_log2, *delta;
  Acc* slope_partials;  // (batch, heads, tiles of queries); null unless asked for
  Acc* score_sums;      // of each query, the derivatives by its scores; null unless asked for
  // The bias's gradient, contiguous; a size is 1 where the bias broadcasts.
  void* grad_bias;
  int bias_sizes[4];

  TILEWRIGHT_HD int kv_heads() const { return heads / group; }
  TILEWRIGHT_HD int64_t lse_at(int b, int head, int64_t row) const {
    return b * lse_batch + head * lse_head + row;
  }
};

// One sequence of the batch, cut to what lies within the tensors.
struct AttentionSequence {
  int batch, q_len, k_len;
  int64_t q_row, k_row;  // its first rows in packed tensors

  TILEWRIGHT_HD int64_t tensor_batch(bool packed) const { return packed ? 0 : batch; }
};

// The part of [0, total) between two offsets that nobody has checked, no longer than `most`.
TILEWRIGHT_DEVICE KeyRange clip_rows(const int* cu, int batch, int total, int most) {
  const int begin = max_of(0, min_of(ldg(cu + batch), total));
  const int end = max_of(begin, min_of(ldg(cu + batch + 1), total));
  return {begin, min_of(int64_t(end), int64_t(begin) + most)};
}

template <class T>
TILEWRIGHT_DEVICE AttentionSequence sequence_of(const AttentionParams<T>& p, int batch) {
  AttentionSequence found{batch, p.q_len, p.k_len, 0, 0};
  if (p.cu_q) {
    const KeyRange q = clip_rows(p.cu_q, batch, p.total_q, p.q_len);
    const KeyRange k = clip_rows(p.cu_k, batch, p.total_k, p.k_len);
    found.q_row = q.begin, found.q_len = int(q.end - q.begin);
    found.k_row = k.begin, found.k_len = int(k.end - k.begin);
  }
  if (p.lengths) found.k_len = max_of(0, min_of(ldg(p.lengths + batch), p.k_len));
  return found;
}

// A row of a tensor with query's rows.
template <class T, class U>
TILEWRIGHT_DEVICE U* query_row(const AttentionParams<T>& p, const HeadRows<U>& rows,
                               const AttentionSequence& seq, int head, int i) {
  return rows.at(seq.tensor_batch(p.cu_q), head, seq.q_row + i);
}
// A row of key, value or their gradients; null where a page does not exist.
template <class T, class U>
TILEWRIGHT_DEVICE U* key_row(const AttentionParams<T>& p, const HeadRows<U>& rows,
                             const AttentionSequence& seq, int head, int j) {
  if (p.table) {
    const int page = ldg(p.table + int64_t(seq.batch) * p.max_pages + j / p.page_size);
    if (unsigned(page) >= unsigned(p.pages)) return nullptr;
    return rows.at(page, head, j % p.page_size);
  }
  return rows.at(seq.tensor_batch(p.cu_k), head, seq.k_row + j);
}

struct IntRange {
  int begin, end;
};
template <class T>
TILEWRIGHT_DEVICE IntRange keys_of(const AttentionParams<T>& p, const AttentionSequence& seq,
                                   int i) {
  if (i >= seq.q_len) return {0, 0};
  const KeyRange keys = p.window.keys(i, seq.q_len, seq.k_len);
  return {int(keys.begin), int(keys.end)};
}
template <class T>
TILEWRIGHT_DEVICE IntRange queries_of(const AttentionParams<T>& p, const AttentionSequence& seq,
                                      int j) {
  if (j >= seq.k_len) return {0, 0};
  const KeyRange queries = p.window.queries(j, seq.q_len, seq.k_len);
  return {int(queries.begin), int(queries.end)};
}
// The keys that any of the queries [first, last] sees, and the queries that see any of the keys.
template <class T>
TILEWRIGHT_DEVICE IntRange keys_of_tile(const AttentionParams<T>& p, const AttentionSequence& seq,
                                        int first, int last) {
  return {keys_of(p, seq, first).begin, keys_of(p, seq, last).end};
}
template <class T>
TILEWRIGHT_DEVICE IntRange queries_of_tile(const AttentionParams<T>& p,
                                           const AttentionSequence& seq, int first, int last) {
  return {queries_of(p, seq, first).begin, queries_of(p, seq, last).end};
}

// Coordinates of a block in a grid of one dimension, the first fastest.
class BlockCursor {
 public:
  TILEWRIGHT_DEVICE BlockCursor() : rest_(blockIdx.x) {}
  TILEWRIGHT_DEVICE int next(int size) {
    const unsigned taken = rest_ % unsigned(size);
    rest_ /= unsigned(size);
    return int(taken);
  }

 private:
  unsigned rest_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
