// Registers of activations, and tiles of weights as the loops of nade read them.
#pragma once
#include "tilewright/core/cpu/exp2.h"
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/log2.h"
#include "tilewright/density/nade_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// sigmoid(a) of each -log2(e) a; NaN goes through.
template <class A, int kCount>
inline void sigmoid_each(at::vec::Vectorized<A> (&power)[kCount]) {
  using V = at::vec::Vectorized<A>;
  for (int k = 0; k < kCount; ++k) power[k] = min_of(power[k], V(A(126)));
  exp2_each<5>(power);
  for (int k = 0; k < kCount; ++k) power[k] = V(A(1)) + power[k];
  for (int k = 0; k < kCount; ++k) power[k] = V(A(1)) / power[k];
}

template <class A>
inline at::vec::Vectorized<A> sigmoid_lanes(const at::vec::Vectorized<A>& power) {
  at::vec::Vectorized<A> one[1] = {power};
  sigmoid_each<A>(one);
  return one[0];
}

// Both weights of a tile of units, as (D, kNadeUnits) with zeros for units that are not there;
// weight_in is multiplied by -log2(e).
template <class T>
inline void load_weight_in(const void* weight_in, int64_t pixels, int64_t hidden, int64_t tile,
                           Accumulate<T>* to) {
  const int64_t first = tile * kNadeUnits, units = min_of(kNadeUnits, hidden - first);
  const auto* from = static_cast<const T*>(weight_in) + first * pixels;
  if (units < kNadeUnits) {
    for (int64_t i = 0; i < pixels * kNadeUnits; ++i) to[i] = Accumulate<T>(0);
  }
  planes_to_tile<T>(from, pixels, pixels, units, to, kNadeUnits);
  const Accumulate<T> factor(-kLog2E);
  for (int64_t i = 0; i < pixels * kNadeUnits; ++i) to[i] *= factor;
}
template <class T>
inline void load_weight_out(const void* weight_out, int64_t pixels, int64_t hidden, int64_t tile,
                            Accumulate<T>* to, int64_t stride) {
  const int64_t first = tile * kNadeUnits;
  const auto* from = static_cast<const T*>(weight_out) + first;
  for (int64_t lane = 0; lane < kNadeUnits; lane += kLanes<T>) {
    const int64_t count = min_of(kLanes<T>, hidden - first - lane);
    for (int64_t d = 0; d < pixels; ++d) {
      Vec<T> values(Accumulate<T>(0));
      if (count > 0) values = load_lanes(from + d * hidden + lane, count);
      values.store(to + d * stride + lane);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
