// Rotated RoIAlign's device code. Forward: a thread per output element. Backward: a gather, as
// RoIAlign's: a pixel turns to each box's own axes and visits the samples around it there.
#pragma once
#include "tilewright/detection/roi_align_kernel.cuh"
#include "tilewright/detection/roi_align_rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Of params.rois: image, centre, size, and the cosine and the sine of the angle.
constexpr int64_t kRotatedRoiColumns = 7;

template <class T>
__global__ void roi_align_rotated_forward_kernel(RoiAlignParams<T> p) {
  using Acc = accumulate_t<T>;
  const RoiAlignLevel<T>& level = p.levels[0];
  const int64_t bins = p.geometry.pooled_height * p.geometry.pooled_width;
  const int64_t pixels = level.height * level.width;
  for (int64_t index : grid_stride(p.num_rois * p.channels * bins)) {
    const int64_t k = index / (p.channels * bins), rest = index % (p.channels * bins);
    const int64_t c = p.channels_last ? rest % p.channels : rest / bins;
    const int64_t bin = p.channels_last ? rest / p.channels : rest % bins;
    const int64_t ph = bin / p.geometry.pooled_width, pw = bin % p.geometry.pooled_width;

    const Acc* roi = p.rois + kRotatedRoiColumns * k;
    const auto box = make_rotated_roi_box(roi, roi[5], roi[6], level.spatial_scale, p.geometry);
    const int64_t image = roi_batch(roi[0], p.batch);
    Acc sum = 0;
    if (image >= 0 && box.finite && pixels > 0) {
      const int64_t pixel_stride = p.channels_last ? p.channels : 1;
      const T* map = level.data + image * p.channels * pixels + c * (p.channels_last ? 1 : pixels);
      const AlongBox<Acc> near =
          box.near(Acc(0), Acc(level.height - 1), Acc(0), Acc(level.width - 1));
      int64_t y_first, y_last, x_first, x_last;
      box.y.sample_range(ph, near.y_low, near.y_high, y_first, y_last);
      box.x.sample_range(pw, near.x_low, near.x_high, x_first, x_last);
      for (int64_t i = y_first; i < y_last; ++i) {
        const Acc along_y = box.y.coordinate(ph, i);
        for (int64_t j = x_first; j < x_last; ++j) {
          const Acc along_x = box.x.coordinate(pw, j);
          Acc at_x, at_y;
          rotated_point(box.box, along_x, along_y, at_x, at_y);
          AxisSample<Acc> y, x;
          if (!sample_axis(at_y, level.height, y) || !sample_axis(at_x, level.width, x)) continue;
          const T* low = map + y.low * level.width * pixel_stride;
          const T* high = map + y.high * level.width * pixel_stride;
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

// Adds one box's gradient at pixel (y, x) to the sums of channels [c0, c0 + count).
template <class T>
TILEWRIGHT_DEVICE void gather_rotated_box(const RoiAlignParams<T>& p,
                                          const RotatedRoiBox<accumulate_t<T>>& box, int64_t k,
                                          int64_t y, int64_t x, int64_t c0, int count,
                                          accumulate_t<T>* sums) {
  using Acc = accumulate_t<T>;
  const RoiAlignLevel<T>& level = p.levels[0];
  const int64_t ph_count = p.geometry.pooled_height, pw_count = p.geometry.pooled_width;
  const int64_t bin_stride = p.channels_last ? p.channels : 1;
  const int64_t channel_stride = p.channels_last ? 1 : ph_count * pw_count;
  const T* grad = p.pooled + k * p.channels * ph_count * pw_count + c0 * channel_stride;
  const AlongBox<Acc> near = box.near(Acc(y), Acc(y), Acc(x), Acc(x));
  int64_t ph_first, ph_last, pw_first, pw_last;
  box.y.bin_range(near.y_low, near.y_high, ph_count, ph_first, ph_last);
  box.x.bin_range(near.x_low, near.x_high, pw_count, pw_first, pw_last);
  for (int64_t ph = ph_first; ph < ph_last; ++ph) {
    for (int64_t pw = pw_first; pw < pw_last; ++pw) {
      int64_t i_first, i_last, j_first, j_last;
      box.y.sample_range(ph, near.y_low, near.y_high, i_first, i_last);
      box.x.sample_range(pw, near.x_low, near.x_high, j_first, j_last);
      Acc weight = 0;
      for (int64_t i = i_first; i < i_last; ++i) {
        const Acc along_y = box.y.coordinate(ph, i);
        for (int64_t j = j_first; j < j_last; ++j) {
          const Acc along_x = box.x.coordinate(pw, j);
          Acc at_x, at_y;
          rotated_point(box.box, along_x, along_y, at_x, at_y);
          weight += pixel_share(at_y, y, level.height) * pixel_share(at_x, x, level.width);
        }
      }
      weight *= box.inverse_count;
      if (weight == Acc(0)) continue;
      const T* from = grad + (ph * pw_count + pw) * bin_stride;
#pragma unroll  // see gather_box
      for (int j = 0; j < kTileChannels; ++j) {
        if (j < count) sums[j] += weight * to_accumulate(ldg(from + j * channel_stride));
      }
    }
  }
}

template <class T>
__global__ void roi_align_rotated_backward_kernel(RoiAlignParams<T> p) {
  using Box = RotatedRoiBox<accumulate_t<T>>;
  const RoiAlignLevel<T>& level = p.levels[0];
  gather_tiles<Box>(
      p.tiled_map(0), p.num_rois,
      [&](int64_t k, const Tile& tile, Box& box) {
        const accumulate_t<T>* roi = p.rois + kRotatedRoiColumns * k;
        if (roi_batch(roi[0], p.batch) != tile.image) return false;
        box = make_rotated_roi_box(roi, roi[5], roi[6], level.spatial_scale, p.geometry);
        if (!box.finite) return false;
        int64_t low, high, left, right;
        box.rows(level.height, low, high);
        box.columns(level.width, left, right);
        return low < tile.y0 + kTileHeight && high > tile.y0 && left < tile.x0 + kTileWidth &&
               right > tile.x0;
      },
      [&](const Box& box, int64_t k, const Tile& tile, int64_t y, int64_t x,
          accumulate_t<T>* sums) {
        gather_rotated_box(p, box, k, y, x, tile.c0, tile.count, sums);
      });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
