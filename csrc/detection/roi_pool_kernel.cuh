// RoIPool's device code. Forward: a thread per output element. Backward: a gather over the pixels
// that the forward took, so it needs no atomics and is deterministic.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/detection/roi_pool_math.h"
#include "tilewright/detection/roi_tile.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct RoiPoolParams {
  const accumulate_t<T>* rois;  // (K, 5)
  T* map;                       // (N, C, H, W), or (N, H, W, C) where channels_last
  T* pooled;                    // (K, C, PH, PW), or (K, PH, PW, C) where channels_last
  int* argmax;                  // as pooled
  int64_t num_rois, batch, channels, height, width;
  int64_t pooled_height, pooled_width;
  accumulate_t<T> spatial_scale;
  bool channels_last;

  TILEWRIGHT_DEVICE PoolBox<accumulate_t<T>> box(int64_t k) const {
    return make_pool_box(rois + 5 * k, spatial_scale, pooled_height, pooled_width, true);
  }
  TILEWRIGHT_HD TiledMap<T> tiled_map() const {
    return {map, batch, channels, height, width, channels_last};
  }
};

template <class T>
__global__ void roi_pool_forward_kernel(RoiPoolParams<T> p) {
  using Acc = accumulate_t<T>;
  const int64_t bins = p.pooled_height * p.pooled_width, pixels = p.height * p.width;
  for (int64_t index : grid_stride(p.num_rois * p.channels * bins)) {
    const int64_t k = index / (p.channels * bins), rest = index % (p.channels * bins);
    const int64_t c = p.channels_last ? rest % p.channels : rest / bins;
    const int64_t bin = p.channels_last ? rest / p.channels : rest % bins;
    const int64_t image = roi_batch(p.rois[5 * k], p.batch);
    const auto box = p.box(k);
    Acc best = 0;
    int64_t taken = -1;
    if (image >= 0 && box.finite) {
      const int64_t pixel_stride = p.channels_last ? p.channels : 1;
      const T* map = p.map + image * p.channels * pixels + c * (p.channels_last ? 1 : pixels);
      int64_t y0, y1, x0, x1;
      box.y.pixels(bin / p.pooled_width, p.height, y0, y1);
      box.x.pixels(bin % p.pooled_width, p.width, x0, x1);
      for (int64_t y = y0; y < y1; ++y) {
        for (int64_t x = x0; x < x1; ++x) {
          const int64_t pixel = y * p.width + x;
          const Acc value = to_accumulate(ldg(map + pixel * pixel_stride));
          if (taken >= 0 && !pool_replaces(value, best)) continue;
          best = value;
          taken = pixel;
        }
      }
    }
    p.pooled[index] = from_accumulate<T>(best);
    p.argmax[index] = int(taken);
  }
}

// Whether any bin of the axis can hold one of the pixels [first, last].
template <class Acc>
TILEWRIGHT_DEVICE bool axis_meets(const PoolAxis<Acc>& axis, int64_t bins, int64_t size,
                                  int64_t first, int64_t last) {
  int64_t low, high, unused;
  axis.pixels(0, size, low, unused);
  axis.pixels(bins - 1, size, unused, high);
  return low <= last && high > first;
}

// Adds one box's gradient at pixel (y, x) to the sums of channels [c0, c0 + count).
template <class T>
TILEWRIGHT_DEVICE void gather_box(const RoiPoolParams<T>& p, const PoolBox<accumulate_t<T>>& box,
                                  int64_t k, int64_t y, int64_t x, int64_t c0, int count,
                                  accumulate_t<T>* sums) {
  const int64_t bins = p.pooled_height * p.pooled_width;
  const int64_t bin_stride = p.channels_last ? p.channels : 1;
  const int64_t channel_stride = p.channels_last ? 1 : bins;
  const int64_t from = k * p.channels * bins + c0 * channel_stride;
  const int pixel = int(y * p.width + x);
  int64_t ph_first, ph_last, pw_first, pw_last, first, last;
  box.y.bin_range(y, p.pooled_height, ph_first, ph_last);
  box.x.bin_range(x, p.pooled_width, pw_first, pw_last);
  for (int64_t ph = ph_first; ph < ph_last; ++ph) {
    box.y.pixels(ph, p.height, first, last);
    if (y < first || y >= last) continue;
    for (int64_t pw = pw_first; pw < pw_last; ++pw) {
      box.x.pixels(pw, p.width, first, last);
      if (x < first || x >= last) continue;
      const int64_t at = from + (ph * p.pooled_width + pw) * bin_stride;
#pragma unroll  // with a loop of `count` turns the sums would lie in local memory
      for (int j = 0; j < kTileChannels; ++j) {
        if (j >= count || ldg(p.argmax + at + j * channel_stride) != pixel) continue;
        sums[j] += to_accumulate(ldg(p.pooled + at + j * channel_stride));
      }
    }
  }
}

template <class T>
__global__ void roi_pool_backward_kernel(RoiPoolParams<T> p) {
  using Box = PoolBox<accumulate_t<T>>;
  gather_tiles<Box>(
      p.tiled_map(), p.num_rois,
      [&](int64_t k, const Tile& tile, Box& box) {
        if (roi_batch(p.rois[5 * k], p.batch) != tile.image) return false;
        box = p.box(k);
        return box.finite &&
               axis_meets(box.y, p.pooled_height, p.height, tile.y0, tile.y0 + kTileHeight - 1) &&
               axis_meets(box.x, p.pooled_width, p.width, tile.x0, tile.x0 + kTileWidth - 1);
      },
      [&](const Box& box, int64_t k, const Tile& tile, int64_t y, int64_t x,
          accumulate_t<T>* sums) { gather_box(p, box, k, y, x, tile.c0, tile.count, sums); });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
