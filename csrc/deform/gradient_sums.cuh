// Sums by atomic additions that many threads make to the same places. Sums of floats depend on the
// order of their addends; where they must be the same in every run they are sums of whole numbers,
// whose unit follows from the largest addend, which a first pass finds.
#pragma once
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/reduce.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class Acc>
struct GradientSums {
  Acc* floats;      // or null, as is `whole` then, where no sums are wanted
  int64_t* whole;   // of the reproducible sums, or null
  int* not_finite;  // which of these met what is not finite
  Acc* largest;     // of all addends
  bool only_largest;
  double addends;  // of one sum, at most

  TILEWRIGHT_HD bool wanted() const { return floats != nullptr; }
  // What 1 stands for: sums of so many addends stay below 2^62.
  TILEWRIGHT_DEVICE double unit() const { return double(ldg(largest)) * addends * 0x1p-62; }

  TILEWRIGHT_DEVICE void add(int64_t place, Acc value) const {
    if (!whole) return atomic_add(floats + place, value);
    if (!(value - value == Acc(0))) {
      atomicOr(not_finite + place, 1);
      return;
    }
    const double one = unit();
    if (one > 0) atomic_add(whole + place, int64_t(rint(double(value) / one)));
  }
  // The first pass: a thread's largest addend so far, and all threads' in the end. The whole warp
  // takes part in the latter.
  TILEWRIGHT_DEVICE static void note(Acc value, Acc& largest_here) {
    const Acc size = value < Acc(0) ? -value : value;
    if (size - size == Acc(0)) largest_here = max_of(largest_here, size);
  }
  TILEWRIGHT_DEVICE void keep_largest(Acc largest_here) const {
    largest_here = warp_reduce(largest_here, Max());
    if (threadIdx.x % 32 == 0) atomic_max_of_positive(largest, largest_here);
  }
};

// The whole numbers as floats.
template <class Acc>
__global__ void gradient_sums_kernel(GradientSums<Acc> sums, int64_t count) {
  const double unit = sums.unit();
  for (int64_t i : grid_stride(count)) {
    const Acc nothing = Acc(0);
    sums.floats[i] = sums.not_finite[i] ? nothing / nothing : Acc(double(sums.whole[i]) * unit);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
