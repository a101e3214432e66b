// deform_aggregate's sizes and where its taps read, once, for every machine. What a sample is
// stands in deform_math.h.
#pragma once
#include "tilewright/deform/deform_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct DeformAggregateShape {
  int64_t batch, height, width, channels;  // of the input
  int64_t out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups;
  double offset_scale;

  TILEWRIGHT_HD int64_t taps() const { return kernel_h * kernel_w; }
  TILEWRIGHT_HD int64_t pixels() const { return height * width; }
  TILEWRIGHT_HD int64_t out_pixels() const { return out_height * out_width; }
  TILEWRIGHT_HD int64_t group_channels() const { return channels / groups; }

  // What tap (ky, kx) reads whose offset is (move_x, move_y). The grid and the offsets are
  // stretched by offset_scale around the kernel's centre, of an even kernel the pixel above and
  // left of it.
  template <class T>
  TILEWRIGHT_HD DeformSample<T> sample(int64_t out_y, int64_t out_x, int64_t ky, int64_t kx,
                                       T move_x, T move_y) const {
    const int64_t half_h = dilation_h * (kernel_h - 1) / 2,
                  half_w = dilation_w * (kernel_w - 1) / 2;
    const T scale = T(offset_scale);
    const T y =
        T(out_y * stride_h - pad_h + half_h) + (T(ky * dilation_h - half_h) + move_y) * scale;
    const T x =
        T(out_x * stride_w - pad_w + half_w) + (T(kx * dilation_w - half_w) + move_x) * scale;
    return deform_sample(y, x, height, width);
  }
  // visit(tap, ky, kx): taps are counted column by column.
  template <class Visit>
  TILEWRIGHT_HD void for_taps(const Visit& visit) const {
    int64_t tap = 0;
    for (int64_t kx = 0; kx < kernel_w; ++kx) {
      for (int64_t ky = 0; ky < kernel_h; ++ky) visit(tap++, ky, kx);
    }
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
