// deform_aggregate's device code. Forward: a thread for each few channels of a place. Backward: a
// group of lanes for each place and group, which adds up its channels' products by shuffles.
#pragma once
#include "tilewright/deform/deform_aggregate_math.h"
#include "tilewright/deform/deform_pixels.cuh"
#include "tilewright/deform/gradient_sums.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kAggregateThreads = 128;

template <class T>
struct DeformAggregateParams {
  using Acc = accumulate_t<T>;
  DeformAggregateShape shape;
  const T* input;                // (N, H, W, C)
  const Acc *offset, *mask;      // as the operator has them
  T* output;                     // (N, OH, OW, C)
  const T* grad;                 // backward: the same
  Acc *grad_offset, *grad_mask;  // as offset and mask, or null
  GradientSums<Acc> grad_input;  // (N, H, W, C)
};

// One group at one place, and visits to its taps.
template <class T>
struct AggregatePlace {
  using Acc = accumulate_t<T>;
  const DeformAggregateParams<T>& p;
  int64_t index, group, place, image;  // of (N, OH, OW, groups), of the group, (N, OH, OW), N

  TILEWRIGHT_DEVICE AggregatePlace(const DeformAggregateParams<T>& params, int64_t index)
      : p(params),
        index(index),
        group(index % params.shape.groups),
        place(index / params.shape.groups),
        image(place / params.shape.out_pixels()) {}

  // visit(of the tap among all masks, sample, mask)
  template <class Visit>
  TILEWRIGHT_DEVICE void for_samples(const Visit& visit) const {
    const DeformAggregateShape& s = p.shape;
    const int64_t pixel = place % s.out_pixels(), y = pixel / s.out_width, x = pixel % s.out_width;
    s.for_taps([&](int64_t tap, int64_t ky, int64_t kx) {
      const int64_t at = index * s.taps() + tap;
      const Acc move_x = ldg(p.offset + 2 * at), move_y = ldg(p.offset + 2 * at + 1);
      visit(at, s.sample(y, x, ky, kx, move_x, move_y), ldg(p.mask + at));
    });
  }
};

// kWidth: channels that travel together, 1 or what fills 16 bytes.
template <class T, int kWidth>
__global__ void deform_aggregate_forward_kernel(DeformAggregateParams<T> p) {
  using Acc = accumulate_t<T>;
  const DeformAggregateShape& s = p.shape;
  const int64_t packs = s.group_channels() / kWidth;
  for (int64_t i : grid_stride(s.batch * s.out_pixels() * s.groups * packs)) {
    const AggregatePlace<T> at(p, i / packs);
    const int64_t channel = at.group * s.group_channels() + i % packs * kWidth;
    const T* image = p.input + at.image * s.pixels() * s.channels;
    Acc sums[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sums[k] = Acc(0);
    at.for_samples([&](int64_t, const DeformSample<Acc>& sample, Acc mask) {
      add_sample<kWidth>(s, image, sample, mask, channel, sums);
    });
    Pack<T, kWidth> values;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values[k] = from_accumulate<T>(sums[k]);
    store_pack(p.output + at.place * s.channels + channel, values);
  }
}

// Sums over groups of `lanes` neighbouring lanes, a power of 2; the whole warp takes part.
template <class T>
TILEWRIGHT_DEVICE T lanes_sum(T value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffff, value, distance);
  }
  return value;
}

// `lanes`: threads for one group at one place.
template <class T>
__global__ void deform_aggregate_backward_kernel(DeformAggregateParams<T> p, int lanes) {
  using Acc = accumulate_t<T>;
  const DeformAggregateShape& s = p.shape;
  const int64_t count = s.group_channels(), all = s.batch * s.out_pixels() * s.groups;
  const int together = kAggregateThreads / lanes, lane = int(threadIdx.x) % lanes;
  Acc largest = Acc(0);
  for (int64_t first = blockIdx.x * int64_t(together); first < all;
       first += gridDim.x * int64_t(together)) {
    const int64_t index = first + int(threadIdx.x) / lanes;
    const bool exists = index < all;  // the others follow along for the shuffles
    const AggregatePlace<T> at(p, exists ? index : all - 1);
    const T* grad = p.grad + at.place * s.channels + at.group * count;
    const int64_t image = at.image * s.pixels() * s.channels + at.group * count;
    at.for_samples([&](int64_t tap, const DeformSample<Acc>& sample, Acc mask) {
      Acc dots[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        dots[k] = Acc(0);
        if (exists && sample.pixel[k] < s.pixels()) {
          const int64_t place = image + sample.pixel[k] * s.channels;
          const Acc share = sample.weight(k);
          for (int64_t c = lane; c < count; c += lanes) {
            const Acc g = to_accumulate(ldg(grad + c));
            dots[k] += g * to_accumulate(ldg(p.input + place + c));
            if (share == Acc(0)) continue;  // such a pixel is no part of the sample
            if (p.grad_input.only_largest) {
              p.grad_input.note(g * (share * mask), largest);
            } else if (p.grad_input.wanted()) {
              p.grad_input.add(place + c, g * (share * mask));
            }
          }
        }
        dots[k] = lanes_sum(dots[k], lanes);
      }
      if (p.grad_input.only_largest || !exists || lane != 0) return;
      if (p.grad_offset) {
        const Acc scale = mask * Acc(s.offset_scale);
        p.grad_offset[2 * tap] = scale * sample.slope_x(dots);
        p.grad_offset[2 * tap + 1] = scale * sample.slope_y(dots);
      }
      if (p.grad_mask) p.grad_mask[tap] = sample.value(dots);
    });
  }
  if (p.grad_input.only_largest) p.grad_input.keep_largest(largest);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
