// What shapes, dtypes and devices can tell about caches in pages and what is appended to them.
#include "tilewright/attention/attention_checks.h"

namespace tilewright {
namespace {

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
    const bool last = dim + 1 == tensor.dim();
    TILEWRIGHT_CHECK(op,
                     tensor.sym_size(dim) <= 1 ||
                         (last ? tensor.sym_stride(dim) == 1 : tensor.sym_stride(dim) != 0),
                     name,
                     " is written to: it must not be expanded, and its last stride must be 1,",
                     " got stride ", tensor.sym_stride(dim), " at dimension ", dim);
  }
}

}  // namespace

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
  TILEWRIGHT_CHECK(kOp, !value_cache.is_same(key_cache),
                   "value_cache must be another tensor than key_cache, got the same");
  check_beside(kOp, "key_cache", key_cache, "key", key);
  check_beside(kOp, "key_cache", key_cache, "value", value);
  const auto heads = key_cache.sym_size(2);
  check_sizes(kOp, "key", key, "(B, Hk, S, D)", {batch, heads, length, key_cache.sym_size(3)});
  check_sizes(kOp, "value", value, "(B, Hk, S, Dv)",
              {batch, heads, length, value_cache.sym_size(3)});
}

}  // namespace tilewright
