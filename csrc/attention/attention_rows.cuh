// What a kernel does with whole rows of a tile besides products: hides the keys that must not be
// touched, and writes results.
#pragma once
#include "tilewright/attention/attention_scores.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A block's share of the tiles of keys.
struct TileWalk {
  int begin, end;  // first key of the first tile, first key behind the last
};
template <class T>
TILEWRIGHT_DEVICE TileWalk split_keys(const AttentionParams<T>& p, IntRange keys, int split) {
  const int first = keys.begin / kTileKeys;
  const int tiles = keys.end > keys.begin ? int(ceil_div(keys.end, kTileKeys)) - first : 0;
  const int share = int(ceil_div(tiles, p.splits));
  const int begin = min_of(split * share, tiles), end = min_of(begin + share, tiles);
  return {(first + begin) * kTileKeys, (first + end) * kTileKeys};
}

// Writes a lane's columns of one line: (row + 8n + 2t, + 1) for every n.
template <class T, class Acc, int N>
TILEWRIGHT_DEVICE void store_line(T* row, int columns, bool pairs, int line, Acc factor,
                                  const Acc (&values)[N][4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int column = 8 * n + 2 * t;
    Pack<T, 2> pair;
    pair[0] = from_accumulate<T>(values[n][2 * line] * factor);
    pair[1] = from_accumulate<T>(values[n][2 * line + 1] * factor);
    if (pairs) {
      if (column < columns) store_pack(row + column, pair);
    } else {
      if (column < columns) row[column] = pair[0];
      if (column + 1 < columns) row[column + 1] = pair[1];
    }
  }
}

// Whether any query of the call sees key j, as far as window and bias say. Lanes of a warp share
// the search and the answer.
template <class T>
TILEWRIGHT_DEVICE bool anyone_sees(const AttentionParams<T>& p, const AttentionSequence& seq,
                                   int kv_head, int j) {
  const IntRange queries = queries_of(p, seq, j);
  const int heads = p.bias_head == 0 ? 1 : p.group;
  bool seen = false;
  for (int h = 0; h < heads; ++h) {
    const int64_t base =
        seq.batch * p.bias_batch + int64_t(kv_head * p.group + h) * p.bias_head + j * p.bias_column;
    for (int i = queries.begin + int(threadIdx.x % 32); i < queries.end; i += 32) {
      seen = seen || bias_at(p, base + i * p.bias_row) != minus_infinity<accumulate_t<T>>();
    }
  }
  return __any_sync(0xffffffff, seen);
}

// Padding may hold anything, and 0 * NaN is NaN: rows of keys (key0 + r) that are not all finite
// and that a bias hides from every query of the call become zeros. place(r, c) finds a row's
// elements, kStep at a time. All threads together; the tile has landed.
template <int kStep, class T, class Place>
TILEWRIGHT_DEVICE void drop_hidden_rows(const AttentionParams<T>& p, const AttentionSequence& seq,
                                        int kv_head, T* tile, int rows, int columns, int key0,
                                        const Place& place) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto finite = [&](int r, int c) {
    const Pack<T, kStep> values = load_pack<kStep>(tile + place(r, c));
    bool all = true;
#pragma unroll
    for (int i = 0; i < kStep; ++i) {
      const auto value = to_accumulate(values[i]);
      all = all && value - value == 0;
    }
    return all;
  };
  bool found = false;
  for (int r = warp; r < rows; r += kAttentionWarps) {
    for (int c = lane * kStep; c < columns; c += 32 * kStep) found = found || !finite(r, c);
  }
  if (!__syncthreads_or(found)) return;
  for (int r = warp; r < rows; r += kAttentionWarps) {
    bool bad = false;
    for (int c = lane * kStep; c < columns; c += 32 * kStep) bad = bad || !finite(r, c);
    if (!__any_sync(0xffffffff, bad) || anyone_sees(p, seq, kv_head, key0 + r)) continue;
    for (int c = lane * kStep; c < columns; c += 32 * kStep) {
      Pack<T, kStep> zeros;
#pragma unroll
      for (int i = 0; i < kStep; ++i) zeros[i] = from_accumulate<T>(0);
      store_pack(tile + place(r, c), zeros);
    }
  }
  __syncthreads();
}

// Queries that see nothing (lse +inf) may hold anything: a step's rows of queries and of their
// gradients become zeros. All threads together; the tiles have landed.
template <int kRows, int kColumns, class T>
TILEWRIGHT_DEVICE void clear_blind_rows(T* query, T* grad, const float* lse_log2) {
  const auto blind = [&](int r) { return lse_log2[r] == -minus_infinity<float>(); };
  if (!__syncthreads_or(int(threadIdx.x) < kRows && blind(int(threadIdx.x)))) return;
  Pack<T, 8> zeros;
#pragma unroll
  for (int i = 0; i < 8; ++i) zeros[i] = from_accumulate<T>(0.f);
  for (int r = int(threadIdx.x) / 32; r < kRows; r += kAttentionWarps) {
    if (!blind(r)) continue;
    for (int c = int(threadIdx.x) % 32 * 8; c < kColumns; c += 32 * 8) {
      store_pack(query + r * kColumns + c, zeros);
      store_pack(grad + r * kColumns + c, zeros);
    }
  }
  __syncthreads();
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
