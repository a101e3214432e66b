// What only data can tell about the arguments of attention: read on the CPU alone, where looking
// costs nothing.
#include <algorithm>

#include "tilewright/attention/attention_args.h"
#include "tilewright/core/check.h"

namespace tilewright {

void check_cu_seqlens_data(const char* op, const char* name, const at::Tensor& cu_seqlens,
                           int64_t total, int64_t max_seqlen) {
  const at::Tensor held = cu_seqlens.contiguous();
  const int32_t* offsets = held.const_data_ptr<int32_t>();
  const int64_t batch = held.size(0) - 1;
  TILEWRIGHT_CHECK(op, offsets[0] == 0, name, " must start at 0, got ", offsets[0]);
  for (int64_t b = 0; b < batch; ++b) {
    TILEWRIGHT_CHECK(op, offsets[b + 1] >= offsets[b], name, " must not decrease, got ", offsets[b],
                     " and then ", offsets[b + 1], " at ", b + 1);
    TILEWRIGHT_CHECK(op, offsets[b + 1] - offsets[b] <= max_seqlen, name,
                     " must not hold a sequence longer than the given maximum ", max_seqlen,
                     ", got length ", offsets[b + 1] - offsets[b], " at ", b);
  }
  TILEWRIGHT_CHECK(op, offsets[batch] <= total, name, " must end within the ", total,
                   " packed rows, got ", offsets[batch]);
}

void check_block_table_data(const char* op, const at::Tensor& block_table,
                            const at::Tensor& cache_seqlens, int64_t pages, int64_t page_size,
                            int64_t appended) {
  const at::Tensor table = block_table.contiguous(), lengths = cache_seqlens.contiguous();
  const int64_t max_pages = table.size(1);
  for (int64_t b = 0; b < table.size(0); ++b) {
    const int64_t length = lengths.const_data_ptr<int32_t>()[b];
    TILEWRIGHT_CHECK(op, length >= 0, "cache_seqlens[", b, "] must not be negative, got ", length);
    TILEWRIGHT_CHECK(op, length + appended <= max_pages * page_size, "block_table has room for ",
                     max_pages * page_size, " keys (", max_pages, " pages of ", page_size,
                     "), too few for cache_seqlens[", b, "] = ", length,
                     appended > 0 ? " and the new keys" : "");
    const int32_t* row = table.const_data_ptr<int32_t>() + b * max_pages;
    const int64_t end = length + appended;
    for (int64_t i = appended > 0 ? length / page_size : 0; i * page_size < end; ++i) {
      TILEWRIGHT_CHECK(op, row[i] >= 0 && row[i] < pages, "block_table[", b, "][", i,
                       "] must lie in [0, ", pages, "), got ", row[i]);
    }
  }
}

}  // namespace tilewright
