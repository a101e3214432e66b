// Rotated RoIAlign where channels are the innermost dimension. Its weights do not separate by axis:
// the taps of a bin are listed as it is met, and serve all channels at hand.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/pixel_rows.h"
#include "tilewright/detection/roi_align_rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The boxes of a call, as RoiAlignCpu (roi_align_pieces.h) wants them.
template <class T>
class RotatedBoxes {
  using Acc = Accumulate<T>;
  static constexpr int kVectors = 4;  // registers of channels that are summed at once

 public:
  static constexpr int64_t kRoiWidth = 6;

  explicit RotatedBoxes(const RoiAlignGeometry& geometry)
      : geometry_(geometry),
        pooled_height_(geometry.pooled_height),
        pooled_width_(geometry.pooled_width) {}

  void clear() { boxes_.clear(); }
  void add(const Acc* roi, Acc spatial_scale, int64_t height, int64_t width) {
    Box box{make_rotated_roi_box(roi, std::cos(roi[5]), std::sin(roi[5]), spatial_scale, geometry_),
            {},
            height,
            width,
            0,
            0,
            0,
            0};
    if (box.grid.finite && height > 0 && width > 0) {
      box.grid.rows(height, box.first_row, box.end_row);
      box.grid.columns(width, box.first_column, box.end_column);
      box.on_map = box.grid.near(Acc(0), Acc(height - 1), Acc(0), Acc(width - 1));
    }
    boxes_.push_back(box);
  }

  bool empty(int64_t k) const {
    return boxes_[k].first_row >= boxes_[k].end_row ||
           boxes_[k].first_column >= boxes_[k].end_column;
  }
  int64_t first_row(int64_t k) const { return boxes_[k].first_row; }
  int64_t end_row(int64_t k) const { return boxes_[k].end_row; }
  template <class Visit>
  void for_rows(int64_t k, Visit visit) const {
    const Box& box = boxes_[k];
    for (int64_t y = box.first_row; y < box.end_row; ++y) {
      visit(y, box.first_column, box.end_column);
    }
  }

  // pooled[bin * bin_stride + c] for every bin and c < channels.
  template <class Pixel, class Pooled>
  void pool(int64_t k, const PixelRows<const Pixel>& map, int64_t channels, Pooled* pooled,
            int64_t bin_stride) {
    for (int64_t bin = 0; bin < pooled_height_ * pooled_width_; ++bin, pooled += bin_stride) {
      list_taps(k, bin, map, boxes_[k].first_row, boxes_[k].end_row);
      int64_t c = 0;
      for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) {
        pool_lanes<kVectors>(map.data + c, pooled + c, kLanes<T>);
      }
      for (; c < channels; c += kLanes<T>) {
        pool_lanes<1>(map.data + c, pooled + c, min_of(kLanes<T>, channels - c));
      }
    }
  }

  // map: (channels, H, W), pooled: (channels, PH, PW); the same sums in the same order.
  template <class Pixel>
  void pool_planes(int64_t k, const Pixel* map, int64_t plane_stride, int64_t width,
                   int64_t channels, Pixel* pooled) {
    const int64_t bins = pooled_height_ * pooled_width_;
    for (int64_t bin = 0; bin < bins; ++bin) {
      list_taps(k, bin, PixelRows<const Pixel>{map, width, 1}, boxes_[k].first_row,
                boxes_[k].end_row);
      for (int64_t c = 0; c < channels; ++c) {
        Acc sum = 0;
        for (const Tap& tap : taps_) {
          sum = multiply_add(tap.weight, Acc(map[c * plane_stride + tap.offset]), sum);
        }
        pooled[c * bins + bin] = Pixel(sum);
      }
    }
  }

  // Adds the gradient of the bins to the rows [first, last) of a tile of sums.
  template <class Pooled>
  void spread(int64_t k, const Pooled* grad, int64_t bin_stride, int64_t channels,
              const PixelRows<Acc>& sums, int64_t first, int64_t last) {
    for (int64_t bin = 0; bin < pooled_height_ * pooled_width_; ++bin, grad += bin_stride) {
      list_taps(k, bin, sums, first, last);
      int64_t c = 0;
      for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) {
        spread_lanes<kVectors>(grad + c, sums.data + c, kLanes<T>);
      }
      for (; c < channels; c += kLanes<T>) {
        spread_lanes<1>(grad + c, sums.data + c, min_of(kLanes<T>, channels - c));
      }
    }
  }

 private:
  struct Box {
    RotatedRoiBox<Acc> grid;
    AlongBox<Acc> on_map;  // where on the box's axes the map lies
    int64_t height, width;
    int64_t first_row, end_row, first_column, end_column;
  };
  struct Tap {
    int64_t offset;
    Acc weight;
  };

  // The taps of a bin on the rows [first, last), as offsets into `rows`.
  template <class Pixel>
  void list_taps(int64_t k, int64_t bin, const PixelRows<Pixel>& rows, int64_t first,
                 int64_t last) {
    taps_.clear();
    const Box& box = boxes_[k];
    const RotatedRoiBox<Acc>& grid = box.grid;
    const int64_t ph = bin / pooled_width_, pw = bin % pooled_width_;
    int64_t y_first, y_last, x_first, x_last;
    grid.y.sample_range(ph, box.on_map.y_low, box.on_map.y_high, y_first, y_last);
    grid.x.sample_range(pw, box.on_map.x_low, box.on_map.x_high, x_first, x_last);
    for (int64_t i = y_first; i < y_last; ++i) {
      const Acc along_y = grid.y.coordinate(ph, i);
      for (int64_t j = x_first; j < x_last; ++j) {
        const Acc along_x = grid.x.coordinate(pw, j);
        AxisSample<Acc> y, x;
        Acc at_x, at_y;
        rotated_point(grid.box, along_x, along_y, at_x, at_y);
        if (!sample_axis(at_y, box.height, y) || !sample_axis(at_x, box.width, x)) continue;
        list_row(rows, y.low, y.weight_low * grid.inverse_count, x, first, last);
        list_row(rows, y.high, y.weight_high * grid.inverse_count, x, first, last);
      }
    }
  }

  template <class Pixel>
  void list_row(const PixelRows<Pixel>& rows, int64_t y, Acc weight, const AxisSample<Acc>& x,
                int64_t first, int64_t last) {
    // A pixel of weight 0 is not part of a sample, even where it is infinite or NaN.
    if (y < first || y >= last || weight == Acc(0)) return;
    const int64_t row = rows.offset(y);
    taps_.push_back({row + x.low * rows.pixel_stride, weight * x.weight_low});
    if (x.weight_high != Acc(0)) {
      taps_.push_back({row + x.high * rows.pixel_stride, weight * x.weight_high});
    }
  }

  template <int kRegisters, class Pixel, class Pooled>
  void pool_lanes(const Pixel* map, Pooled* pooled, int64_t count) const {
    Vec<T> sum[kRegisters];
    for (auto& s : sum) s = Vec<T>(0);
    for (const Tap& tap : taps_) {
      const Vec<T> weight(tap.weight);
      for (int v = 0; v < kRegisters; ++v) {
        sum[v] =
            at::vec::fmadd(weight, load_lanes(map + tap.offset + v * kLanes<T>, count), sum[v]);
      }
    }
    for (int v = 0; v < kRegisters; ++v) {
      store_lanes<Pooled>(sum[v], pooled + v * kLanes<T>, count);
    }
  }

  template <int kRegisters, class Pooled>
  void spread_lanes(const Pooled* grad, Acc* sums, int64_t count) const {
    Vec<T> g[kRegisters];
    for (int v = 0; v < kRegisters; ++v) g[v] = load_lanes(grad + v * kLanes<T>, count);
    for (const Tap& tap : taps_) {
      const Vec<T> weight(tap.weight);
      for (int v = 0; v < kRegisters; ++v) {
        Acc* to = sums + tap.offset + v * kLanes<T>;
        at::vec::fmadd(weight, g[v], Vec<T>::loadu(to)).store(to);
      }
    }
  }

  const RoiAlignGeometry geometry_;
  const int64_t pooled_height_, pooled_width_;
  Buffer<Box> boxes_;
  Buffer<Tap> taps_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
