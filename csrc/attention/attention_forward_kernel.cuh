// The forward pass on tensor cores. A block takes a tile of queries and walks the keys that any of
// them sees; while scores are made of a tile of keys its values arrive, and while these are summed
// the next keys do.
#pragma once
#include "tilewright/attention/attention_mma.cuh"
#include "tilewright/attention/attention_rows.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kGroups and kKeys: forward_groups and forward_step of attention_tiles.h.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kKeys>
struct ForwardParts {
  static constexpr int kQueries = 16 * kAttentionWarps * kGroups;
  T *query, *key, *value;
  DropoutTile dropout{};
  uint8_t* absent = nullptr;  // (kKeys,): keys whose page does not exist
  TILEWRIGHT_HD ForwardParts(SharedMemory& shared)
      : query(shared.take<T>(kQueries * kHeadDim, 128)),
        key(shared.take<T>(kKeys * kHeadDim, 128)),
        value(shared.take<T>(kKeys * kHeadDim, 128)) {
    if constexpr (kGeneral) {
      dropout.keep = shared.take<uint8_t>(kQueries * 16);
      absent = shared.take<uint8_t>(kKeys);
    }
  }
};

// Grid: tiles of queries, then splits, heads (of keys where groups are packed) and sequences.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kKeys>
__global__ void attention_forward_kernel(AttentionParams<T> p, int tiles) {
  using Parts = ForwardParts<T, kHeadDim, kGeneral, kGroups, kKeys>;
  constexpr int kN = kKeys / 8;
  const bool packed = kGeneral && p.packs_group;
  const int pack = packed ? p.group : 1;
  BlockCursor cursor;
  // The last queries see the most keys under a causal mask: they start first.
  const int tile = tiles - 1 - cursor.next(tiles);
  const int split = kGeneral ? cursor.next(p.splits) : 0;
  const int unit = cursor.next(packed ? p.kv_heads() : p.heads);
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  const int kv_head = packed ? unit : unit / p.group;
  const int row0 = tile * Parts::kQueries, rows = seq.q_len * pack;
  if (row0 >= rows) return;

  SharedMemory shared;
  const Parts parts(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16 * kGroups;
  const auto query_of = [&](int row) { return packed ? (row0 + row) / pack : row0 + row; };
  const auto head_of = [&](int row) { return packed ? unit * pack + (row0 + row) % pack : unit; };
  const int first_query = query_of(0);
  const int last_query = min_of(query_of(Parts::kQueries - 1), seq.q_len - 1);
  const IntRange keys = keys_of_tile(p, seq, first_query, last_query);
  const TileWalk walk =
      kGeneral ? split_keys(p, keys, split)
               : TileWalk{keys.begin / kKeys * kKeys, keys.end > keys.begin ? keys.end : 0};

  const auto load_keys = [&](T* to, const HeadRows<const T>& from, int columns, int key0) {
    if constexpr (kGeneral) {
      if (p.table) {
        load_scattered<kKeys, kHeadDim>(to, columns, p.aligned, from.data, [&](int r) {
          const int j = key0 + r;
          return j >= keys.begin && j < keys.end ? key_row(p, from, seq, kv_head, j)
                                                 : static_cast<const T*>(nullptr);
        });
        return;
      }
    }
    const T* first = from.at(seq.tensor_batch(p.cu_k), kv_head, seq.k_row + key0);
    load_tile<kKeys, kHeadDim, kGeneral>(to, {first, from.row, keys.begin - key0, keys.end - key0},
                                         columns, p.aligned, from.data);
  };
  if (packed) {
    load_scattered<Parts::kQueries, kHeadDim>(
        parts.query, p.head_dim, p.aligned, p.query.data, [&](int r) {
          return query_of(r) < seq.q_len ? query_row(p, p.query, seq, head_of(r), query_of(r))
                                         : static_cast<const T*>(nullptr);
        });
  } else {
    const T* first = query_row(p, p.query, seq, unit, row0);
    load_tile<Parts::kQueries, kHeadDim, kGeneral>(parts.query,
                                                   {first, p.query.row, 0, seq.q_len - row0},
                                                   p.head_dim, p.aligned, p.query.data);
  }
  if (walk.begin < walk.end) load_keys(parts.key, p.key, p.head_dim, walk.begin);
  commit_copies();

  float out[kGroups][kHeadDim / 8][4] = {};
  RunningSoftmax<float> softmax[kGroups];
#pragma unroll
  for (int m = 0; m < kGroups; ++m) softmax[m].start();
  // Warps whose rows are all behind the last need no more than to help with copies.
  const bool works = row0 + warp_row < rows;
  const float unit_log2 = kGeneral ? 1.f : p.scale * float(kLog2E);

  for (int key0 = walk.begin; key0 < walk.end; key0 += kKeys) {
    wait_copies<0>();
    __syncthreads();
    load_keys(parts.value, p.value, p.value_dim, key0);
    commit_copies();
    if constexpr (kGeneral) {
      if (p.table && int(threadIdx.x) < kKeys) {
        const int j = key0 + int(threadIdx.x);
        parts.absent[threadIdx.x] = j < keys.end && !key_row(p, p.key, seq, kv_head, j);
      }
      if (p.rng_state && (key0 == walk.begin || key0 % kTileKeys == 0)) {
        parts.dropout.fill(p, Parts::kQueries, key0, [&](int row, int64_t& head, int& query) {
          query = query_of(row);
          head = int64_t(seq.batch) * p.heads + head_of(row);
        });
      }
    }

    float s[kGroups][kN][4] = {};
    multiply_rows<kHeadDim>(parts.query, warp_row, parts.key, 0, s);
    wait_copies<0>();
    __syncthreads();
    if (key0 + kKeys < walk.end) {
      load_keys(parts.key, p.key, p.head_dim, key0 + kKeys);
      commit_copies();
    }
    if constexpr (kGeneral) {
      if (p.bias_kind != BiasKind::kNone) {
        drop_hidden_rows<8>(p, seq, kv_head, parts.value, kKeys, kHeadDim, key0,
                            [](int r, int c) { return tile_place<kHeadDim>(r, c / 8); });
      }
    }
    if (!works) continue;

    if constexpr (kGeneral) {
      const int row = warp_row + g;
      const ScoreLine<float> lines[2] = {query_line(p, seq, head_of(row), query_of(row)),
                                         query_line(p, seq, head_of(row + 8), query_of(row + 8))};
      scores_of(p, lines, key0 + 2 * t, p.bias_column, s[0], [](int, int, float) {});
      if (p.table) {
        each_score<kN>([&](int n, int e, int, int column) {
          if (parts.absent[2 * t + column]) s[0][n][e] = minus_infinity<float>();
        });
      }
    } else if (keys_of(p, seq, last_query).begin > key0 ||
               keys_of(p, seq, first_query).end < key0 + kKeys) {
#pragma unroll
      for (int m = 0; m < kGroups; ++m) {
        const int row = row0 + warp_row + 16 * m + g;
        hide_scores({keys_of(p, seq, row), keys_of(p, seq, row + 8)}, key0 + 2 * t, s[m]);
      }
    }
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
      float rescale[2];
      softmax[m].update(s[m], unit_log2, rescale);
      // Once the largest score has come by, both are 1.
      if (__any_sync(0xffffffff, rescale[0] != 1 || rescale[1] != 1)) {
        each_score<kHeadDim / 8>(
            [&](int n, int e, int line, int) { out[m][n][e] *= rescale[line]; });
      }
    }
    if constexpr (kGeneral) {
      if (p.rng_state) {
        each_score<kN>([&](int n, int e, int line, int column) {
          if (!parts.dropout.keeps(warp_row + g + 8 * line, key0 % kTileKeys + 2 * t + column))
            s[0][n][e] = 0;
        });
      }
    }
    uint32_t probabilities[kGroups][kN / 2][4];
    pack_results<T>(s, probabilities);
    multiply_columns<kHeadDim>(probabilities, parts.value, 0, out);
  }
  wait_copies<0>();
  if (!works) return;

#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int row = warp_row + 16 * m + g + 8 * line;
      const int i = query_of(row), head = head_of(row);
      const bool sinks = p.sinks && (!kGeneral || p.splits == 1) && i < seq.q_len;
      const LineEnd<float> end =
          finish_line(softmax[m].largest[line], softmax[m].sum[line],
                      sinks ? ldg(p.sinks + head) * float(kLog2E) : minus_infinity<float>());
      if (i >= seq.q_len) continue;
      if constexpr (kGeneral) {
        const float factor = end.factor * p.keep_scale;
        if (p.splits > 1) {
          const int64_t place =
              ((int64_t(split) * p.batch + seq.batch) * p.heads + head) * p.q_len + i;
          if (t == 0) p.partial_lse[place] = end.lse;
          store_line(p.partial_out + place * p.value_dim, p.value_dim, p.value_dim % 2 == 0, line,
                     factor, out[m]);
          continue;
        }
        store_line(query_row(p, p.out, seq, head, i), p.value_dim, p.pairs, line, factor, out[m]);
      } else {
        store_line(query_row(p, p.out, seq, head, i), p.value_dim, true, line, end.factor, out[m]);
      }
      if (t == 0) p.lse[p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i)] = end.lse;
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
