// Which tensor core kernel a call of a 16-bit type takes.
#pragma once
#include "tilewright/attention/attention_forward_kernel.cuh"
#include "tilewright/attention/attention_grad_query_kernel.cuh"
#include "tilewright/attention/attention_launch.cuh"
#include "tilewright/attention/attention_tiles.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Calls go(tiles) with the row of the table for the GPU at hand, as a type. Rows that are alike
// share their kernels.
template <int kColumns, bool kGeneral, class Go>
void with_tiles(int capability, const Go& go) {
  const auto take = [&](auto gpu) {
    go([] { return attention_tiles(decltype(gpu)::value, kColumns, kGeneral); });
  };
  if (capability >= 90) return take(std::integral_constant<int, 90>());
  if (capability >= 86) return take(std::integral_constant<int, 86>());
  take(std::integral_constant<int, 80>());
}

template <class T, int kHeadDim, bool kGeneral>
void forward_of(const AttentionParams<T>& p) {
  with_tiles<kHeadDim, kGeneral>(p.capability, [&](auto row) {
    constexpr AttentionTiles kTiles = row();
    constexpr int kGroups = kTiles.forward_groups, kKeys = kTiles.forward_step;
    using Parts = ForwardParts<T, kHeadDim, kGeneral, kGroups, kKeys>;
    const int tiles = forward_tiles(p, Parts::kQueries);
    launch<attention_forward_kernel<T, kHeadDim, kGeneral, kGroups, kKeys>>(
        attention_config<Parts>(tiles * forward_units(p)), p, tiles);
  });
}

template <class T, int kHeadDim, bool kGeneral>
void backward_of(const AttentionParams<T>& p) {
  with_tiles<kHeadDim, kGeneral>(p.capability, [&](auto row) {
    constexpr AttentionTiles kTiles = row();
    constexpr int kKeyGroups = kTiles.key_groups, kKeyStep = kTiles.key_step;
    constexpr int kKeyParts = kTiles.key_parts;
    using KeyParts = GradKeyParts<T, kHeadDim, kGeneral, kKeyGroups, kKeyStep>;
    const int key_tiles = int(ceil_div(p.k_len, KeyParts::kKeys));
    launch<attention_grad_key_kernel<T, kHeadDim, kGeneral, kKeyGroups, kKeyStep, kKeyParts>>(
        attention_config<KeyParts>(int64_t(key_tiles) * kKeyParts * p.batch * p.kv_heads()), p,
        key_tiles);
    constexpr int kQueryGroups = kTiles.query_groups, kQueryStep = kTiles.query_step;
    using QueryParts = GradQueryParts<T, kHeadDim, kGeneral, kQueryGroups, kQueryStep>;
    const int query_tiles = int(ceil_div(p.q_len, QueryParts::kQueries));
    launch<attention_grad_query_kernel<T, kHeadDim, kGeneral, kQueryGroups, kQueryStep>>(
        attention_config<QueryParts>(int64_t(query_tiles) * p.batch * p.heads), p, query_tiles);
  });
}

// Rows are padded to the next of three sizes.
template <class T>
void launch_attention_forward(const AttentionParams<T>& p, bool plain) {
  const int columns = max_of(p.head_dim, p.value_dim);
  if (columns <= 64) {
    plain ? forward_of<T, 64, false>(p) : forward_of<T, 64, true>(p);
  } else if (columns <= 128) {
    plain ? forward_of<T, 128, false>(p) : forward_of<T, 128, true>(p);
  } else {
    forward_of<T, 256, true>(p);
  }
  launch_combine(p);
}

template <class T>
void launch_attention_backward(const AttentionParams<T>& p, bool plain) {
  launch_rows(p);
  const int columns = max_of(p.head_dim, p.value_dim);
  if (columns <= 64) {
    plain ? backward_of<T, 64, false>(p) : backward_of<T, 64, true>(p);
  } else if (columns <= 128) {
    plain ? backward_of<T, 128, false>(p) : backward_of<T, 128, true>(p);
  } else {
    backward_of<T, 256, true>(p);
  }
  launch_grad_bias(p);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
