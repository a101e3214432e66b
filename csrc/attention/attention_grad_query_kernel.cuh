// The gradients of queries, and of ALiBi's slopes: a block owns a tile of queries and walks the
// keys that they see.
#pragma once
#include "tilewright/attention/attention_backward_kernel.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kGroups and kStep: query_groups and query_step of attention_tiles.h.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kStep>
struct GradQueryParts {
  static constexpr int kQueries = 16 * kAttentionWarps * kGroups;
  T *query, *grad;
  T *key, *value;  // (2, kStep, kHeadDim)
  DropoutTile dropout{};
  float* scratch = nullptr;  // (32,)
  TILEWRIGHT_HD GradQueryParts(SharedMemory& shared)
      : query(shared.take<T>(kQueries * kHeadDim, 128)),
        grad(shared.take<T>(kQueries * kHeadDim, 128)),
        key(shared.take<T>(2 * kStep * kHeadDim, 128)),
        value(shared.take<T>(2 * kStep * kHeadDim, 128)) {
    if constexpr (kGeneral) {
      dropout.keep = shared.take<uint8_t>(kQueries * 16);
      scratch = shared.take<float>(32);
    }
  }
};

// Grid: tiles of queries, then heads and sequences.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kStep>
__global__ void attention_grad_query_kernel(AttentionParams<T> p, int tiles) {
  constexpr int kN = kStep / 8;
  using Parts = GradQueryParts<T, kHeadDim, kGeneral, kGroups, kStep>;
  BlockCursor cursor;
  const int tile = tiles - 1 - cursor.next(tiles), head = cursor.next(p.heads);
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  const int kv_head = head / p.group, query0 = tile * Parts::kQueries;

  SharedMemory shared;
  const Parts parts(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_query = warp * 16 * kGroups;
  const int last_query = min_of(query0 + Parts::kQueries, seq.q_len) - 1;
  const IntRange keys =
      query0 <= last_query ? keys_of_tile(p, seq, query0, last_query) : IntRange{0, 0};
  const int first_key = keys.begin / kStep * kStep;

  const auto load_queries = [&](T* to, const HeadRows<const T>& from, int columns) {
    load_tile<Parts::kQueries, kHeadDim, kGeneral>(
        to, {query_row(p, from, seq, head, query0), from.row, 0, last_query + 1 - query0}, columns,
        p.aligned, from.data);
  };
  const auto load_step = [&](int key0, int half) {
    const auto load = [&](T* to, const HeadRows<const T>& from, int columns) {
      const T* first = from.at(seq.tensor_batch(p.cu_k), kv_head, seq.k_row + key0);
      load_tile<kStep, kHeadDim, kGeneral>(to + half * kStep * kHeadDim,
                                           {first, from.row, keys.begin - key0, keys.end - key0},
                                           columns, p.aligned, from.data);
    };
    load(parts.key, p.key, p.head_dim);
    load(parts.value, p.value, p.value_dim);
  };
  load_queries(parts.query, p.query, p.head_dim);
  load_queries(parts.grad, p.grad_out, p.value_dim);
  if (first_key < keys.end) load_step(first_key, 0);
  commit_copies();

  float lse_log2[kGroups][2], delta[kGroups][2];
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = query0 + warp_query + 16 * m + g + 8 * line;
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i);
      lse_log2[m][line] = i <= last_query ? ldg(p.lse_log2 + place) : -minus_infinity<float>();
      delta[m][line] = i <= last_query ? ldg(p.delta + place) : 0.f;
    }
  }
  float out[kGroups][kHeadDim / 8][4] = {};
  float slope_sum = 0, score_sums[2] = {};
  const float unit_log2 = kGeneral ? 1.f : p.scale * float(kLog2E);

  int half = 0;
  for (int key0 = first_key; key0 < keys.end; key0 += kStep, half ^= 1) {
    wait_copies<0>();
    __syncthreads();
    if (key0 + kStep < keys.end) load_step(key0 + kStep, half ^ 1);
    commit_copies();
    T* key = parts.key + half * kStep * kHeadDim;
    const T* value = parts.value + half * kStep * kHeadDim;
    if constexpr (kGeneral) {
      if (p.rng_state && (key0 == first_key || key0 % kTileKeys == 0)) {
        parts.dropout.fill(p, Parts::kQueries, key0 / kTileKeys * kTileKeys,
                           [&](int row, int64_t& of, int& i) {
                             of = int64_t(seq.batch) * p.heads + head, i = query0 + row;
                           });
        __syncthreads();
      }
      if (p.bias_kind != BiasKind::kNone) {
        drop_hidden_rows<8>(p, seq, kv_head, key, kStep, kHeadDim, key0,
                            [](int r, int c) { return tile_place<kHeadDim>(r, c / 8); });
      }
    }

    float s[kGroups][kN][4] = {}, ds[kGroups][kN][4] = {};
    multiply_rows<kHeadDim>(parts.query, warp_query, key, 0, s);
    multiply_rows<kHeadDim>(parts.grad, warp_query, value, 0, ds);
    float capped[kGeneral ? kN : 1][4];
    ScoreLine<float> lines[2];
    if constexpr (kGeneral) {
      const int i = query0 + warp_query + g;
      lines[0] = query_line(p, seq, head, i), lines[1] = query_line(p, seq, head, i + 8);
      scores_of(p, lines, key0 + 2 * t, p.bias_column, s[0],
                [&](int n, int e, float tanh) { capped[n][e] = tanh; });
    } else if (keys_of(p, seq, last_query).begin > key0 ||
               keys_of(p, seq, query0).end < key0 + kStep) {
#pragma unroll
      for (int m = 0; m < kGroups; ++m) {
        const int i = query0 + warp_query + 16 * m + g;
        hide_scores({keys_of(p, seq, i), keys_of(p, seq, i + 8)}, key0 + 2 * t, s[m]);
      }
    }
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
      each_score<kN>([&](int n, int e, int line, int column) {
        const float probability =
            probability_of<kGeneral>(s[m][n][e], unit_log2, lse_log2[m][line]);
        float dp = ds[m][n][e];
        if (kGeneral && p.rng_state) {
          const bool keeps =
              parts.dropout.keeps(warp_query + g + 8 * line, key0 % kTileKeys + 2 * t + column);
          dp = keeps ? dp * p.keep_scale : 0.f;
        }
        const float value = probability * (dp - delta[m][line]);
        // A hidden key may hold anything.
        ds[m][n][e] = kGeneral && probability == 0 ? 0.f : value;
      });
    }
    if constexpr (kGeneral) {
      if (p.slope_partials) {
        each_score<kN>([&](int n, int e, int line, int column) {
          slope_sum -= float(abs(lines[line].center - key0 - 2 * t - column)) * ds[0][n][e];
        });
      }
      if (p.score_sums) {
        each_score<kN>([&](int n, int e, int line, int) { score_sums[line] += ds[0][n][e]; });
      }
      if (p.softcap > 0) uncap(capped, ds[0]);
    }
    uint32_t packed[kGroups][kN / 2][4];
    pack_results<T>(ds, packed);
    multiply_columns<kHeadDim>(packed, key, 0, out);
  }
  wait_copies<0>();

  if constexpr (kGeneral) {
    if (p.slope_partials) {
      slope_sum = block_reduce(slope_sum, Sum(), 0.f, parts.scratch);
      if (threadIdx.x == 0) {
        p.slope_partials[(int64_t(seq.batch) * p.heads + head) * tiles + tile] = slope_sum;
      }
    }
  }
  if constexpr (kGeneral) {
    if (p.score_sums) {
#pragma unroll
      for (int line = 0; line < 2; ++line) {
        const float sum = warp_reduce<4>(score_sums[line], Sum());
        const int i = query0 + warp_query + g + 8 * line;
        if (t > 0 || i > last_query) continue;
        p.score_sums[p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i)] = sum;
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = query0 + warp_query + 16 * m + g + 8 * line;
      if (i > last_query) continue;
      store_line(query_row(p, p.grad_query, seq, head, i), p.head_dim, !kGeneral || p.pairs, line,
                 p.scale, out[m]);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
