// Forward and backward for float64 and float32: simple before fast. Every kernel takes every
// option.
#pragma once
#include "tilewright/attention/attention_fma_tile.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Grid: groups of kFmaColumns columns of the values, then as attention_forward_kernel's.
template <class T, bool kTf32 = false>
__global__ void attention_forward_fma_kernel(AttentionParams<T> p, int tiles) {
  using Acc = accumulate_t<T>;
  constexpr int kN = kTileKeys / 8;
  const int pack = p.packs_group ? p.group : 1;
  BlockCursor cursor;
  const int column0 = cursor.next(int(ceil_div(p.value_dim, kFmaColumns<Acc>))) * kFmaColumns<Acc>;
  const int tile = tiles - 1 - cursor.next(tiles), split = cursor.next(p.splits);
  const int unit = cursor.next(p.packs_group ? p.kv_heads() : p.heads);
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  const int kv_head = p.packs_group ? unit : unit / p.group;
  const int row0 = tile * kTileQueries, rows = seq.q_len * pack;
  if (row0 >= rows) return;

  SharedMemory shared;
  const FmaParts<T, kTf32> parts(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int line = warp * 16 + g;
  const auto query_of = [&](int row) { return (row0 + row) / pack; };
  const auto head_of = [&](int row) {
    return p.packs_group ? unit * pack + (row0 + row) % pack : unit;
  };
  const IntRange keys =
      keys_of_tile(p, seq, query_of(0), min_of(query_of(kTileQueries - 1), seq.q_len - 1));
  const TileWalk walk = split_keys(p, keys, split);
  const auto queries = [&](int r) {
    return query_of(r) < seq.q_len ? query_row(p, p.query, seq, head_of(r), query_of(r))
                                   : static_cast<const T*>(nullptr);
  };

  Acc out[kFmaColumns<Acc> / 8][4] = {};
  RunningSoftmax<Acc> softmax;
  softmax.start();
  for (int key0 = walk.begin; key0 < walk.end; key0 += kTileKeys) {
    const auto rows_of = [&](const HeadRows<const T>& from) {
      return [&, key0](int r) {
        const int j = key0 + r;
        return j >= keys.begin && j < keys.end ? key_row(p, from, seq, kv_head, j)
                                               : static_cast<const T*>(nullptr);
      };
    };
    __syncthreads();
    if (p.table && int(threadIdx.x) < kTileKeys) {
      const int j = key0 + int(threadIdx.x);
      parts.absent[threadIdx.x] = j < keys.end && !key_row(p, p.key, seq, kv_head, j);
    }
    if (p.rng_state) {
      parts.dropout.fill(p, kTileQueries, key0, [&](int row, int64_t& head, int& query) {
        query = query_of(row);
        head = int64_t(seq.batch) * p.heads + head_of(row);
      });
    }
    parts.stage_columns(column0, p.value_dim, rows_of(p.value));
    Acc s[kN][4] = {};
    parts.multiply_rows(queries, rows_of(p.key), p.head_dim, s);
    const ScoreLine<Acc> lines[2] = {query_line(p, seq, head_of(line), query_of(line)),
                                     query_line(p, seq, head_of(line + 8), query_of(line + 8))};
    scores_of(p, lines, key0 + 2 * t, p.bias_column, s, [](int, int, Acc) {});
    if (p.table) {
      each_score<kN>([&](int n, int e, int, int column) {
        if (parts.absent[2 * t + column]) s[n][e] = minus_infinity<Acc>();
      });
    }
    Acc rescale[2];
    softmax.update(s, Acc(1), rescale);
    each_score<kFmaColumns<Acc> / 8>([&](int n, int e, int of, int) { out[n][e] *= rescale[of]; });
    each_score<kN>([&](int n, int e, int of, int column) {
      const bool dropped = p.rng_state && !parts.dropout.keeps(line + 8 * of, 2 * t + column);
      parts.weights[parts.weight_place(of, column)] = dropped ? Acc(0) : parts.rounded(s[n][e]);
    });
    __syncthreads();
    if (p.bias_kind != BiasKind::kNone) {
      drop_hidden_rows<2>(p, seq, kv_head, parts.columns, kTileKeys, kFmaColumns<Acc>, key0,
                          parts.column_place);
    }
    parts.template multiply_columns<false>(out);
  }

#pragma unroll
  for (int of = 0; of < 2; ++of) {
    const int i = query_of(line + 8 * of), head = head_of(line + 8 * of);
    const bool sinks = p.sinks && p.splits == 1 && i < seq.q_len;
    const LineEnd<Acc> end =
        finish_line(softmax.largest[of], softmax.sum[of],
                    sinks ? ldg(p.sinks + head) * Acc(kLog2E) : minus_infinity<Acc>());
    if (i >= seq.q_len) continue;
    const Acc factor = end.factor * p.keep_scale;
    const int columns = p.value_dim - column0;
    const bool first = t == 0 && column0 == 0;
    if (p.splits > 1) {
      const int64_t place = ((int64_t(split) * p.batch + seq.batch) * p.heads + head) * p.q_len + i;
      if (first) p.partial_lse[place] = end.lse;
      store_line(p.partial_out + place * p.value_dim + column0, columns, false, of, factor, out);
    } else {
      if (first) p.lse[p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i)] = end.lse;
      store_line(query_row(p, p.out, seq, head, i) + column0, columns, false, of, factor, out);
    }
  }
}

// Grid: groups of columns of the values, then of the keys; tiles of keys, heads of keys, sequences.
template <class T, bool kTf32 = false>
__global__ void attention_grad_key_fma_kernel(AttentionParams<T> p, int tiles) {
  using Acc = accumulate_t<T>;
  constexpr int kN = kTileKeys / 8;
  const int of_value = int(ceil_div(p.value_dim, kFmaColumns<Acc>));
  BlockCursor cursor;
  const int part = cursor.next(of_value + int(ceil_div(p.head_dim, kFmaColumns<Acc>)));
  const int key0 = cursor.next(tiles) * kTileKeys, kv_head = cursor.next(p.kv_heads());
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  if (key0 >= seq.k_len) return;
  const bool takes_value = part < of_value;
  const int column0 = (takes_value ? part : part - of_value) * kFmaColumns<Acc>;

  SharedMemory shared;
  const FmaParts<T, kTf32> parts(shared);
  const int last_key = min_of(key0 + kTileKeys, seq.k_len) - 1;
  const IntRange queries = queries_of_tile(p, seq, key0, last_key);
  Acc out[kFmaColumns<Acc> / 8][4] = {};
  for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for (int query0 = queries.begin / kTileQueries * kTileQueries; query0 < queries.end;
         query0 += kTileQueries) {
      const FmaTile<T, kTf32> tile{p, parts, seq, head, query0, key0};
      const IntRange all{key0, last_key + 1};
      __syncthreads();
      parts.stage_columns(column0, takes_value ? p.value_dim : p.head_dim,
                          tile.queries(takes_value ? p.grad_out : p.query));
      Acc s[kN][4] = {};
      tile.probabilities(all, s);
      if (takes_value) {
        each_score<kN>(
            [&](int n, int e, int line, int column) { s[n][e] *= tile.kept(line, column); });
      } else {
        tile.derivatives(all, s);
        tile.uncap(s);
      }
      tile.keep_weights(s);
      __syncthreads();
      parts.template multiply_columns<true>(out);
    }
  }
  const HeadRows<T>& to = takes_value ? p.grad_value : p.grad_key;
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    const int j = key0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4 + 8 * line;
    if (j > last_key) continue;
    store_line(to.at(seq.tensor_batch(p.cu_k), kv_head, seq.k_row + j) + column0,
               (takes_value ? p.value_dim : p.head_dim) - column0, false, line,
               takes_value ? Acc(1) : p.scale, out);
  }
}

// Grid: groups of columns, then tiles of queries, heads and sequences.
template <class T, bool kTf32 = false>
__global__ void attention_grad_query_fma_kernel(AttentionParams<T> p, int tiles) {
  using Acc = accumulate_t<T>;
  constexpr int kN = kTileKeys / 8;
  BlockCursor cursor;
  const int column0 = cursor.next(int(ceil_div(p.head_dim, kFmaColumns<Acc>))) * kFmaColumns<Acc>;
  const int tile_index = cursor.next(tiles), head = cursor.next(p.heads);
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  const int query0 = tile_index * kTileQueries;

  SharedMemory shared;
  const FmaParts<T, kTf32> parts(shared);
  const int last_query = min_of(query0 + kTileQueries, seq.q_len) - 1;
  const IntRange keys =
      query0 <= last_query ? keys_of_tile(p, seq, query0, last_query) : IntRange{0, 0};
  Acc out[kFmaColumns<Acc> / 8][4] = {};
  Acc slope_sum = 0;
  for (int key0 = keys.begin / kTileKeys * kTileKeys; key0 < keys.end; key0 += kTileKeys) {
    const FmaTile<T, kTf32> tile{p, parts, seq, head, query0, key0};
    __syncthreads();
    parts.stage_columns(column0, p.head_dim, tile.keys(p.key, keys));
    Acc s[kN][4] = {};
    tile.probabilities(keys, s);
    tile.derivatives(keys, s);
    if (p.slope_partials) {
      const int offset = int(p.window.offset(seq.q_len, seq.k_len));
      each_score<kN>([&](int n, int e, int line, int column) {
        const int distance = tile.line_query(line) + offset - tile.first_key() - column;
        slope_sum -= Acc(abs(distance)) * s[n][e];
      });
    }
    tile.uncap(s);
    tile.keep_weights(s);
    __syncthreads();
    if (p.bias_kind != BiasKind::kNone) {
      drop_hidden_rows<2>(p, seq, head / p.group, parts.columns, kTileKeys, kFmaColumns<Acc>, key0,
                          parts.column_place);
    }
    parts.template multiply_columns<false>(out);
  }
  if (p.slope_partials) {
    slope_sum = block_reduce(slope_sum, Sum(), Acc(0), parts.scratch);
    if (threadIdx.x == 0 && column0 == 0) {
      p.slope_partials[(int64_t(seq.batch) * p.heads + head) * tiles + tile_index] = slope_sum;
    }
  }
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    const int i = query0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4 + 8 * line;
    if (i > last_query) continue;
    store_line(query_row(p, p.grad_query, seq, head, i) + column0, p.head_dim - column0, false,
               line, p.scale, out);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
