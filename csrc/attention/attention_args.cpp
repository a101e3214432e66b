// What shapes, dtypes, devices and options can tell about the arguments of attention, dense
// and packed: on all machines, and for symbolic sizes.
#include "tilewright/attention/attention_args.h"

#include "tilewright/attention/attention_checks.h"

namespace tilewright {
namespace {

void check_sinks(const char* op, const at::Tensor& query, const at::Tensor& sinks) {
  if (!sinks.defined()) return;
  check_sizes(op, "sinks", sinks, "(H,)", {query.sym_size(1)});
  check_floating(op, "sinks", sinks);
  check_same_device(op, "query", query, "sinks", sinks);
}

void check_bias(const char* op, const at::Tensor& query, const at::Tensor& key,
                const at::Tensor& bias) {
  if (!bias.defined()) return;
  const c10::SymInt scores[] = {query.sym_size(0), query.sym_size(1), query.sym_size(2),
                                key.sym_size(2)};
  bool fits = bias.dim() <= 4;
  for (int64_t i = 1; fits && i <= bias.dim(); ++i) {
    fits = bias.sym_size(-i) == scores[4 - i] || bias.sym_size(-i) == 1;
  }
  TILEWRIGHT_CHECK(op, fits, "bias must broadcast to (B, H, Sq, Sk) = ", shape_of(scores), ", got ",
                   shape_of(bias));
  const auto type = bias.scalar_type();
  TILEWRIGHT_CHECK(op, type == at::kBool || type == at::kFloat || type == query.scalar_type(),
                   "bias must be bool, float32 or of query's dtype (", query.scalar_type(),
                   "), got ", type);
  check_same_device(op, "query", query, "bias", bias);
}

// An extra tensor whose gradient is asked for.
void check_need(const char* op, const char* name, const at::Tensor& extra, bool needed) {
  if (!needed) return;
  check_given(op, name, extra);
  TILEWRIGHT_CHECK(op, extra.scalar_type() != at::kBool, name,
                   " must be floating to have a gradient, got Bool");
}

// out, lse and their gradients, and what made out.
void check_results(const AttentionArgs& args, const at::Tensor& query, const at::Tensor& grad_out,
                   const at::Tensor& grad_lse, const at::Tensor& out, const at::Tensor& lse,
                   const AttentionExtras& extras) {
  const char* op = args.op;
  TILEWRIGHT_CHECK(op, args.dropout_p == 0 || extras.rng_state.defined(),
                   "rng_state must be given where dropout_p > 0");
  check_beside(op, "query", query, "out", out);
  check_beside(op, "query", query, "grad_out", grad_out);
  TILEWRIGHT_CHECK(op, grad_out.sym_sizes() == out.sym_sizes(),
                   "grad_out must have the shape of out, ", shape_of(out), ", got ",
                   shape_of(grad_out));
  check_dtype(op, "lse", lse, accumulate_dtype(query.scalar_type()));
  check_same_device(op, "query", query, "lse", lse);
  if (!grad_lse.defined()) return;
  check_beside(op, "lse", lse, "grad_lse", grad_lse);
  TILEWRIGHT_CHECK(op, grad_lse.sym_sizes() == lse.sym_sizes(),
                   "grad_lse must have the shape of lse, ", shape_of(lse), ", got ",
                   shape_of(grad_lse));
}

void check_offsets(const char* op, const at::Tensor& query, const char* name,
                   const at::Tensor& cu_seqlens, const char* max_name, int64_t max_seqlen) {
  TILEWRIGHT_CHECK(op, cu_seqlens.dim() == 1 && cu_seqlens.sym_size(0) >= 1, name,
                   " must have shape (B + 1,), got ", shape_of(cu_seqlens));
  check_dtype(op, name, cu_seqlens, at::kInt);
  check_same_device(op, "query", query, name, cu_seqlens);
  TILEWRIGHT_CHECK(op, max_seqlen >= 0, max_name, " must not be negative, got ", max_seqlen);
}

}  // namespace

void check_attention(const AttentionArgs& args, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, const AttentionExtras& extras) {
  const char* op = args.op;
  check_shape(op, "query", query, "(B, H, Sq, D)", 4);
  check_shape(op, "key", key, "(B, Hk, Sk, D)", 4);
  check_shape(op, "value", value, "(B, Hk, Sk, Dv)", 4);
  check_inputs(op, query, "key", key, "value", value);
  const auto batch = query.sym_size(0), key_len = key.sym_size(2);
  TILEWRIGHT_CHECK(op, key.sym_size(0) == batch, "key must have the batch size of query, ", batch,
                   ", got ", shape_of(key));
  check_heads(op, query, 1, "key", key, 1);
  check_sizes(op, "value", value, "(B, Hk, Sk, Dv)",
              {batch, key.sym_size(1), key_len, value.sym_size(3)});
  check_options(args);
  check_bias(op, query, key, extras.bias);
  check_slopes(op, query, extras.alibi_slopes, batch, query.sym_size(1));
  check_sinks(op, query, extras.sinks);
  check_rng_state(op, query, extras.rng_state);
}

void check_attention_backward(const AttentionArgs& args, const at::Tensor& grad_out,
                              const at::Tensor& grad_lse, const at::Tensor& query,
                              const at::Tensor& key, const at::Tensor& value, const at::Tensor& out,
                              const at::Tensor& lse, const AttentionExtras& extras,
                              const ExtraNeeds& needs) {
  check_attention(args, query, key, value, extras);
  const auto batch = query.sym_size(0), heads = query.sym_size(1), length = query.sym_size(2);
  check_sizes(args.op, "out", out, "(B, H, Sq, Dv)", {batch, heads, length, value.sym_size(3)});
  check_sizes(args.op, "lse", lse, "(B, H, Sq)", {batch, heads, length});
  check_results(args, query, grad_out, grad_lse, out, lse, extras);
  check_need(args.op, "bias", extras.bias, needs[0]);
  check_need(args.op, "alibi_slopes", extras.alibi_slopes, needs[1]);
  check_need(args.op, "sinks", extras.sinks, needs[2]);
}

void check_attention_varlen(const AttentionArgs& args, const at::Tensor& query,
                            const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                            int64_t max_seqlen_q, int64_t max_seqlen_k,
                            const AttentionExtras& extras) {
  const char* op = args.op;
  check_shape(op, "query", query, "(T, H, D)", 3);
  check_shape(op, "key", key, "(Tk, Hk, D)", 3);
  check_shape(op, "value", value, "(Tk, Hk, Dv)", 3);
  check_inputs(op, query, "key", key, "value", value);
  check_heads(op, query, 1, "key", key, 1);
  check_sizes(op, "value", value, "(Tk, Hk, Dv)",
              {key.sym_size(0), key.sym_size(1), value.sym_size(2)});
  check_options(args);
  check_offsets(op, query, "cu_seqlens_q", cu_seqlens_q, "max_seqlen_q", max_seqlen_q);
  check_offsets(op, query, "cu_seqlens_k", cu_seqlens_k, "max_seqlen_k", max_seqlen_k);
  TILEWRIGHT_CHECK(op, cu_seqlens_k.sym_size(0) == cu_seqlens_q.sym_size(0),
                   "cu_seqlens_k must have the shape of cu_seqlens_q, ", shape_of(cu_seqlens_q),
                   ", got ", shape_of(cu_seqlens_k));
  check_slopes(op, query, extras.alibi_slopes, cu_seqlens_q.sym_size(0) - 1, query.sym_size(1));
  check_rng_state(op, query, extras.rng_state);
}

void check_attention_varlen_backward(const AttentionArgs& args, const at::Tensor& grad_out,
                                     const at::Tensor& grad_lse, const at::Tensor& query,
                                     const at::Tensor& key, const at::Tensor& value,
                                     const at::Tensor& out, const at::Tensor& lse,
                                     const AttentionExtras& extras, bool need_slopes) {
  const auto total = query.sym_size(0), heads = query.sym_size(1);
  check_sizes(args.op, "out", out, "(T, H, Dv)", {total, heads, value.sym_size(2)});
  check_sizes(args.op, "lse", lse, "(H, T)", {heads, total});
  check_results(args, query, grad_out, grad_lse, out, lse, extras);
  check_need(args.op, "alibi_slopes", extras.alibi_slopes, need_slopes);
}

}  // namespace tilewright
