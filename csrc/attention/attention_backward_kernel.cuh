// The backward pass on tensor cores, in two kernels that recompute the probabilities: one sums over
// queries into the gradients of a tile of keys and values, one over keys into those of a tile of
// queries. Every sum has one owner and one order: no atomics, the same bits in every run.
#pragma once
#include "tilewright/attention/attention_mma.cuh"
#include "tilewright/attention/attention_rows.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kGroups, kStep, kParts: key_groups, key_step, key_parts of attention_tiles.h.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kStep>
struct GradKeyParts {
  static constexpr int kKeys = 16 * kAttentionWarps * kGroups;
  T *key, *value;
  T *query, *grad;          // (2, kStep, kHeadDim)
  float *lse_log2, *delta;  // (2, kStep)
  DropoutTile dropout{};
  TILEWRIGHT_HD GradKeyParts(SharedMemory& shared)
      : key(shared.take<T>(kKeys * kHeadDim, 128)),
        value(shared.take<T>(kKeys * kHeadDim, 128)),
        query(shared.take<T>(2 * kStep * kHeadDim, 128)),
        grad(shared.take<T>(2 * kStep * kHeadDim, 128)),
        lse_log2(shared.take<float>(2 * kStep)),
        delta(shared.take<float>(2 * kStep)) {
    if constexpr (kGeneral) dropout.keep = shared.take<uint8_t>(kStep * 16);
  }
};

// The derivative by the product of query and key from that by the score.
template <int N>
TILEWRIGHT_DEVICE void uncap(const float (&capped)[N][4], float (&ds)[N][4]) {
  each_score<N>([&](int n, int e, int, int) {
    // A hidden key's tanh may be NaN.
    ds[n][e] = ds[n][e] == 0 ? 0.f : ds[n][e] * (1 - capped[n][e] * capped[n][e]);
  });
}

// Grid: parts, then tiles of keys, heads of keys and sequences.
template <class T, int kHeadDim, bool kGeneral, int kGroups, int kStep, int kParts>
__global__ void attention_grad_key_kernel(AttentionParams<T> p, int tiles) {
  constexpr int kN = kStep / 8;
  using Parts = GradKeyParts<T, kHeadDim, kGeneral, kGroups, kStep>;
  BlockCursor cursor;
  const int part = cursor.next(kParts);
  const int tile = cursor.next(tiles), kv_head = cursor.next(p.kv_heads());
  const AttentionSequence seq = sequence_of(p, cursor.next(p.batch));
  const bool takes_value = kParts == 1 || part == 0, takes_key = kParts == 1 || part == 1;
  const int key0 = tile * Parts::kKeys;
  if (key0 >= seq.k_len) return;

  SharedMemory shared;
  const Parts parts(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_key = warp * 16 * kGroups;
  const int last_key = min_of(key0 + Parts::kKeys, seq.k_len) - 1;
  const IntRange queries = queries_of_tile(p, seq, key0, last_key);
  const int first_step = queries.begin / kStep;
  const int steps =
      queries.end > queries.begin ? int(ceil_div(queries.end, kStep)) - first_step : 0;
  const int rounds = steps * p.group;
  const auto head_of = [&](int round) { return kv_head * p.group + round / steps; };
  const auto query_of = [&](int round) { return (first_step + round % steps) * kStep; };

  // What no query of the sequence sees may hold anything.
  const IntRange seen = keys_of_tile(p, seq, 0, seq.q_len - 1);
  const auto load_keys = [&](T* to, const HeadRows<const T>& from, int columns) {
    const T* first = from.at(seq.tensor_batch(p.cu_k), kv_head, seq.k_row + key0);
    load_tile<Parts::kKeys, kHeadDim, kGeneral>(
        to, {first, from.row, seen.begin - key0, min_of(seen.end, last_key + 1) - key0}, columns,
        p.aligned, from.data);
  };
  const auto load_step = [&](int round) {
    const int head = head_of(round), query0 = query_of(round), half = round % 2;
    const auto load = [&](T* to, const HeadRows<const T>& from, int columns) {
      load_tile<kStep, kHeadDim, kGeneral>(to + half * kStep * kHeadDim,
                                           {query_row(p, from, seq, head, query0), from.row,
                                            queries.begin - query0, queries.end - query0},
                                           columns, p.aligned, from.data);
    };
    load(parts.query, p.query, p.head_dim);
    load(parts.grad, p.grad_out, p.value_dim);
    if (threadIdx.x < 2 * kStep) {
      const int r = threadIdx.x % kStep;
      const bool of_lse = threadIdx.x < kStep, inside = query0 + r < seq.q_len;
      const float* from = of_lse ? p.lse_log2 : p.delta;
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + query0 + r);
      copy_async<4>((of_lse ? parts.lse_log2 : parts.delta) + half * kStep + r,
                    inside ? from + place : from, inside);
    }
  };
  load_keys(parts.key, p.key, p.head_dim);
  if (takes_key) load_keys(parts.value, p.value, p.value_dim);
  if (rounds > 0) load_step(0);
  commit_copies();

  float grads[kParts == 1 ? 2 : 1][kGroups][kHeadDim / 8][4] = {};
  const float unit_log2 = kGeneral ? 1.f : p.scale * float(kLog2E);
  for (int round = 0; round < rounds; ++round) {
    wait_copies<0>();
    __syncthreads();
    if (round + 1 < rounds) load_step(round + 1);
    commit_copies();
    const int head = head_of(round), query0 = query_of(round), half = round % 2;
    T* query = parts.query + half * kStep * kHeadDim;
    T* grad = parts.grad + half * kStep * kHeadDim;
    if constexpr (kGeneral) {
      if (p.bias_kind != BiasKind::kNone) {
        clear_blind_rows<kStep, kHeadDim>(query, grad, parts.lse_log2 + half * kStep);
      }
      if (p.rng_state) {
        parts.dropout.fill(p, kStep, key0, [&](int row, int64_t& of, int& i) {
          of = int64_t(seq.batch) * p.heads + head, i = query0 + row;
        });
        __syncthreads();
      }
    }

    float s[kGroups][kN][4] = {};  // keys by queries
    multiply_rows<kHeadDim>(parts.key, warp_key, query, 0, s);
    float capped[kGeneral ? kN : 1][4];
    if constexpr (kGeneral) {
      const int j = key0 + warp_key + g;
      const ScoreLine<float> lines[2] = {key_line(p, seq, head, j), key_line(p, seq, head, j + 8)};
      scores_of(p, lines, query0 + 2 * t, p.bias_row, s[0],
                [&](int n, int e, float tanh) { capped[n][e] = tanh; });
    } else if (queries_of(p, seq, last_key).begin > query0 ||
               queries_of(p, seq, key0).end < query0 + kStep) {
#pragma unroll
      for (int m = 0; m < kGroups; ++m) {
        const int j = key0 + warp_key + 16 * m + g;
        hide_scores({queries_of(p, seq, j), queries_of(p, seq, j + 8)}, query0 + 2 * t, s[m]);
      }
    }
    const float* lse_log2 = parts.lse_log2 + half * kStep + 2 * t;
    const float* delta = parts.delta + half * kStep + 2 * t;
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
      each_score<kN>([&](int n, int e, int, int column) {
        s[m][n][e] = probability_of<kGeneral>(s[m][n][e], unit_log2, lse_log2[column]);
      });
    }
    const auto kept = [&](int line, int column) {
      return parts.dropout.keeps(2 * t + column, warp_key + g + 8 * line) ? p.keep_scale : 0.f;
    };

    uint32_t packed[kGroups][kN / 2][4];
    if (takes_value) {
      if (kGeneral && p.rng_state) {
        float dropped[kGroups][kN][4];
        each_score<kN>([&](int n, int e, int line, int column) {
          dropped[0][n][e] = s[0][n][e] * kept(line, column);
        });
        pack_results<T>(dropped, packed);
      } else {
        pack_results<T>(s, packed);
      }
      multiply_columns<kHeadDim>(packed, grad, 0, grads[0]);
    }
    if (takes_key) {
      float ds[kGroups][kN][4] = {};
      multiply_rows<kHeadDim>(parts.value, warp_key, grad, 0, ds);
#pragma unroll
      for (int m = 0; m < kGroups; ++m) {
        each_score<kN>([&](int n, int e, int line, int column) {
          float dp = ds[m][n][e];
          if (kGeneral && p.rng_state) dp *= kept(line, column);
          const float value = s[m][n][e] * (dp - delta[column]);
          // A hidden key may hold anything.
          ds[m][n][e] = kGeneral && s[m][n][e] == 0 ? 0.f : value;
        });
      }
      if constexpr (kGeneral) {
        if (p.softcap > 0) uncap(capped, ds[0]);
      }
      pack_results<T>(ds, packed);
      multiply_columns<kHeadDim>(packed, query, 0, grads[kParts == 1 ? 1 : 0]);
    }
  }
  wait_copies<0>();

  const auto store = [&](const HeadRows<T>& to, int columns, float factor,
                         const float(&values)[kGroups][kHeadDim / 8][4]) {
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
#pragma unroll
      for (int line = 0; line < 2; ++line) {
        const int j = key0 + warp_key + 16 * m + g + 8 * line;
        if (j > last_key) continue;
        store_line(to.at(seq.tensor_batch(p.cu_k), kv_head, seq.k_row + j), columns,
                   !kGeneral || p.pairs, line, factor, values[m]);
      }
    }
  };
  if (takes_value) store(p.grad_value, p.value_dim, 1.f, grads[0]);
  if (takes_key) store(p.grad_key, p.head_dim, p.scale, grads[kParts == 1 ? 1 : 0]);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
