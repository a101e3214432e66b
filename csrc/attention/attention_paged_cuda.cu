// Attention to keys and values in pages on CUDA, and the copy of new ones into them.
#include "tilewright/attention/append_kv_kernel.cuh"
#include "tilewright/attention/attention_calls.h"
#include "tilewright/attention/attention_host.h"
#include "tilewright/attention/attention_plan.h"

namespace tilewright {
namespace {

TensorPair flash_attention_paged_cuda(const at::Tensor& given_query, const at::Tensor& given_keys,
                                      const at::Tensor& given_values, const at::Tensor& block_table,
                                      const at::Tensor& cache_seqlens, bool causal,
                                      int64_t window_left, std::optional<double> scale,
                                      double softcap, const OptionalTensor& slopes) {
  const AttentionArgs args{
      "flash_attention_paged", causal, false, window_left, -1, scale, softcap, 0};
  const AttentionExtras given{{}, or_undefined(slopes), {}, {}};
  check_attention_paged(args, given_query, given_keys, given_values, block_table, cache_seqlens,
                        given);
  const int64_t batch = given_query.size(0), length = given_query.size(2);
  const int64_t k_len = block_table.size(1) * given_keys.size(1);
  check_counts(args.op, batch * given_query.size(1), length, k_len);
  check_rows(args.op, "key_cache", given_keys);  // pages
  const DeviceGuard guard(given_query);
  const at::Tensor query = with_unit_stride(given_query), keys = with_unit_stride(given_keys);
  const at::Tensor values = with_unit_stride(given_values), table = block_table.contiguous();
  const at::Tensor lengths = cache_seqlens.contiguous();
  const AttentionExtras extras = prepare_extras(given, query, batch, length, k_len);
  const auto [out, lse] = attention_outputs(given_query, values, /*packed=*/false);
  if (lse.numel() == 0) return {out, lse};
  dispatch_floating(args.op, query.scalar_type(), [&, &out = out, &lse = lse](auto tag) {
    using T = typename decltype(tag)::type;
    auto p = attention_params<T>(args, query, keys, values, extras, kDenseLayout, kPagedLayout);
    p.batch = int(batch), p.q_len = int(length), p.k_len = int(k_len);
    p.lse_head = length, p.lse_batch = query.size(1) * length;
    p.table = const_data<int>(table), p.lengths = const_data<int>(lengths);
    p.pages = int(keys.size(0)), p.page_size = int(keys.size(1)), p.max_pages = int(table.size(1));
    p.out = written_rows<T>(out, kDenseLayout);
    p.lse = mutable_data<accumulate_t<device_t<T>>>(lse);
    p.aligned = rows_in_packs_of(8, {query, keys, values});
    p.pairs = rows_in_packs_of(2, {out});
    const SplitRoom room = plan_forward(p, query);
    launch_attention_forward(p, false);
  });
  return {out, lse};
}

// Words of the elements' size: the copy knows no dtype.
template <class Word>
void append_rows(const at::Tensor& cache, const at::Tensor& rows, const at::Tensor& table,
                 const at::Tensor& lengths) {
  const auto integer = at::CppTypeToScalarType<Word>();
  const at::Tensor from = rows.view(integer), to = cache.view(integer);
  AppendParams<Word> p{};
  p.rows = {const_data<Word>(from), from.stride(0), from.stride(1), from.stride(2)};
  p.cache = {mutable_data<Word>(to), to.stride(0), to.stride(2), to.stride(1)};
  p.table = const_data<int>(table), p.lengths = const_data<int>(lengths);
  p.numel = from.numel();
  p.heads = int(from.size(1)), p.length = int(from.size(2)), p.columns = int(from.size(3));
  p.pages = int(to.size(0)), p.page_size = int(to.size(1)), p.max_pages = int(table.size(1));
  launch<append_kv_kernel<Word>>(linear_config(p.numel), p);
}

void append_kv_cuda(const at::Tensor& key_cache, const at::Tensor& value_cache,
                    const at::Tensor& key, const at::Tensor& value, const at::Tensor& block_table,
                    const at::Tensor& cache_seqlens) {
  check_append(key_cache, value_cache, key, value, block_table, cache_seqlens);
  const DeviceGuard guard(key_cache);
  const at::Tensor table = block_table.contiguous(), lengths = cache_seqlens.contiguous();
  const auto append = [&](const at::Tensor& cache, const at::Tensor& given) {
    const at::Tensor rows = with_unit_stride(given);
    switch (rows.element_size()) {
      case 2: return append_rows<int16_t>(cache, rows, table, lengths);
      case 4: return append_rows<int32_t>(cache, rows, table, lengths);
      default: return append_rows<int64_t>(cache, rows, table, lengths);
    }
  };
  append(key_cache, key);
  append(value_cache, value);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("flash_attention_paged", &flash_attention_paged_cuda);
  m.impl("append_kv_", &append_kv_cuda);
}

}  // namespace tilewright
