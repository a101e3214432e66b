// What both passes of deformable convolution do on the CPU for a run of channels: read four pixels
// for a sample, and spread a gradient over them.
#pragma once
#include <algorithm>
#include <limits>

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

// The places of the output pixels from `first` on, one after the other.
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

// Where one tap of one offset group reads, for the output pixels of a tile: found for all of them
// at once, in loops that the compiler makes registers of.
template <class Acc>
class TapSamples {
 public:
  // Of at most so many output pixels.
  explicit TapSamples(int64_t rows) : rows_(rows) {
    pixels_.resize(4 * rows);
    places_.resize(2 * rows);
    masks_.assign(rows, Acc(1));
  }

  // Of the output pixels [first, first + rows).
  void plan(const DeformConvShape& shape, const Acc* offset, const Acc* mask, int64_t image,
            int64_t offset_group, int64_t tap, int64_t first, int64_t rows) {
    const int64_t pixels = shape.out_pixels();
    const int64_t map = (image * shape.offset_groups + offset_group) * shape.taps() + tap;
    const Acc* down = offset + 2 * map * pixels + first;
    const Acc* right = down + pixels;
    // Registers hold as many indices as coordinates.
    const bool narrow = std::is_same_v<Acc, float> &&
                        shape.pixels() + shape.width < std::numeric_limits<int32_t>::max();
    int64_t y = first / shape.out_width, x = first % shape.out_width;
    for (int64_t row = 0, run; row < rows; row += run, ++y, x = 0) {
      run = min_of(rows - row, shape.out_width - x);
      const Acc from_y = Acc(shape.tap_y(y, tap)), from_x = Acc(shape.tap_x(x, tap));
      if (narrow) {
        plan_run<int32_t>(shape, down + row, right + row, from_y, from_x, row, run);
      } else {
        plan_run<int64_t>(shape, down + row, right + row, from_y, from_x, row, run);
      }
    }
    if (mask != nullptr) std::copy_n(mask + map * pixels + first, rows, masks_.data());
  }

  DeformSample<Acc> sample(int64_t row) const {
    DeformSample<Acc> sample;
    for (int k = 0; k < 4; ++k) sample.pixel[k] = pixels_[k * rows_ + row];
    sample.down = places_[row];
    sample.right = places_[rows_ + row];
    return sample;
  }
  Acc mask(int64_t row) const { return masks_[row]; }

 private:
  // Of output pixels beside each other.
  template <class Index>
  void plan_run(const DeformConvShape& shape, const Acc* down, const Acc* right, Acc from_y,
                Acc from_x, int64_t row, int64_t run) {
    int64_t* pixels = pixels_.data() + row;
    Acc* places = places_.data() + row;
    const Index height = Index(shape.height), width = Index(shape.width);
    const Acc stride = Acc(shape.stride_w);
    const int64_t rows = rows_;
#pragma GCC ivdep
    for (int64_t i = 0; i < run; ++i) {
      const Acc x = from_x + Acc(Index(i)) * stride + right[i];
      const auto sample = deform_sample(from_y + down[i], x, height, width);
      for (int k = 0; k < 4; ++k) pixels[k * rows + i] = sample.pixel[k];
      places[i] = sample.down;
      places[rows + i] = sample.right;
    }
  }

  int64_t rows_;
  Buffer<int64_t> pixels_;  // (4, rows)
  Buffer<Acc> places_;      // (2, rows): down, right
  Buffer<Acc> masks_;       // (rows,)
};

// An image whose channels lie together, with zeros for the pixel that does not exist.
template <class T>
struct PixelRows {
  const T* image;
  const T* zeros;
  int64_t pixels, channels;

  const T* at(int64_t pixel) const { return pixel == pixels ? zeros : image + pixel * channels; }
};

// The sums of the lanes of four registers.
template <class T>
inline void sums_of_four(const Vec<T> (&lanes)[4], Accumulate<T> (&sums)[4]) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<Accumulate<T>, float>) {
    const auto pair = [](__m512 a, __m512 b) {  // of neighbours, a and b in turns
      return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    };
    const __m512d low = _mm512_castps_pd(pair(lanes[0], lanes[1])),
                  high = _mm512_castps_pd(pair(lanes[2], lanes[3]));
    const __m512 four = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                      _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
    return;
  }
#endif
  for (int k = 0; k < 4; ++k) {
    sums[k] =
        at::vec::vec_reduce_all<Accumulate<T>>([](auto& a, auto& b) { return a + b; }, lanes[k]);
  }
}

// to[2 i] = first[i] and to[2 i + 1] = second[i], or zeros where there is no second row.
inline void interleave(const c10::BFloat16* first, const c10::BFloat16* second, int64_t count,
                       c10::BFloat16* to) {
  if (second == nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      to[2 * i].x = first[i].x;
      to[2 * i + 1].x = 0;
    }
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    to[2 * i].x = first[i].x;
    to[2 * i + 1].x = second[i].x;
  }
}

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
