// append_kv_ on the CPU: rows copied into pages, after the table was checked as a whole.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cstring>

#include "tilewright/attention/attention_args.h"
#include "tilewright/core/math.h"

namespace tilewright {
namespace {

// Bytes that one thread should copy at least.
constexpr int64_t kGrainBytes = 1 << 16;

// One of the caches and the rows that go to it: (B, Hk, S, D) to (pages, page, Hk, D).
struct RowCopy {
  const at::Tensor& cache;
  at::Tensor rows;

  RowCopy(const at::Tensor& cache, const at::Tensor& given)
      : cache(cache), rows(with_unit_stride(given)) {}

  // Rows of one head, sequence after sequence.
  void head(int64_t head, const int32_t* table, int64_t max_pages, const int32_t* lengths) const {
    const int64_t page_size = cache.size(1);
    const int64_t element = cache.element_size(), row_bytes = cache.size(3) * element;
    auto* to = static_cast<char*>(cache.data_ptr()) + head * cache.stride(2) * element;
    const auto* from =
        static_cast<const char*>(rows.const_data_ptr()) + head * rows.stride(1) * element;
    for (int64_t b = 0; b < rows.size(0); ++b) {
      for (int64_t s = 0; s < rows.size(2); ++s) {
        const int64_t key = lengths[b] + s, page = table[b * max_pages + key / page_size];
        char* target = to + (page * cache.stride(0) + key % page_size * cache.stride(1)) * element;
        const char* source = from + (b * rows.stride(0) + s * rows.stride(2)) * element;
        std::memcpy(target, source, row_bytes);
      }
    }
  }
};

void append_kv_cpu(const at::Tensor& key_cache, const at::Tensor& value_cache,
                   const at::Tensor& key, const at::Tensor& value, const at::Tensor& block_table,
                   const at::Tensor& cache_seqlens) {
  check_append(key_cache, value_cache, key, value, block_table, cache_seqlens);
  const int64_t appended = key.size(2), heads = key.size(1);
  if (key.size(0) == 0 || appended == 0 || heads == 0) return;
  check_block_table_data("append_kv_", block_table, cache_seqlens, key_cache.size(0),
                         key_cache.size(1), appended);
  const at::Tensor table = block_table.contiguous(), lengths = cache_seqlens.contiguous();
  const auto* pages = table.const_data_ptr<int32_t>();
  const auto* held = lengths.const_data_ptr<int32_t>();
  const RowCopy copies[] = {{key_cache, key}, {value_cache, value}};
  // A piece is a head of one cache, so no two threads write one row even if sequences share pages.
  const int64_t piece_bytes = (key.nbytes() + value.nbytes()) / (2 * heads) + 1;
  at::parallel_for(0, 2 * heads, ceil_div(kGrainBytes, piece_bytes),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       copies[i / heads].head(i % heads, pages, table.size(1), held);
                     }
                   });
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("append_kv_", &append_kv_cpu); }

}  // namespace tilewright
