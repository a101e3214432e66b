// The copy of new keys or values into pages.
#pragma once
#include "tilewright/attention/attention_params.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// One tensor's part of append_kv_; Word is as wide as its elements.
template <class Word>
struct AppendParams {
  HeadRows<const Word> rows;
  HeadRows<Word> cache;
  const int *table, *lengths;
  int64_t numel;
  int heads, length, columns, pages, max_pages, page_size;
};

// Row i of sequence b goes behind its lengths[b] keys; rows without a page are dropped.
template <class Word>
__global__ void append_kv_kernel(AppendParams<Word> p) {
  for (int64_t place : grid_stride(p.numel)) {
    const int c = int(place % p.columns);
    const int64_t row = place / p.columns;
    const int i = int(row % p.length), head = int(row / p.length % p.heads);
    const int64_t batch = row / p.length / p.heads;
    const int64_t j = int64_t(ldg(p.lengths + batch)) + i;
    if (j < i || j >= int64_t(p.max_pages) * p.page_size) continue;
    const int page = ldg(p.table + batch * p.max_pages + j / p.page_size);
    if (unsigned(page) >= unsigned(p.pages)) continue;
    p.cache.at(page, head, j % p.page_size)[c] = ldg(p.rows.at(batch, head, i) + c);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
