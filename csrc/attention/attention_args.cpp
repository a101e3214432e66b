// What shapes, dtypes, devices and options can tell about the arguments of attention: one wording
// for one mistake, on all machines and for symbolic sizes.
#include "tilewright/attention/attention_args.h"

#include <initializer_list>
#include <string>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

constexpr int64_t kMaxHeadDim = 256;

std::string sizes_text(std::initializer_list<c10::SymInt> sizes) {
  std::ostringstream text;
  text << '(';
  size_t i = 0;
  for (const auto& size : sizes) text << (i++ ? ", " : "") << size;
  text << (sizes.size() == 1 ? ",)" : ")");
  return text.str();
}

bool has_sizes(const at::Tensor& tensor, std::initializer_list<c10::SymInt> sizes) {
  if (tensor.dim() != int64_t(sizes.size())) return false;
  int64_t dim = 0;
  for (const auto& size : sizes) {
    if (tensor.sym_size(dim++) != size) return false;
  }
  return true;
}

// `wording` says what the sizes are: "(B, H, Sq)".
void check_sizes(const char* op, const char* name, const at::Tensor& tensor, const char* wording,
                 std::initializer_list<c10::SymInt> sizes) {
  TILEWRIGHT_CHECK(op, has_sizes(tensor, sizes), name, " must have shape ", wording, " = ",
                   sizes_text(sizes), ", got ", shape_of(tensor));
}

void check_dtype(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType dtype) {
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == dtype, name, " must be ", dtype, ", got ",
                   tensor.scalar_type());
}

void check_options(const AttentionArgs& args) {
  const char* op = args.op;
  // Written so that NaN fails them.
  TILEWRIGHT_CHECK(op, args.dropout_p >= 0 && args.dropout_p < 1,
                   "dropout_p must lie in [0, 1), got ", args.dropout_p);
  TILEWRIGHT_CHECK(op, args.softcap >= 0 && std::isfinite(args.softcap),
                   "softcap must be finite and not negative (0: none), got ", args.softcap);
  TILEWRIGHT_CHECK(op, !args.scale || std::isfinite(*args.scale), "scale must be finite, got ",
                   args.scale.value_or(0));
  TILEWRIGHT_CHECK(op, args.window_left >= -1, "window_left must be -1 (unlimited) or more, got ",
                   args.window_left);
  TILEWRIGHT_CHECK(op, args.window_right >= -1, "window_right must be -1 (unlimited) or more, got ",
                   args.window_right);
}

// `name` must go with a tensor that is there: dtype and device.
void check_beside(const char* op, const char* first_name, const at::Tensor& first, const char* name,
                  const at::Tensor& tensor) {
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == first.scalar_type(), name,
                   " must have the dtype of ", first_name, " (", first.scalar_type(), "), got ",
                   tensor.scalar_type());
  check_same_device(op, first_name, first, name, tensor);
}

void check_head_dim(const char* op, const char* name, const at::Tensor& tensor) {
  const auto size = tensor.sym_size(-1);
  TILEWRIGHT_CHECK(op, size >= 1 && size <= kMaxHeadDim, "the last dimension of ", name,
                   " must lie in [1, ", kMaxHeadDim, "], got ", shape_of(tensor));
}

void check_heads(const char* op, const at::Tensor& query, int64_t query_dim, const char* key_name,
                 const at::Tensor& key, int64_t key_dim) {
  const auto heads = query.sym_size(query_dim), key_heads = key.sym_size(key_dim);
  TILEWRIGHT_CHECK(op, key_heads == 0 ? heads == 0 : heads % key_heads == 0, "the heads of query (",
                   heads, ") must be a multiple of the heads of ", key_name, " (", key_heads, ")");
}

// Query, key and value apart from their shapes in front.
void check_inputs(const char* op, const at::Tensor& query, const char* key_name,
                  const at::Tensor& key, const char* value_name, const at::Tensor& value) {
  check_floating(op, "query", query);
  check_beside(op, "query", query, key_name, key);
  check_beside(op, "query", query, value_name, value);
  check_head_dim(op, "query", query);
  check_head_dim(op, value_name, value);
  TILEWRIGHT_CHECK(op, key.sym_size(-1) == query.sym_size(-1), "the last dimension of ", key_name,
                   " must be that of query, ", query.sym_size(-1), ", got ", shape_of(key));
}

void check_rng_state(const char* op, const at::Tensor& query, const at::Tensor& rng_state) {
  if (!rng_state.defined()) return;
  check_dtype(op, "rng_state", rng_state, at::kLong);
  check_shape(op, "rng_state", rng_state, "(2,)", 1, 2);
  TILEWRIGHT_CHECK(op, rng_state.device() == query.device(),
                   "rng_state must be on the device of query (", query.device(), "), got ",
                   rng_state.device(), "; move it with rng_state.to(query.device)");
}

void check_slopes(const char* op, const at::Tensor& query, const at::Tensor& slopes,
                  const c10::SymInt& batch, const c10::SymInt& heads) {
  if (!slopes.defined()) return;
  TILEWRIGHT_CHECK(op, has_sizes(slopes, {heads}) || has_sizes(slopes, {batch, heads}),
                   "alibi_slopes must have shape (H,) = ", sizes_text({heads}),
                   " or (B, H) = ", sizes_text({batch, heads}), ", got ", shape_of(slopes));
  check_floating(op, "alibi_slopes", slopes);
  check_same_device(op, "query", query, "alibi_slopes", slopes);
}

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
  TILEWRIGHT_CHECK(op, fits, "bias must broadcast to (B, H, Sq, Sk) = ",
                   sizes_text({scores[0], scores[1], scores[2], scores[3]}), ", got ",
                   shape_of(bias));
  const auto type = bias.scalar_type();
  TILEWRIGHT_CHECK(op, type == at::kBool || type == at::kFloat || type == query.scalar_type(),
                   "bias must be bool, float32 or of query's dtype (", query.scalar_type(),
                   "), got ", type);
  check_same_device(op, "query", query, "bias", bias);
}

// out, lse and their gradients; sizes are out's without the last.
void check_results(const char* op, const at::Tensor& query, const at::Tensor& grad_out,
                   const at::Tensor& grad_lse, const at::Tensor& out, const at::Tensor& lse) {
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

// The pages of caches, and what says which of them each sequence has.
void check_pages(const char* op, const at::Tensor& first, const c10::SymInt& batch,
                 const char* first_name, const at::Tensor& key_cache, const at::Tensor& value_cache,
                 const at::Tensor& block_table, const at::Tensor& cache_seqlens) {
  check_shape(op, "key_cache", key_cache, "(pages, page, Hk, D)", 4);
  check_shape(op, "value_cache", value_cache, "(pages, page, Hk, Dv)", 4);
  TILEWRIGHT_CHECK(op, key_cache.sym_size(1) >= 1,
                   "key_cache must have pages of at least one row, got ", shape_of(key_cache));
  check_sizes(op, "value_cache", value_cache, "(pages, page, Hk, Dv)",
              {key_cache.sym_size(0), key_cache.sym_size(1), key_cache.sym_size(2),
               value_cache.sym_size(3)});
  TILEWRIGHT_CHECK(op, block_table.dim() == 2 && block_table.sym_size(0) == batch,
                   "block_table must have shape (B, max_pages) with B = ", batch, ", got ",
                   shape_of(block_table));
  check_dtype(op, "block_table", block_table, at::kInt);
  check_same_device(op, first_name, first, "block_table", block_table);
  check_sizes(op, "cache_seqlens", cache_seqlens, "(B,)", {batch});
  check_dtype(op, "cache_seqlens", cache_seqlens, at::kInt);
  check_same_device(op, first_name, first, "cache_seqlens", cache_seqlens);
}

void check_writable(const char* op, const char* name, const at::Tensor& tensor) {
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    TILEWRIGHT_CHECK(op, tensor.sym_size(dim) <= 1 || tensor.sym_stride(dim) != 0, name,
                     " is written to and must not be expanded, got stride 0 at dimension ", dim);
  }
}

}  // namespace

at::ScalarType accumulate_dtype(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

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
                              const at::Tensor& lse, const AttentionExtras& extras) {
  check_attention(args, query, key, value, extras);
  const auto batch = query.sym_size(0), heads = query.sym_size(1), length = query.sym_size(2);
  check_sizes(args.op, "out", out, "(B, H, Sq, Dv)", {batch, heads, length, value.sym_size(3)});
  check_sizes(args.op, "lse", lse, "(B, H, Sq)", {batch, heads, length});
  check_results(args.op, query, grad_out, grad_lse, out, lse);
  TILEWRIGHT_CHECK(args.op, args.dropout_p == 0 || extras.rng_state.defined(),
                   "rng_state must be given where dropout_p > 0");
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
                                     const at::Tensor& out, const at::Tensor& lse) {
  const auto total = query.sym_size(0), heads = query.sym_size(1);
  check_sizes(args.op, "out", out, "(T, H, Dv)", {total, heads, value.sym_size(2)});
  check_sizes(args.op, "lse", lse, "(H, T)", {heads, total});
  check_results(args.op, query, grad_out, grad_lse, out, lse);
}

void check_attention_paged(const AttentionArgs& args, const at::Tensor& query,
                           const at::Tensor& key_cache, const at::Tensor& value_cache,
                           const at::Tensor& block_table, const at::Tensor& cache_seqlens,
                           const AttentionExtras& extras) {
  const char* op = args.op;
  check_shape(op, "query", query, "(B, H, S, D)", 4);
  check_pages(op, query, query.sym_size(0), "query", key_cache, value_cache, block_table,
              cache_seqlens);
  check_inputs(op, query, "key_cache", key_cache, "value_cache", value_cache);
  check_heads(op, query, 1, "key_cache", key_cache, 2);
  check_options(args);
  check_slopes(op, query, extras.alibi_slopes, query.sym_size(0), query.sym_size(1));
}

void check_append(const at::Tensor& key_cache, const at::Tensor& value_cache, const at::Tensor& key,
                  const at::Tensor& value, const at::Tensor& block_table,
                  const at::Tensor& cache_seqlens) {
  constexpr const char* kOp = "append_kv_";
  check_shape(kOp, "key", key, "(B, Hk, S, D)", 4);
  check_shape(kOp, "value", value, "(B, Hk, S, Dv)", 4);
  const auto batch = key.sym_size(0), length = key.sym_size(2);
  check_floating(kOp, "key_cache", key_cache);
  check_writable(kOp, "key_cache", key_cache);
  check_writable(kOp, "value_cache", value_cache);
  check_pages(kOp, key_cache, batch, "key_cache", key_cache, value_cache, block_table,
              cache_seqlens);
  check_beside(kOp, "key_cache", key_cache, "value_cache", value_cache);
  check_beside(kOp, "key_cache", key_cache, "key", key);
  check_beside(kOp, "key_cache", key_cache, "value", value);
  const auto heads = key_cache.sym_size(2);
  check_sizes(kOp, "key", key, "(B, Hk, S, D)", {batch, heads, length, key_cache.sym_size(3)});
  check_sizes(kOp, "value", value, "(B, Hk, S, Dv)",
              {batch, heads, length, value_cache.sym_size(3)});
}

}  // namespace tilewright
