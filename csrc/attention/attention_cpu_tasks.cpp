// How attention's work is cut into tasks, by shapes alone, and done by the threads at hand.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "tilewright/attention/attention_cpu_call.h"
#include "tilewright/core/huge_pages.h"

namespace tilewright {
namespace {

// Enough tasks for many threads, as long as each has this much to do.
constexpr int64_t kWantedTasks = 32;
constexpr int64_t kLeastTaskBlocks = 4, kLeastDecodeBlocks = 4;
// Products of a query with a key below which a second thread costs more than it brings.
constexpr int64_t kLeastParallel = 16384;
// Splits of the keys of one sequence and head, each of which holds gradients of all queries.
constexpr int64_t kMostSplits = 8, kWantedItems = 16;

struct Queue {
  std::atomic<int64_t> taken{0};
  int64_t count;
  static int64_t next(void* state) {
    auto* queue = static_cast<Queue*>(state);
    const int64_t item = queue->taken.fetch_add(1, std::memory_order_relaxed);
    return item < queue->count ? item : -1;
  }
};

}  // namespace

int64_t AttentionCpuCall::products() const {
  int64_t sum = 0;
  for (const auto& s : sequences_) sum += params_.heads * s.q_len * s.k_len;
  return sum;
}

template <class Kernel>
void AttentionCpuCall::run(int64_t count, Kernel kernel) {
  params_.sequences = sequences_.data();
  params_.tasks = tasks_.data();
  params_.items = items_.data();
  params_.first_rows = first_rows_.data();
  Queue queue;
  queue.count = count;
  const int64_t threads = products() < kLeastParallel ? 1 : at::get_num_threads();
  at::parallel_for(0, std::min(threads, count), 1,
                   [&](int64_t, int64_t) { kernel(params_, &Queue::next, &queue); });
}

void AttentionCpuCall::add_forward_tasks() {
  const int64_t group = params_.heads / params_.kv_heads;
  const auto row_blocks = [](const AttentionCpuSequence& s) {
    return (s.q_len + kAttentionQueryBlock - 1) / kAttentionQueryBlock;
  };
  int64_t total = 0;
  for (const auto& s : sequences_) total += params_.heads * row_blocks(s);
  // Tiles of large heads are kept in the cache by fewer rows.
  const int64_t size = std::max({params_.head_dim, params_.value_dim, int64_t(64)});
  const int64_t most = std::max(kAttentionTaskBlocks * 64 / size, kLeastTaskBlocks);
  const int64_t blocks = std::clamp(total / kWantedTasks, kLeastTaskBlocks, most);
  for (const auto& s : sequences_) {
    const int64_t all = group * row_blocks(s);
    for (int64_t head = 0; head < params_.kv_heads; ++head) {
      // From the end: with a causal mask that is where most of the work is.
      for (int64_t last = all; last > 0; last -= blocks) {
        items_.push_back(int64_t(tasks_.size()));
        tasks_.push_back({int32_t(&s - sequences_.data()), int32_t(head),
                          int32_t(std::max(last - blocks, int64_t(0))), int32_t(last), 1});
      }
    }
  }
  items_.push_back(int64_t(tasks_.size()));
}

void AttentionCpuCall::add_decode_tasks() {
  int64_t keys = 0;
  for (const auto& s : sequences_) keys += params_.kv_heads * s.k_len;
  const int64_t blocks = keys / kAttentionKeyBlock / kWantedTasks;
  const int64_t run = std::max(blocks, kLeastDecodeBlocks) * kAttentionKeyBlock;
  for (const auto& s : sequences_) {
    if (s.q_len == 0) continue;
    for (int64_t head = 0; head < params_.kv_heads; ++head) {
      items_.push_back(int64_t(tasks_.size()));
      int64_t first = 0;
      do {
        const int64_t last = std::min(first + run, s.k_len);
        tasks_.push_back(
            {int32_t(&s - sequences_.data()), int32_t(head), int32_t(first), int32_t(last), 1});
        first = last;
      } while (first < s.k_len);
    }
  }
  items_.push_back(int64_t(tasks_.size()));
}

void AttentionCpuCall::run_forward() {
  if (sequences_.empty() || params_.heads == 0) return;
  int64_t most_queries = 0;
  for (const auto& s : sequences_) most_queries = std::max(most_queries, s.q_len);
  params_.decode_rows = most_queries * (params_.heads / params_.kv_heads);
  if (params_.decode_rows <= kAttentionDecodeRows) {
    add_decode_tasks();
    const int64_t tasks = int64_t(tasks_.size()), items = int64_t(items_.size()) - 1;
    at::Tensor partials;
    if (tasks > items) {
      partials =
          at::empty({tasks, params_.decode_rows, params_.value_dim + 2}, accumulate_options_);
      params_.partials = partials.mutable_data_ptr();
    }
    run(tasks, [](auto&&... a) { attention_decode(a...); });
    if (tasks > items) run(items, [](auto&&... a) { attention_decode_merge(a...); });
    return;
  }
  add_forward_tasks();
  run(int64_t(items_.size()) - 1, [](auto&&... a) { attention_forward(a...); });
}

void AttentionCpuCall::add_backward_tasks(bool bias_is_matrix) {
  const int64_t batch = params_.batch, kv_heads = params_.kv_heads;
  // A bias with both dimensions is summed in place over what shares it: one after the other.
  const bool over_batch = bias_is_matrix && params_.grad_bias_strides[0] == 0;
  const bool over_heads = bias_is_matrix && params_.grad_bias_strides[1] == 0;
  const int64_t chains = (over_batch ? 1 : batch) * (over_heads ? 1 : kv_heads);
  int64_t most_keys = 0;
  for (const auto& s : sequences_) most_keys = std::max(most_keys, s.k_len);
  const int64_t most_blocks = (most_keys + kAttentionKeyBlock - 1) / kAttentionKeyBlock;
  const int64_t wanted = (kWantedItems + chains - 1) / chains;
  params_.splits = std::max(std::min({wanted, kMostSplits, most_blocks}), int64_t(1));
  params_.most_key_blocks = (most_blocks + params_.splits - 1) / params_.splits;
  const auto add = [&](int64_t b, int64_t head, int64_t split) {
    const int64_t blocks = (sequences_[b].k_len + kAttentionKeyBlock - 1) / kAttentionKeyBlock;
    tasks_.push_back(
        {int32_t(b), int32_t(head), int32_t(split), int32_t(blocks), int32_t(params_.splits)});
  };
  for (int64_t outer_b = 0; outer_b < (over_batch ? 1 : batch); ++outer_b) {
    for (int64_t outer_h = 0; outer_h < (over_heads ? 1 : kv_heads); ++outer_h) {
      for (int64_t split = 0; split < params_.splits; ++split) {
        items_.push_back(int64_t(tasks_.size()));
        for (int64_t b = outer_b; b < (over_batch ? batch : outer_b + 1); ++b) {
          for (int64_t h = outer_h; h < (over_heads ? kv_heads : outer_h + 1); ++h) {
            add(b, h, split);
          }
        }
      }
    }
  }
  items_.push_back(int64_t(tasks_.size()));
}

std::array<at::Tensor, 3> AttentionCpuCall::run_backward(const ExtraNeeds& needs) {
  const at::Tensor none = at::empty({0}, accumulate_options_);
  std::array<at::Tensor, 3> found{none, none, none};
  const bool needs_bias = needs[0] && extras_.bias.numel() > 0;
  if (needs[0] && !needs_bias) found[0] = at::zeros(extras_.bias.sizes(), accumulate_options_);
  if (sequences_.empty() || params_.heads == 0) {
    if (needs_bias) found[0] = at::zeros(extras_.bias.sizes(), accumulate_options_);
    if (needs[1]) found[1] = at::zeros(extras_.alibi_slopes.sizes(), accumulate_options_);
    for (const at::Tensor& grad : {grad_key_, grad_value_}) grad.zero_();  // heads of no query
    return found;
  }
  const int64_t batch = params_.batch, heads = params_.heads;
  const int64_t q_len = sequences_[0].q_len, k_len = sequences_[0].k_len;
  // The gradient of bias: of its own shape where that is a matrix of queries and keys, else per
  // batch and head, and per split where it has no keys.
  const bool has_rows = needs_bias && params_.bias_strides[2] != 0;
  const bool has_keys = needs_bias && params_.bias_strides[3] != 0;
  const bool matrix = has_rows && has_keys;
  const auto shared = [&](int i) { return matrix && params_.bias_strides[i] == 0; };
  const int64_t bias_sizes[] = {shared(0) ? 1 : batch, shared(1) ? 1 : heads, has_rows ? q_len : 1,
                                has_keys ? k_len : 1};
  if (needs_bias) {
    int64_t stride = 1;
    for (int i = 3; i >= 0; --i) {
      const bool broadcast = (i == 2 && !has_rows) || (i == 3 && !has_keys) || (i < 2 && shared(i));
      params_.grad_bias_strides[i] = broadcast ? 0 : stride;
      stride *= bias_sizes[i];
    }
  }
  add_backward_tasks(matrix);
  const int64_t splits = params_.splits;
  const bool keys_are_split = !has_keys;
  const at::Tensor& query = kept_[0];
  at::Tensor grad_bias, grad_slopes, parts;
  if (needs_bias) {
    const auto has_all = [&](int i, int64_t size) {
      return size == 1 || params_.bias_strides[i] != 0;
    };
    params_.grad_bias_as_input = matrix && has_all(0, batch) && has_all(1, heads) &&
                                 extras_.bias.scalar_type() == query.scalar_type();
    grad_bias = at::empty(
        {keys_are_split ? splits : 1, bias_sizes[0], bias_sizes[1], bias_sizes[2], bias_sizes[3]},
        params_.grad_bias_as_input ? query.options() : accumulate_options_);
    prefer_huge_pages(grad_bias);
    params_.assign_grad_bias = matrix && !params_.window.limited();
    if (!params_.assign_grad_bias) grad_bias.zero_();
    params_.grad_bias = grad_bias.mutable_data_ptr();
    params_.grad_bias_split = keys_are_split ? grad_bias.stride(0) : 0;
  }
  if (needs[1]) {
    grad_slopes = at::zeros({splits, batch, heads}, accumulate_options_.dtype(at::kDouble));
    params_.grad_slopes = grad_slopes.mutable_data_ptr<double>();
  }
  if (splits > 1) {
    parts = at::empty({splits, query.numel() / params_.head_dim, params_.head_dim},
                      accumulate_options_);
    params_.query_parts = parts.mutable_data_ptr();
    params_.query_parts_total = parts.stride(0);
  }
  run(int64_t(items_.size()) - 1, [](auto&&... a) { attention_backward(a...); });
  if (splits > 1) add_query_parts(parts);
  if (needs_bias) {
    found[0] = matrix ? grad_bias.view(extras_.bias.sizes())
                      : sum_in_order(grad_bias, extras_.bias.sizes());
  }
  if (needs[1]) found[1] = sum_in_order(grad_slopes, extras_.alibi_slopes.sizes());
  return found;
}

// Element by element in the order of memory: the same bits whatever the number of threads.
at::Tensor AttentionCpuCall::sum_in_order(const at::Tensor& parts, at::IntArrayRef sizes) {
  const at::Tensor from = parts.to(at::kDouble);
  const at::Tensor sum = at::zeros(sizes, from.options());
  const at::Tensor to = sum.expand(from.sizes());
  const auto* values = from.const_data_ptr<double>();
  auto* sums = sum.mutable_data_ptr<double>();
  std::vector<int64_t> index(size_t(from.dim()), 0);
  int64_t at = 0;
  for (int64_t i = 0; i < from.numel(); ++i) {
    sums[at] += values[i];
    for (int64_t d = from.dim() - 1; d >= 0; --d) {
      at += to.stride(d);
      if (++index[d] < from.size(d)) break;
      at -= to.stride(d) * from.size(d);
      index[d] = 0;
    }
  }
  return sum.to(accumulate_options_.dtype());
}

void AttentionCpuCall::add_query_parts(const at::Tensor& parts) {
  const at::Tensor sum = parts[0];
  for (int64_t i = 1; i < parts.size(0); ++i) sum.add_(parts[i]);
  const int64_t heads = params_.heads;
  if (!packed_) {
    grad_query_.copy_(sum.view(grad_query_.sizes()));
    return;
  }
  for (const AttentionCpuSequence& s : sequences_) {
    const int64_t first = first_rows_[s.index];
    grad_query_.narrow(0, first, s.q_len)
        .copy_(sum.narrow(0, first * heads, heads * s.q_len)
                   .view({heads, s.q_len, params_.head_dim})
                   .transpose(0, 1));
  }
}

}  // namespace tilewright
