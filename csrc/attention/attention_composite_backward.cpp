// The first derivatives of the composite as functions that autograd can differentiate again.
#include <ATen/ATen.h>
#include <algorithm>
#include <vector>

#include "tilewright/attention/attention_composite.h"
#include "tilewright/core/differentiate.h"

namespace tilewright {
namespace {

struct Rows {
  int64_t begin, length;
};

std::vector<Rows> sequence_rows(const at::Tensor& cu_seqlens, int64_t total, int64_t max_seqlen) {
  const at::Tensor held = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  const int64_t* offsets = held.const_data_ptr<int64_t>();
  std::vector<Rows> rows;
  for (int64_t b = 0; b + 1 < held.size(0); ++b) {
    const int64_t begin = std::clamp<int64_t>(offsets[b], 0, total);
    const int64_t end = std::clamp<int64_t>(offsets[b + 1], begin, total);
    rows.push_back({begin, std::min(end - begin, max_seqlen)});
  }
  return rows;
}

// (T, H, D) -> (1, H, S, D)
at::Tensor one_sequence(const at::Tensor& packed, const Rows& rows) {
  return packed.narrow(0, rows.begin, rows.length).transpose(0, 1).unsqueeze(0);
}

}  // namespace

AttentionGrads attention_composite_backward(const AttentionArgs& args, const at::Tensor& grad_out,
                                            const at::Tensor& grad_lse, const at::Tensor& query,
                                            const at::Tensor& key, const at::Tensor& value,
                                            const AttentionExtras& extras,
                                            const ExtraNeeds& needs) {
  const DifferentiableHere guard;
  const at::Tensor q = own(query), k = own(key), v = own(value);
  const AttentionExtras given{own(extras.bias), own(extras.alibi_slopes), own(extras.sinks),
                              extras.rng_state};
  const auto [out, lse] = attention_composite(args, q, k, v, given);
  DifferentiableOutputs outputs;
  outputs.add(out, grad_out);
  outputs.add(lse, grad_lse);
  const auto grads = outputs.differentiate(
      {q, k, v, given.bias, given.alibi_slopes, given.sinks},
      {q.requires_grad(), k.requires_grad(), v.requires_grad(), needs[0], needs[1], needs[2]});
  return {grads[0], grads[1], grads[2], grads[3], grads[4], grads[5]};
}

VarlenGrads attention_varlen_composite_backward(
    const AttentionArgs& args, const at::Tensor& grad_out, const at::Tensor& grad_lse,
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, const AttentionExtras& extras, bool need_slopes) {
  const DifferentiableHere guard;
  const at::Tensor q = own(query), k = own(key), v = own(value), slopes = own(extras.alibi_slopes);
  const auto q_rows = sequence_rows(cu_seqlens_q, q.size(0), max_seqlen_q);
  const auto k_rows = sequence_rows(cu_seqlens_k, k.size(0), max_seqlen_k);
  DifferentiableOutputs outputs;
  for (size_t b = 0; b < q_rows.size(); ++b) {
    if (q_rows[b].length == 0) continue;
    AttentionExtras own_extras;
    own_extras.rng_state = extras.rng_state;
    if (slopes.defined()) own_extras.alibi_slopes = slopes.dim() == 2 ? slopes[b] : slopes;
    const auto [out, lse] =
        attention_composite(args, one_sequence(q, q_rows[b]), one_sequence(k, k_rows[b]),
                            one_sequence(v, k_rows[b]), own_extras, int64_t(b));
    if (grad_out.defined()) outputs.add(out, one_sequence(grad_out, q_rows[b]));
    if (grad_lse.defined()) {
      outputs.add(lse, grad_lse.narrow(1, q_rows[b].begin, q_rows[b].length).unsqueeze(0));
    }
  }
  const auto grads = outputs.differentiate(
      {q, k, v, slopes}, {q.requires_grad(), k.requires_grad(), v.requires_grad(), need_slopes});
  return {grads[0], grads[1], grads[2], grads[3]};
}

}  // namespace tilewright
