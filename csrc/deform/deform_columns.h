// What both passes of deformable convolution do on the CPU for a run of channels: read four pixels
// for a sample, and spread a gradient over them.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/gemm.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/deform/deform_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline bool fits_brgemm(int64_t row, int64_t other_row) {
  return max_of(row, other_row) <= kMostLeadingDimension;
}

// So many that registers fill them: what transposing writes.
template <class T>
inline int64_t whole_lanes(int64_t count) {
  return ceil_div(count, kLanes<T>) * kLanes<T>;
}

// The places of the output pixels [first, first + rows), one after the other.
class OutputPlaces {
 public:
  OutputPlaces(int64_t out_width, int64_t first)
      : width_(out_width), y_(first / out_width), x_(first % out_width) {}
  int64_t y() const { return y_; }
  int64_t x() const { return x_; }
  void next() {
    if (++x_ < width_) return;
    x_ = 0;
    ++y_;
  }

 private:
  int64_t width_, y_, x_;
};

// Where one tap of one offset group reads, for the output pixels of a tile.
template <class Acc>
class TapReader {
 public:
  TapReader(const DeformConvShape& shape, const Acc* offset, const Acc* mask, int64_t image,
            int64_t offset_group, int64_t tap, int64_t first)
      : shape_(shape), tap_(tap), places_(shape.out_width, first) {
    const int64_t pixels = shape.out_pixels();
    const int64_t map = (image * shape.offset_groups + offset_group) * shape.taps() + tap;
    down_ = offset + 2 * map * pixels + first;
    right_ = down_ + pixels;
    mask_ = mask ? mask + map * pixels + first : nullptr;
  }

  // Of the row-th output pixel; rows come in order.
  DeformSample<Acc> sample(int64_t row) {
    const Acc y = Acc(shape_.tap_y(places_.y(), tap_)) + down_[row];
    const Acc x = Acc(shape_.tap_x(places_.x(), tap_)) + right_[row];
    places_.next();
    return deform_sample(y, x, shape_.height, shape_.width);
  }
  Acc mask(int64_t row) const { return mask_ ? mask_[row] : Acc(1); }

 private:
  const DeformConvShape& shape_;
  int64_t tap_;
  OutputPlaces places_;
  const Acc *down_, *right_, *mask_;
};

// An image whose channels lie together, with zeros for the pixel that does not exist.
template <class T>
struct PixelRows {
  const T* image;
  const T* zeros;
  int64_t pixels, channels;

  const T* at(int64_t pixel) const { return pixel == pixels ? zeros : image + pixel * channels; }
};

// to[c] = sum over corners of weight * pixel's channel c.
template <class T, class To>
inline void blend(const T* const (&corner)[4], const Accumulate<T> (&weight)[4], int64_t count,
                  To* to) {
  const Vec<T> w0(weight[0]), w1(weight[1]), w2(weight[2]), w3(weight[3]);
  const auto few = [&](int64_t c, int64_t lanes) {
    Vec<T> value = w0 * load_lanes(corner[0] + c, lanes);
    value = at::vec::fmadd(w1, load_lanes(corner[1] + c, lanes), value);
    value = at::vec::fmadd(w2, load_lanes(corner[2] + c, lanes), value);
    value = at::vec::fmadd(w3, load_lanes(corner[3] + c, lanes), value);
    store_lanes<To>(value, to + c, lanes);
  };
  int64_t c = 0;
  for (; c + kLanes<T> <= count; c += kLanes<T>) few(c, kLanes<T>);
  if (c < count) few(c, count - c);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
