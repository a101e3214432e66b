// The gradients of bias and slopes, from a row's gradients of scores.
#pragma once
#include "tilewright/attention/attention_cpu_gradients.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct OptionGradients {
  using A = Accumulate<T>;
  const AttentionCpuParams& p;
  const AttentionCpuSequence& sequence;
  int64_t split, head;  // of keys, of queries
  bool first_task;      // of its work item: nothing is in the bias's gradient yet

  // grads[i] is of key first + i; those of [from, end) are seen.
  void add(int64_t query, int64_t first, int64_t from, int64_t end, const A* grads) const {
    if (end <= from) return;
    if (p.grad_bias != nullptr) add_to_bias(query, first, from, end, grads);
    if (p.grad_slopes == nullptr) return;
    const int64_t center = query + p.window.offset(sequence.q_len, sequence.k_len) - first;
    double sum = 0;
    for (int64_t i = from; i < end; ++i) {
      sum -= double(center < i ? i - center : center - i) * double(grads[i]);
    }
    p.grad_slopes[(split * p.batch + sequence.index) * p.heads + head] += sum;
  }

 private:
  void add_to_bias(int64_t query, int64_t first, int64_t from, int64_t end, const A* grads) const {
    const int64_t row = split * p.grad_bias_split + sequence.index * p.grad_bias_strides[0] +
                        head * p.grad_bias_strides[1] + query * p.grad_bias_strides[2];
    if (p.grad_bias_as_input) {
      convert_row(grads + from, static_cast<T*>(p.grad_bias) + row + first + from, end - from);
      return;
    }
    A* to = static_cast<A*>(p.grad_bias) + row;
    const bool first_head = head % (p.heads / p.kv_heads) == 0;
    if (p.assign_grad_bias && first_task && (first_head || p.grad_bias_strides[1] != 0)) {
      std::memcpy(to + first + from, grads + from, size_t(end - from) * sizeof(A));
    } else if (p.grad_bias_strides[3] != 0) {
      add_rows(to + first + from, grads + from, end - from);
    } else {
      *to += row_sum(grads + from, end - from);
    }
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
