// RoIAlign of upright boxes where channels are the innermost dimension: SIMD over channels, a tap
// of a bin is one fused multiply-add per register. Sums go down the columns of a bin, then along x.
#pragma once
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/pixel_rows.h"
#include "tilewright/detection/roi_align_taps.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The boxes of a call, as RoiAlignCpu (roi_align_pieces.h) wants them.
template <class T>
class UprightBoxes {
  using Acc = Accumulate<T>;
  // Registers of channels that are summed at once: enough to hide the latency of the sums, few
  // enough for 16 registers.
  static constexpr int kVectors = 4;

 public:
  static constexpr int64_t kRoiWidth = 5;

  explicit UprightBoxes(const RoiAlignGeometry& geometry)
      : geometry_(geometry),
        pooled_height_(geometry.pooled_height),
        pooled_width_(geometry.pooled_width) {}

  void clear() { taps_.clear(); }
  void add(const Acc* roi, Acc spatial_scale, int64_t height, int64_t width) {
    taps_.add(roi, spatial_scale, geometry_, height, width);
  }

  // Whether box k has no sample on its map; the rows [first_row, end_row) have them all.
  bool empty(int64_t k) const { return taps_.empty(k); }
  int64_t first_row(int64_t k) const { return taps_[k].y.low; }
  int64_t end_row(int64_t k) const { return taps_[k].y.high; }

  // visit(row, first column, end column) of what it touches.
  template <class Visit>
  void for_rows(int64_t k, Visit visit) const {
    const BoxTaps<Acc> box = taps_[k];
    for (int64_t i = 0; i < box.y.size; ++i) visit(box.y.taps[i].pixel, box.x.low, box.x.high);
  }

  // pooled[bin * bin_stride + c] for every bin and c < channels; channels counts whole registers
  // unless both sides may be read and written up to it alone.
  template <class Pixel, class Pooled>
  void pool(int64_t k, const PixelRows<const Pixel>& map, int64_t channels, Pooled* pooled,
            int64_t bin_stride) {
    const BoxTaps<Acc> box = taps_[k];
    for (int64_t ph = 0; ph < pooled_height_; ++ph, pooled += pooled_width_ * bin_stride) {
      const Tap<Acc>* y = box.y.begin(ph);
      const int64_t rows = box.y.end(ph) - y;
      rows_.resize(rows);
      for (int64_t r = 0; r < rows; ++r)
        rows_[r] = {map.data + map.offset(y[r].pixel), y[r].weight};
      switch (rows) {
        case 2:
          pool_row<2, Pixel>(box.x, rows, map.pixel_stride, channels, pooled, bin_stride);
          break;
        case 3:
          pool_row<3, Pixel>(box.x, rows, map.pixel_stride, channels, pooled, bin_stride);
          break;
        case 4:
          pool_row<4, Pixel>(box.x, rows, map.pixel_stride, channels, pooled, bin_stride);
          break;
        default: pool_row<0, Pixel>(box.x, rows, map.pixel_stride, channels, pooled, bin_stride);
      }
    }
  }

  // map: (channels, H, W), pooled: (channels, PH, PW); the same sums in the same order.
  template <class Pixel>
  void pool_planes(int64_t k, const Pixel* map, int64_t plane_stride, int64_t width,
                   int64_t channels, Pixel* pooled) const {
    const BoxTaps<Acc> box = taps_[k];
    for (int64_t c = 0; c < channels; ++c, map += plane_stride) {
      for (int64_t bin = 0; bin < pooled_height_ * pooled_width_; ++bin) {
        const int64_t ph = bin / pooled_width_, pw = bin % pooled_width_;
        Acc sum = 0;
        for (auto x = box.x.begin(pw); x != box.x.end(pw); ++x) {
          Acc column = 0;
          for (auto y = box.y.begin(ph); y != box.y.end(ph); ++y) {
            column = multiply_add(y->weight, Acc(map[y->pixel * width + x->pixel]), column);
          }
          sum = multiply_add(x->weight, column, sum);
        }
        *pooled++ = Pixel(sum);
      }
    }
  }

  // Adds the gradient of the bins to the rows [first, last) of a tile of sums.
  template <class Pooled>
  void spread(int64_t k, const Pooled* grad, int64_t bin_stride, int64_t channels,
              const PixelRows<Acc>& sums, int64_t first, int64_t last) const {
    const BoxTaps<Acc> box = taps_[k];
    for (int64_t ph = 0; ph < pooled_height_; ++ph, grad += pooled_width_ * bin_stride) {
      for (auto y = box.y.begin(ph); y != box.y.end(ph); ++y) {
        if (y->pixel < first || y->pixel >= last) continue;
        Acc* row = sums.data + sums.offset(y->pixel);
        int64_t c = 0;
        for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) {
          spread_row<kVectors>(box.x, y->weight, grad + c, bin_stride, row + c, sums.pixel_stride);
        }
        for (; c < channels; c += kLanes<T>) {
          spread_row<1>(box.x, y->weight, grad + c, bin_stride, row + c, sums.pixel_stride,
                        min_of(kLanes<T>, channels - c));
        }
      }
    }
  }

 private:
  // Of a row of taps: where its pixels begin and what it weighs.
  struct Row {
    const void* pixels;
    Acc weight;
  };

  template <int kRows, class Pixel, class Pooled>
  void pool_row(const AxisTaps<Acc>& x, int64_t rows, int64_t pixel_stride, int64_t channels,
                Pooled* pooled, int64_t bin_stride) const {
    int64_t c = 0;
    for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) {
      pool_lanes<kRows, kVectors, Pixel>(x, rows, pixel_stride, c, kLanes<T>, pooled, bin_stride);
    }
    for (; c + kLanes<T> <= channels; c += kLanes<T>) {
      pool_lanes<kRows, 1, Pixel>(x, rows, pixel_stride, c, kLanes<T>, pooled, bin_stride);
    }
    if (c < channels) {
      pool_lanes<0, 1, Pixel>(x, rows, pixel_stride, c, channels - c, pooled, bin_stride);
    }
  }

  // kRows: rows of taps, 0 for any number. `count` lanes of the last register.
  template <int kRows, int kRegisters, class Pixel, class Pooled>
  void pool_lanes(const AxisTaps<Acc>& x, int64_t rows, int64_t pixel_stride, int64_t c,
                  int64_t count, Pooled* pooled, int64_t bin_stride) const {
    const Pixel* from[kRows + 1];
    Vec<T> weight[kRows + 1];
    for (int r = 0; r < kRows; ++r) {
      from[r] = static_cast<const Pixel*>(rows_[r].pixels) + c;
      weight[r] = Vec<T>(rows_[r].weight);
    }
    const Tap<Acc>* tap = x.taps;
    for (int64_t pw = 0; pw < pooled_width_; ++pw, pooled += bin_stride) {
      Vec<T> sum[kRegisters];
      for (auto& s : sum) s = Vec<T>(0);
      for (const Tap<Acc>* end = x.end(pw); tap != end; ++tap) {
        const int64_t at = tap->pixel * pixel_stride;
        Vec<T> column[kRegisters];
        for (auto& s : column) s = Vec<T>(0);
        if constexpr (kRows > 0) {
          for (int r = 0; r < kRows; ++r) {
            for (int v = 0; v < kRegisters; ++v) {
              column[v] =
                  at::vec::fmadd(weight[r], load_lanes(from[r] + at + v * kLanes<T>), column[v]);
            }
          }
        } else {
          for (int64_t r = 0; r < rows; ++r) {
            const Vec<T> w(rows_[r].weight);
            const Pixel* pixel = static_cast<const Pixel*>(rows_[r].pixels) + c + at;
            for (int v = 0; v < kRegisters; ++v) {
              column[v] = at::vec::fmadd(w, load_lanes(pixel + v * kLanes<T>, count), column[v]);
            }
          }
        }
        const Vec<T> w(tap->weight);
        for (int v = 0; v < kRegisters; ++v) sum[v] = at::vec::fmadd(w, column[v], sum[v]);
      }
      for (int v = 0; v < kRegisters; ++v) {
        store_lanes<Pooled>(sum[v], pooled + c + v * kLanes<T>, count);
      }
    }
  }

  template <int kRegisters, class Pooled>
  void spread_row(const AxisTaps<Acc>& x, Acc weight, const Pooled* grad, int64_t bin_stride,
                  Acc* row, int64_t pixel_stride, int64_t count = kLanes<T>) const {
    const Tap<Acc>* tap = x.taps;
    for (int64_t pw = 0; pw < pooled_width_; ++pw, grad += bin_stride) {
      Vec<T> g[kRegisters];
      for (int v = 0; v < kRegisters; ++v) {
        g[v] = Vec<T>(weight) * load_lanes(grad + v * kLanes<T>, count);
      }
      for (const Tap<Acc>* end = x.end(pw); tap != end; ++tap) {
        Acc* to = row + tap->pixel * pixel_stride;
        const Vec<T> w(tap->weight);
        for (int v = 0; v < kRegisters; ++v, to += kLanes<T>) {
          at::vec::fmadd(w, g[v], Vec<T>::loadu(to)).store(to);
        }
      }
    }
  }

  const RoiAlignGeometry geometry_;
  const int64_t pooled_height_, pooled_width_;
  BoxTapList<Acc> taps_;
  Buffer<Row> rows_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
