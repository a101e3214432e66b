// The gradient of a bias: the sum of the scores' derivatives over all that the bias broadcasts to.
// A block owns a tile of the bias's own shape and walks the rest, so there is no buffer of the
// shape of the scores and no order but one. It runs where this gradient is asked for.
#pragma once
#include "tilewright/attention/attention_fma_tile.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
TILEWRIGHT_DEVICE void store_bias(const AttentionParams<T>& p, int64_t place,
                                  accumulate_t<T> value) {
  if (p.bias_kind == BiasKind::kInput) {
    static_cast<T*>(p.grad_bias)[place] = from_accumulate<T>(value);
  } else {
    static_cast<float*>(p.grad_bias)[place] = float(value);
  }
}

// The tiles of one dimension that a block walks: all where the bias has size 1, else one.
TILEWRIGHT_DEVICE IntRange walk_of(int size, int tile, int length) {
  return size == 1 ? IntRange{0, length} : IntRange{tile * 64, min_of(tile * 64 + 64, length)};
}

// Grid: tiles of columns and rows of the bias, its heads and its batch.
template <class T>
__global__ void attention_grad_bias_kernel(AttentionParams<T> p) {
  using Acc = accumulate_t<T>;
  constexpr int kN = kTileKeys / 8;
  const int rows = p.bias_sizes[2], columns = p.bias_sizes[3];
  BlockCursor cursor;
  const int tile_column = cursor.next(int(ceil_div(columns, 64)));
  const int tile_row = cursor.next(int(ceil_div(rows, 64)));
  const int head = cursor.next(p.bias_sizes[1]), batch = cursor.next(p.bias_sizes[0]);
  const IntRange walk_row = walk_of(rows, tile_row, p.q_len);
  const IntRange walk_column = walk_of(columns, tile_column, p.k_len);
  const IntRange heads = p.bias_sizes[1] == 1 ? IntRange{0, p.heads} : IntRange{head, head + 1};
  const IntRange batches = p.bias_sizes[0] == 1 ? IntRange{0, p.batch} : IntRange{batch, batch + 1};

  SharedMemory shared;
  const FmaParts<T> parts(shared);
  Acc sum[kN][4] = {};
  for (int b = batches.begin; b < batches.end; ++b) {
    const AttentionSequence seq = sequence_of(p, b);
    for (int h = heads.begin; h < heads.end; ++h) {
      for (int query0 = walk_row.begin; query0 < walk_row.end; query0 += 64) {
        const IntRange keys = keys_of_tile(p, seq, query0, min_of(query0 + 64, seq.q_len) - 1);
        for (int key0 = walk_column.begin; key0 < walk_column.end; key0 += 64) {
          if (key0 >= keys.end || key0 + 64 <= keys.begin) continue;
          const FmaTile<T> tile{p, parts, seq, h, query0, key0};
          __syncthreads();
          Acc s[kN][4] = {};
          tile.probabilities(keys, s);
          tile.derivatives(keys, s);
          each_score<kN>([&](int n, int e, int, int) { sum[n][e] += s[n][e]; });
        }
      }
    }
  }
  each_score<kN>([&](int n, int e, int line, int column) {
    parts.weights[parts.weight_place(line, column)] = sum[n][e];
  });
  __syncthreads();

  const int64_t base = (int64_t(batch) * p.bias_sizes[1] + head) * rows * columns;
  const int own_rows = min_of(64, rows - tile_row * 64);
  const int own_columns = min_of(64, columns - tile_column * 64);
  // Where the bias has one row or one column, the tile's rows or columns still are to be added up.
  const int row_step = rows == 1 ? 64 : 1, column_step = columns == 1 ? 64 : 1;
  for (int c = threadIdx.x; c < own_rows * own_columns; c += kAttentionThreads) {
    const int r = c / own_columns, column = c % own_columns;
    Acc total = 0;
    for (int i = 0; i < row_step; ++i) {
      for (int j = 0; j < column_step; ++j) {
        total += parts.weights[(r + i) * parts.kKeys + column + j];
      }
    }
    store_bias(p, base + int64_t(tile_row * 64 + r) * columns + tile_column * 64 + column, total);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
