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

// A block owns a tile of pixels of up to kTileChannels channels that belong to one bin.
template <class Rule, class T>
__global__ void ps_roi_backward_kernel(PsRoiParams<T> p) {
  using Acc = accumulate_t<T>;
  using Box = typename Rule::Box;
  SharedMemory shared;
  const RoiTileParts<Box> parts(shared);
  const int64_t bins = p.geometry.bins(), outputs = p.channels / bins;
  const int64_t tiles_x = ceil_div(p.width, kTileWidth), tiles_y = ceil_div(p.height, kTileHeight);
  const int64_t runs = ceil_div(outputs, kTileChannels);
  const int64_t work = tiles_x * tiles_y * runs * bins * p.batch;
  for (int64_t item = blockIdx.x; item < work; item += gridDim.x) {
    const int64_t x0 = item % tiles_x * kTileWidth, y0 = item / tiles_x % tiles_y * kTileHeight;
    const int64_t rest = item / (tiles_x * tiles_y);
    const int64_t c0 = rest % runs * kTileChannels, bin = rest / runs % bins;
    const int64_t image = rest / (runs * bins);
    const int64_t ph = bin / p.geometry.pooled_width, pw = bin % p.geometry.pooled_width;
    const int64_t x = x0 + threadIdx.x % kTileWidth, y = y0 + threadIdx.x / kTileWidth;
    const bool inside = x < p.width && y < p.height;
    const int count = int(min_of<int64_t>(kTileChannels, outputs - c0));
    Acc sums[kTileChannels] = {};
    for (int64_t first = 0; first < p.num_rois; first += kTileThreads) {
      const int64_t k = first + threadIdx.x;
      Box box{};
      bool meets = false;
      if (k < p.num_rois && roi_batch(p.rois[5 * k], p.batch) == image) {
        box = Rule::box(p.rois + 5 * k, p.spatial_scale, p.geometry);
        meets = box.finite && Rule::meets(box.y, ph, p.height, y0, y0 + kTileHeight - 1) &&
                Rule::meets(box.x, pw, p.width, x0, x0 + kTileWidth - 1);
      }
      const int total = compact(parts, meets, box, k);
      for (int i = 0; inside && i < total; ++i) {
        const Acc weight_y = Rule::pixel_weight(parts.boxes[i].y, ph, y, p.height);
        if (weight_y == Acc(0)) continue;
        const Acc weight = weight_y * Rule::pixel_weight(parts.boxes[i].x, pw, x, p.width);
        if (weight == Acc(0)) continue;
        for (int j = 0; j < count; ++j) {
          const int64_t from = p.pooled_index(parts.indices[i], c0 + j, bin);
          sums[j] += weight * to_accumulate(ldg(p.pooled + from));
        }
      }
    }
    if (!inside) continue;
    const int64_t pixels = p.height * p.width, pixel = y * p.width + x;
    for (int j = 0; j < count; ++j) {
      const int64_t c = (c0 + j) * bins + bin;
      const int64_t to = p.channels_last ? (image * pixels + pixel) * p.channels + c
                                         : (image * p.channels + c) * pixels + pixel;
      p.map[to] = from_accumulate<T>(sums[j]);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
