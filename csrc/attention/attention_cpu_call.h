// A call of attention's CPU kernels: tensors to pointers and sizes, and how the work is cut. Serves
// dense, packed and paged tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/attention/attention_args.h"
#include "tilewright/attention/attention_cpu.h"

namespace tilewright {

class AttentionCpuCall {
 public:
  AttentionCpuCall(const AttentionArgs& args, const at::Tensor& query, int64_t head_dim);

  // (B, H, S, D) tensors, each with unit stride.
  void set_dense(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                 const at::Tensor& out, const at::Tensor& lse);
  // (T, H, D) tensors and the first rows of the sequences, as int64 on the host.
  void set_packed(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                  const at::Tensor& out, const at::Tensor& lse, const at::Tensor& cu_seqlens_q,
                  const at::Tensor& cu_seqlens_k);
  // Caches (pages, page, Hk, D) in place of keys and values.
  void set_paged(const at::Tensor& query, const at::Tensor& key_cache,
                 const at::Tensor& value_cache, const at::Tensor& out, const at::Tensor& lse,
                 const at::Tensor& block_table, const at::Tensor& cache_seqlens);
  void set_extras(const AttentionExtras& extras);
  // After set_*; tensors laid out as for set_*. grad_lse may be undefined.
  void set_gradients(const at::Tensor& grad_out, const at::Tensor& grad_lse,
                     const at::Tensor& grad_query, const at::Tensor& grad_key,
                     const at::Tensor& grad_value);

  void run_forward();
  // Writes the gradients of query, key and value; returns those of bias, alibi_slopes and sinks,
  // (0,) where not needed.
  std::array<at::Tensor, 3> run_backward(const ExtraNeeds& needs);

 private:
  // Strides of a tensor whose dimensions are (.., head, row, ..) or (.., row, head, ..).
  static RowStrides strides_of(const at::Tensor& tensor, int64_t row_dim, int64_t head_dim);
  void set_sizes(int64_t batch, int64_t heads, int64_t kv_heads, const at::Tensor& value);
  void add_forward_tasks();
  void add_decode_tasks();
  void add_backward_tasks(bool bias_is_matrix);
  int64_t products() const;
  at::Tensor sum_in_order(const at::Tensor& parts, at::IntArrayRef sizes);
  void add_query_parts(const at::Tensor& parts);
  template <class Kernel>
  void run(int64_t count, Kernel kernel);

  at::Tensor keep(const at::Tensor& tensor) {
    kept_.push_back(tensor);
    return tensor;
  }

  AttentionArgs args_;
  AttentionCpuParams params_{};
  AttentionExtras extras_;
  bool packed_ = false;
  at::Tensor grad_query_, grad_key_, grad_value_;
  at::TensorOptions accumulate_options_;
  std::vector<AttentionCpuSequence> sequences_;
  std::vector<int64_t> first_rows_;  // of each sequence's queries
  std::vector<AttentionCpuTask> tasks_;
  std::vector<int64_t> items_;
  std::vector<at::Tensor> kept_;
};

}  // namespace tilewright
