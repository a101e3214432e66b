// Deformable convolution's formula, once, for every machine: where a tap reads, what the four
// pixels around that place weigh, and the derivative in the place.
#pragma once
#include <type_traits>

#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct DeformConvShape {
  int64_t batch, channels, height, width;  // of the input
  int64_t out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, offset_groups;

  TILEWRIGHT_HD int64_t taps() const { return kernel_h * kernel_w; }
  TILEWRIGHT_HD int64_t pixels() const { return height * width; }
  TILEWRIGHT_HD int64_t out_pixels() const { return out_height * out_width; }
  TILEWRIGHT_HD int64_t group_channels() const { return channels / groups; }
  TILEWRIGHT_HD int64_t group_out_channels() const { return out_channels / groups; }
  TILEWRIGHT_HD int64_t offset_group_channels() const { return channels / offset_groups; }
  // Where a tap lies without an offset.
  TILEWRIGHT_HD int64_t tap_y(int64_t out_y, int64_t tap) const {
    return out_y * stride_h - pad_h + tap / kernel_w * dilation_h;
  }
  TILEWRIGHT_HD int64_t tap_x(int64_t out_x, int64_t tap) const {
    return out_x * stride_w - pad_w + tap % kernel_w * dilation_w;
  }
};

// A bilinear sample of a map that goes on as zeros. Of pixels that do not exist the index is that
// behind the last one, height * width.
template <class T, class Index = int64_t>
struct DeformSample {
  Index pixel[4];  // above left, above right, below left, below right
  T down, right;   // in [0, 1): how far below and right of the first

  TILEWRIGHT_HD T weight(int corner) const {
    return (corner & 2 ? down : T(1) - down) * (corner & 1 ? right : T(1) - right);
  }
  // From the four pixels, or from their products with something: the value, of which a pixel of
  // weight 0 is no part, be it NaN; the derivative in y and in x.
  TILEWRIGHT_HD T value(const T* pixels) const {
    T sum = T(0);
    for (int k = 0; k < 4; ++k) {
      if (weight(k) != T(0)) sum += weight(k) * pixels[k];
    }
    return sum;
  }
  TILEWRIGHT_HD T slope_y(const T* value) const {
    return (T(1) - right) * (value[2] - value[0]) + right * (value[3] - value[1]);
  }
  TILEWRIGHT_HD T slope_x(const T* value) const {
    return (T(1) - down) * (value[1] - value[0]) + down * (value[3] - value[2]);
  }
};

// A coordinate beyond [-1, size), or NaN, reads zeros alone; at exactly -1 the slope counts. Index:
// an integer that holds (height + 1) * width.
template <class T, class Index>
TILEWRIGHT_HD DeformSample<T, Index> deform_sample(T y, T x, Index height, Index width) {
  DeformSample<T, Index> sample;
  const Index none = height * width;
  // One condition a choice, of numbers of one width: compilers make registers of loops over it.
  using Unsigned = std::make_unsigned_t<Index>;
  T safe_y = y >= T(-1) ? y : T(-2), safe_x = x >= T(-1) ? x : T(-2);
  safe_y = safe_y < T(height) ? safe_y : T(-2);
  safe_x = safe_x < T(width) ? safe_x : T(-2);
  const T top_y = std::floor(safe_y), left_x = std::floor(safe_x);
  const Index top = Index(top_y), left = Index(left_x), first = top * width + left;
  const auto in_row = [&](Index row, Index column, Index pixel) {
    const Index found = Unsigned(column) < Unsigned(width) ? pixel : none;
    return Unsigned(row) < Unsigned(height) ? found : none;
  };
  sample.pixel[0] = in_row(top, left, first);
  sample.pixel[1] = in_row(top, left + 1, first + 1);
  sample.pixel[2] = in_row(top + 1, left, first + width);
  sample.pixel[3] = in_row(top + 1, left + 1, first + width + 1);
  sample.down = safe_y - top_y;
  sample.right = safe_x - left_x;
  return sample;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
