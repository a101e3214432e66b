// Device code of ps_roi_align and ps_roi_pool. Forward: a thread per output element. Backward: a
// gather, so it needs no atomics and is deterministic.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/detection/ps_roi_math.h"
#include "tilewright/detection/roi_tile.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct PsRoiParams {
  const accumulate_t<T>* rois;  // (K, 5)
  T* map;                       // (N, C, H, W), or (N, H, W, C) where channels_last
  T* pooled;                    // (K, C / bins, PH, PW), or (K, PH, PW, C / bins)
  int64_t num_rois, batch, channels, height, width;
  PsRoiGeometry geometry;
  accumulate_t<T> spatial_scale;
  bool channels_last;

  // Of output element (box k, output channel c, bin).
  TILEWRIGHT_DEVICE int64_t pooled_index(int64_t k, int64_t c, int64_t bin) const {
    const int64_t bins = geometry.bins();
    return k * channels + (channels_last ? bin * (channels / bins) + c : c * bins + bin);
  }
  TILEWRIGHT_HD TiledMap<T> tiled_map() const {
    return {map, batch, channels, height, width, channels_last, geometry.bins()};
  }
};

template <class Rule, class T>
__global__ void ps_roi_forward_kernel(PsRoiParams<T> p) {
  using Acc = accumulate_t<T>;
  const int64_t bins = p.geometry.bins(), outputs = p.channels / bins, pixels = p.height * p.width;
  for (int64_t index : grid_stride(p.num_rois * p.channels)) {
    const int64_t k = index / p.channels, rest = index % p.channels;
    const int64_t c = p.channels_last ? rest % outputs : rest / bins;
    const int64_t bin = p.channels_last ? rest / outputs : rest % bins;
    const int64_t image = roi_batch(p.rois[5 * k], p.batch), channel = c * bins + bin;
    const auto box = Rule::box(p.rois + 5 * k, p.spatial_scale, p.geometry);
    Acc average = 0;
    if (image >= 0 && box.finite) {
      const int64_t stride = p.channels_last ? p.channels : 1;
      const T* map = p.map + image * p.channels * pixels + channel * (p.channels_last ? 1 : pixels);
      const int64_t ph = bin / p.geometry.pooled_width, pw = bin % p.geometry.pooled_width;
      Acc sum = 0, count_x = 1;
      const Acc count_y = Rule::for_each_tap(box.y, ph, p.height, [&](int64_t y, Acc weight_y) {
        const T* row = map + y * p.width * stride;
        count_x = Rule::for_each_tap(box.x, pw, p.width, [&](int64_t x, Acc weight_x) {
          sum += weight_y * weight_x * to_accumulate(ldg(row + x * stride));
        });
      });
      average = sum / (count_y * count_x);
    }
    p.pooled[index] = from_accumulate<T>(average);
  }
}

// A block's channels belong to one bin.
template <class Rule, class T>
__global__ void ps_roi_backward_kernel(PsRoiParams<T> p) {
  using Acc = accumulate_t<T>;
  using Box = typename Rule::Box;
  const auto ph_of = [&](const Tile& tile) { return tile.group / p.geometry.pooled_width; };
  const auto pw_of = [&](const Tile& tile) { return tile.group % p.geometry.pooled_width; };
  gather_tiles<Box>(
      p.tiled_map(), p.num_rois,
      [&](int64_t k, const Tile& tile, Box& box) {
        if (roi_batch(p.rois[5 * k], p.batch) != tile.image) return false;
        box = Rule::box(p.rois + 5 * k, p.spatial_scale, p.geometry);
        return box.finite &&
               Rule::meets(box.y, ph_of(tile), p.height, tile.y0, tile.y0 + kTileHeight - 1) &&
               Rule::meets(box.x, pw_of(tile), p.width, tile.x0, tile.x0 + kTileWidth - 1);
      },
      [&](const Box& box, int64_t k, const Tile& tile, int64_t y, int64_t x, Acc* sums) {
        const Acc weight_y = Rule::pixel_weight(box.y, ph_of(tile), y, p.height);
        if (weight_y == Acc(0)) return;
        const Acc weight = weight_y * Rule::pixel_weight(box.x, pw_of(tile), x, p.width);
        if (weight == Acc(0)) return;
#pragma unroll  // with a loop of `count` turns the sums would lie in local memory
        for (int j = 0; j < kTileChannels; ++j) {
          if (j >= tile.count) continue;
          const int64_t from = p.pooled_index(k, tile.c0 + j, tile.group);
          sums[j] += weight * to_accumulate(ldg(p.pooled + from));
        }
      });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
