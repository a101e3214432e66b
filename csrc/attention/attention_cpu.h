// What the CPU kernels of attention are called with: raw pointers, sizes, options.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/attention/attention_math.h"
#include "tilewright/core/cpu/isa.h"

namespace tilewright {

struct RowStrides {
  int64_t row, head;  // in elements; neighbours in a row are next to each other
};

// One sequence of a batch: pointers to its first row of head 0.
struct AttentionCpuSequence {
  const void *query, *key, *value;
  void *out, *lse;
  int64_t q_len, k_len;
  int64_t index;         // in the batch
  const int32_t* pages;  // where its keys and values lie in pages, else null
  // Backward only.
  const void* grad_out;
  const void* grad_lse;  // or null
  void *grad_query, *grad_key, *grad_value;
};

// A share of the work that one thread does from beginning to end. Shares depend on shapes alone.
struct AttentionCpuTask {
  int32_t sequence, kv_head;
  // Forward: blocks of query rows [first, last), counted over the query heads of the group.
  // Backward: blocks of keys, first to last in steps, where `first` is the split.
  int32_t first, last, step;
};

struct AttentionCpuParams {
  c10::ScalarType dtype;
  const AttentionCpuSequence* sequences;
  const AttentionCpuTask* tasks;
  // Work item i is the tasks [items[i], items[i + 1]), done one after the other.
  const int64_t* items;
  int64_t batch, heads, kv_heads, head_dim, value_dim;
  RowStrides query, key, value, out;
  int64_t lse_head;   // stride of a head in lse and grad_lse, whose rows are next to each other
  int64_t page_size;  // rows of a page, and how far pages lie apart
  int64_t key_page, value_page;
  AttentionWindow window;
  double scale, softcap;
  const void* slopes;  // in the accumulation type; null: none
  int64_t slopes_batch;
  const void* sinks;  // (H,), in the accumulation type; null: none
  BiasKind bias_kind;
  const void* bias;
  int64_t bias_strides[4];  // batch, head, query, key; 0 where it broadcasts, the last 0 or 1
  AttentionDropout dropout;
  double dropout_scale;  // 1 / (1 - p)

  // Decoding: (tasks, decode_rows, value_dim + 2) in the accumulation type: sums of values,
  // maximum, sum. Null where each item is one task, which then writes the results itself.
  void* partials;
  int64_t decode_rows;  // the most query rows of a task

  // Backward.
  RowStrides grad_out, grad_query, grad_key, grad_value;
  int64_t most_key_blocks;  // of a task
  int64_t splits;           // of a sequence's keys; 1: gradients of queries go where they belong
  // (splits, total) in the accumulation type, where splits > 1: query gradients of a sequence and
  // head begin at (index of its first row * heads + head * q_len) * head_dim.
  void* query_parts;
  int64_t query_parts_total;
  const int64_t* first_rows;  // of each sequence, among all query rows
  // Null where not asked for. In the accumulation type, or in the tensors' where
  // grad_bias_as_input: there each element is written once, and is not a sum. Zeros, but where
  // assign_grad_bias: there it is a matrix whose every element the first task of an item writes.
  // Strides as bias has; what strides of 0 share lies within a work item.
  void* grad_bias;
  int64_t grad_bias_strides[4];
  int64_t grad_bias_split;
  bool grad_bias_as_input, assign_grad_bias;
  // (splits, batch, heads), zeros; null where not asked for.
  double* grad_slopes;
};

// Sizes of the tiles, which say what a task is.
inline constexpr int64_t kAttentionQueryBlock = 64;
inline constexpr int64_t kAttentionKeyBlock = 256;
// The most blocks of queries of a forward task.
inline constexpr int64_t kAttentionTaskBlocks = 16;

// One work item after the other, as `next` hands them out, until it returns a negative number: a
// thread keeps its tiles in one piece of memory over all its work.
using NextTask = int64_t (*)(void* state);
TILEWRIGHT_CPU_KERNEL(attention_forward,
                      void(const AttentionCpuParams&, NextTask next, void* state))
TILEWRIGHT_CPU_KERNEL(attention_backward,
                      void(const AttentionCpuParams&, NextTask next, void* state))

// A few query rows against many keys: a task is a run of keys [first, last) of one head of keys,
// and writes a partial result for all its queries; then each item is merged from its tasks'
// results. At most so many query rows.
inline constexpr int64_t kAttentionDecodeRows = 16;
TILEWRIGHT_CPU_KERNEL(attention_decode, void(const AttentionCpuParams&, NextTask next, void* state))
TILEWRIGHT_CPU_KERNEL(attention_decode_merge,
                      void(const AttentionCpuParams&, NextTask next, void* state))

}  // namespace tilewright
