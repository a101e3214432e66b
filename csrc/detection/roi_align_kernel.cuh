// RoIAlign's device code. Forward: a thread per output element. Backward: a gather, so it needs no
// atomics, is deterministic, and rounds 16-bit gradients once.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/detection/roi_align_math.h"
#include "tilewright/detection/roi_tile.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct RoiAlignLevel {
  T* data;  // (N, C, height, width), or (N, height, width, C) where channels_last
  int64_t height, width;
  accumulate_t<T> spatial_scale;
};

template <class T>
struct RoiAlignParams {
  const accumulate_t<T>* rois;  // (K, 5)
  T* pooled;                    // (K, C, PH, PW), or (K, PH, PW, C) where channels_last
  int64_t num_rois, batch, channels;
  RoiAlignGeometry geometry;
  PyramidRule pyramid;
  bool channels_last;
  RoiAlignLevel<T> levels[kMaxPyramidLevels];

  TILEWRIGHT_HD TiledMap<T> tiled_map(int64_t i) const {
    return {levels[i].data, batch, channels, levels[i].height, levels[i].width, channels_last};
  }
};

// A pixel of weight 0 is not part of a sample, even where it is infinite or NaN.
template <class T>
TILEWRIGHT_DEVICE accumulate_t<T> weighted(accumulate_t<T> weight, const T* pixel) {
  return weight == 0 ? weight : weight * to_accumulate(ldg(pixel));
}

template <class T>
__global__ void roi_align_forward_kernel(RoiAlignParams<T> p) {
  using Acc = accumulate_t<T>;
  const int64_t bins = p.geometry.pooled_height * p.geometry.pooled_width;
  for (int64_t index : grid_stride(p.num_rois * p.channels * bins)) {
    const int64_t k = index / (p.channels * bins), rest = index % (p.channels * bins);
    const int64_t c = p.channels_last ? rest % p.channels : rest / bins;
    const int64_t bin = p.channels_last ? rest / p.channels : rest % bins;
    const int64_t ph = bin / p.geometry.pooled_width, pw = bin % p.geometry.pooled_width;

    const Acc* roi = p.rois + 5 * k;
    const RoiAlignLevel<T>& level = p.levels[roi_level(roi, p.pyramid)];
    const auto box = make_roi_box(roi, level.spatial_scale, p.geometry);
    const int64_t image = roi_batch(roi[0], p.batch);
    Acc sum = 0;
    if (image >= 0 && box.finite) {
      const int64_t pixel_stride = p.channels_last ? p.channels : 1;
      const int64_t pixels = level.height * level.width;
      const T* map = level.data + image * p.channels * pixels + c * (p.channels_last ? 1 : pixels);
      int64_t y_first, y_last, x_first, x_last;
      box.y.sample_range(ph, Acc(-1), Acc(level.height), y_first, y_last);
      box.x.sample_range(pw, Acc(-1), Acc(level.width), x_first, x_last);
      for (int64_t i = y_first; i < y_last; ++i) {
        AxisSample<Acc> y;
        if (!sample_axis(box.y.coordinate(ph, i), level.height, y)) continue;
        const T* low = map + y.low * level.width * pixel_stride;
        const T* high = map + y.high * level.width * pixel_stride;
        for (int64_t j = x_first; j < x_last; ++j) {
          AxisSample<Acc> x;
          if (!sample_axis(box.x.coordinate(pw, j), level.width, x)) continue;
          const int64_t left = x.low * pixel_stride, right = x.high * pixel_stride;
          sum += weighted(y.weight_low * x.weight_low, low + left) +
                 weighted(y.weight_low * x.weight_high, low + right) +
                 weighted(y.weight_high * x.weight_low, high + left) +
                 weighted(y.weight_high * x.weight_high, high + right);
        }
      }
    }
    p.pooled[index] = from_accumulate<T>(sum * box.inverse_count);
  }
}

// Whether samples on this axis can touch pixels [first, last].
template <class Acc>
TILEWRIGHT_DEVICE bool axis_meets(const RoiAxis<Acc>& axis, int64_t bins, int64_t first,
                                  int64_t last) {
  const Acc end = axis.start + axis.bin * Acc(bins);
  return min_of(axis.start, end) - Acc(1) <= Acc(last) &&
         max_of(axis.start, end) + Acc(1) >= Acc(first);
}

// Adds one box's gradient at pixel (y, x) to the sums of channels [c0, c0 + count).
template <class T>
TILEWRIGHT_DEVICE void gather_box(const RoiAlignParams<T>& p, const RoiAlignLevel<T>& level,
                                  const RoiAlignBox<accumulate_t<T>>& box, int64_t k, int64_t y,
                                  int64_t x, int64_t c0, int count, accumulate_t<T>* sums) {
  using Acc = accumulate_t<T>;
  const int64_t ph_count = p.geometry.pooled_height, pw_count = p.geometry.pooled_width;
  const int64_t bin_stride = p.channels_last ? p.channels : 1;
  const int64_t channel_stride = p.channels_last ? 1 : ph_count * pw_count;
  const T* grad = p.pooled + k * p.channels * ph_count * pw_count + c0 * channel_stride;
  int64_t ph_first, ph_last, pw_first, pw_last;
  box.y.bin_range(Acc(y - 1), Acc(y + 1), ph_count, ph_first, ph_last);
  box.x.bin_range(Acc(x - 1), Acc(x + 1), pw_count, pw_first, pw_last);
  for (int64_t ph = ph_first; ph < ph_last; ++ph) {
    const Acc weight_y = box.y.pixel_weight(ph, y, level.height) * box.inverse_count;
    if (weight_y == Acc(0)) continue;
    for (int64_t pw = pw_first; pw < pw_last; ++pw) {
      const Acc weight = weight_y * box.x.pixel_weight(pw, x, level.width);
      if (weight == Acc(0)) continue;
      const T* from = grad + (ph * pw_count + pw) * bin_stride;
#pragma unroll  // with a loop of `count` turns the sums would lie in local memory
      for (int j = 0; j < kTileChannels; ++j) {
        if (j < count) sums[j] += weight * to_accumulate(ldg(from + j * channel_stride));
      }
    }
  }
}

template <class T>
__global__ void roi_align_backward_kernel(RoiAlignParams<T> p, int64_t level_index) {
  using Box = RoiAlignBox<accumulate_t<T>>;
  const RoiAlignLevel<T>& level = p.levels[level_index];
  gather_tiles<Box>(
      p.tiled_map(level_index), p.num_rois,
      [&](int64_t k, const Tile& tile, Box& box) {
        const accumulate_t<T>* roi = p.rois + 5 * k;
        if (roi_batch(roi[0], p.batch) != tile.image || roi_level(roi, p.pyramid) != level_index) {
          return false;
        }
        box = make_roi_box(roi, level.spatial_scale, p.geometry);
        return box.finite &&
               axis_meets(box.y, p.geometry.pooled_height, tile.y0, tile.y0 + kTileHeight - 1) &&
               axis_meets(box.x, p.geometry.pooled_width, tile.x0, tile.x0 + kTileWidth - 1);
      },
      [&](const Box& box, int64_t k, const Tile& tile, int64_t y, int64_t x,
          accumulate_t<T>* sums) {
        gather_box(p, level, box, k, y, x, tile.c0, tile.count, sums);
      });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
