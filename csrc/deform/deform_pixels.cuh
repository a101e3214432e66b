// What the device code of the room reads for a sample: a few channels of its pixels, weighed.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/deform/deform_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kWidth channels of an image from `channel` on; pixels that do not exist are zeros.
template <int kWidth, class Shape, class T>
TILEWRIGHT_DEVICE Pack<T, kWidth> pixel_channels(const Shape& s, const T* image, int64_t pixel,
                                                 int64_t channel) {
  Pack<T, kWidth> values;
  if (pixel < s.pixels()) return load_pack<kWidth>(image + pixel * s.channels + channel);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] = from_accumulate<T>(accumulate_t<T>(0));
  return values;
}

// sums += kWidth channels of what a sample reads, times the mask.
template <int kWidth, class Shape, class T>
TILEWRIGHT_DEVICE void add_sample(const Shape& s, const T* image,
                                  const DeformSample<accumulate_t<T>>& sample, accumulate_t<T> mask,
                                  int64_t channel, accumulate_t<T> (&sums)[kWidth]) {
  using Acc = accumulate_t<T>;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const Acc weight = sample.weight(k);
    if (weight == Acc(0)) continue;  // such a pixel is no part of the sample, be it NaN
    const Pack<T, kWidth> pixel = pixel_channels<kWidth>(s, image, sample.pixel[k], channel);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums[i] += weight * mask * to_accumulate(pixel[i]);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
