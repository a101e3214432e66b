// The kernels beside attention's tiles: what the backward needs of each row, and the sum of splits
// over keys.
#pragma once
#include "tilewright/attention/attention_scores.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// For each query: lse in units of log 2, +inf where it sees nothing so that all its probabilities
// are 2^-inf, and delta = grad_out . out - grad_lse. A warp per row; rows: (batch, heads, q_len),
// or (heads, total_q) packed.
template <class T>
__global__ void attention_rows_kernel(AttentionParams<T> p) {
  using Acc = accumulate_t<T>;
  const int lane = threadIdx.x % 32;
  const int length = p.cu_q ? p.total_q : p.q_len;
  const int64_t rows = int64_t(p.cu_q ? 1 : p.batch) * p.heads * length;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; row < rows;
       row += warps) {
    const int64_t i = row % length, head = row / length % p.heads, batch = row / length / p.heads;
    const T* out = p.saved_out.at(batch, head, i);
    const T* grad = p.grad_out.at(batch, head, i);
    Acc sum = 0;
    for (int c = lane; c < p.value_dim; c += 32) {
      sum += to_accumulate(ldg(out + c)) * to_accumulate(ldg(grad + c));
    }
    sum = warp_reduce(sum, Sum());
    if (lane > 0) continue;
    const int64_t place = p.lse_at(int(batch), int(head), i);
    const Acc lse = ldg(p.saved_lse + place);
    const bool sees = lse != minus_infinity<Acc>();
    p.lse_log2[place] = sees ? lse * Acc(kLog2E) : -minus_infinity<Acc>();
    p.delta[place] = !sees ? Acc(0) : p.grad_lse ? sum - ldg(p.grad_lse + place) : sum;
  }
}

// Adds up what the splits over keys found, and the sinks. A warp per row of (batch, heads, q_len).
template <class T>
__global__ void attention_combine_kernel(AttentionParams<T> p) {
  using Acc = accumulate_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t rows = int64_t(p.batch) * p.heads * p.q_len;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; row < rows;
       row += warps) {
    const int i = int(row % p.q_len), head = int(row / p.q_len % p.heads);
    const int batch = int(row / p.q_len / p.heads);
    const Acc sink = p.sinks ? ldg(p.sinks + head) : minus_infinity<Acc>();
    Acc top = sink;
    for (int split = 0; split < p.splits; ++split) {
      top = max(top, ldg(p.partial_lse + split * rows + row));
    }
    const Acc base = top == minus_infinity<Acc>() ? Acc(0) : top;
    const auto weight = [&](Acc lse) { return exp2_of((lse - base) * Acc(kLog2E)); };
    Acc sum = weight(sink);
    for (int split = 0; split < p.splits; ++split) {
      sum += weight(ldg(p.partial_lse + split * rows + row));
    }
    T* out = p.out.at(batch, head, i);
    for (int c = lane; c < p.value_dim; c += 32) {
      Acc total = 0;
      for (int split = 0; split < p.splits; ++split) {
        const int64_t place = split * rows + row;
        total += weight(ldg(p.partial_lse + place)) * ldg(p.partial_out + place * p.value_dim + c);
      }
      out[c] = from_accumulate<T>(sum == 0 ? Acc(0) : total / sum);
    }
    if (lane == 0) {
      p.lse[p.lse_at(batch, head, i)] =
          sum == 0 ? minus_infinity<Acc>() : base + log2_of(sum) * Acc(kLn2);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
