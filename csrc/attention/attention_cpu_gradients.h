// Row loops of attention's backward pass.
#pragma once
#include "tilewright/attention/attention_cpu_rows.h"
#include "tilewright/core/cpu/tile_pack.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// One query's row: on entry scores and the products of dO with values, on return the weights of
// values and the gradients of scores.
template <class A>
struct GradientRow {
  A *scores, *grads;
  const A* keeps;  // of dropout, or null
  A factor, lse, delta;
  A lse_rest;  // what lse, in powers of 2, is short of: rounding it would show in all weights
  int64_t width;
  bool general;
};

template <bool kGeneral, class A>
inline void differentiate_row_as(const GradientRow<A>& row) {
  using V = at::vec::Vectorized<A>;
  constexpr int kDegree = 5;
  const V factor(row.factor), offset(-row.lse), rest(row.lse_rest);
  const V delta(row.delta), zero(A(0));
  for (int64_t i = 0; i < row.width; i += V::size()) {
    V exponent = at::vec::fmadd(V::loadu(row.scores + i), factor, offset) - rest;
    // float32 has no digits of lse left where scores are beyond 1e7, as a mask of -1e9 makes them:
    // no probability is above 1, NaN stays NaN.
    if (kGeneral) exponent = min_of(exponent, zero);
    const V p = exp2_lanes<kDegree>(exponent);
    V grad = V::loadu(row.grads + i), weight = p;
    if (kGeneral && row.keeps != nullptr) {
      const V keep = V::loadu(row.keeps + i);
      grad = grad * keep;
      weight = p * keep;
    }
    grad = p * (grad - delta);
    // What no one sees may be NaN behind a weight of 0.
    if (kGeneral) grad = V::blendv(grad, zero, p == zero);
    weight.store(row.scores + i);
    grad.store(row.grads + i);
  }
}

template <class A>
inline void differentiate_row(const GradientRow<A>& row) {
  row.general || row.keeps != nullptr ? differentiate_row_as<true>(row)
                                      : differentiate_row_as<false>(row);
}

template <class A>
inline void clear_row(A* row, int64_t count) {
  std::memset(row, 0, size_t(count) * sizeof(A));
}
template <class A>
inline void multiply_rows(A* row, const A* factors, int64_t count) {
  for (int64_t i = 0; i < count; ++i) row[i] *= factors[i];
}
template <class A>
inline void add_rows(A* row, const A* terms, int64_t count) {
  for (int64_t i = 0; i < count; ++i) row[i] += terms[i];
}

template <class A>
inline A row_sum(const A* row, int64_t count) {
  using V = at::vec::Vectorized<A>;
  V sum(A(0));
  for (int64_t i = 0; i < count; i += V::size()) {
    sum = sum + V::loadu(row + i, min_of(int64_t(V::size()), count - i));
  }
  return at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return a + b; }, sum);
}

template <class T>
inline Accumulate<T> dot(const T* a, const T* b, int64_t count) {
  Vec<T> sum(Accumulate<T>(0));
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const int64_t lanes = min_of(kLanes<T>, count - i);
    sum = at::vec::fmadd(load_lanes(a + i, lanes), load_lanes(b + i, lanes), sum);
  }
  using A = Accumulate<T>;
  return at::vec::vec_reduce_all<A>([](const Vec<T>& x, const Vec<T>& y) { return x + y; }, sum);
}

// rows (count, size) of the tensor from a transposed tile (size, count).
template <class T, class A>
inline void tile_to_rows(const A* tile, int64_t tile_stride, int64_t count, int64_t size, T* rows,
                         int64_t stride) {
  for_squares(size, kLanes<T>, [&](int64_t i, int64_t lanes) {
    for_squares(count, kLanes<T>, [&](int64_t r, int64_t side) {
      Square<T> square;
      for (int k = 0; k < kLanes<T>; ++k) {
        if (k < lanes) {
          square.load(k, tile + (i + k) * tile_stride + r, side);
        } else {
          square.clear(k);
        }
      }
      square.transpose();
      for (int k = 0; k < side; ++k) square.store(k, rows + (r + k) * stride + i, lanes);
    });
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
