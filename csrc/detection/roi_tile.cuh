// How a block of a pooling operator's backward pass finds its boxes. The pass is a gather: a block
// owns a tile of pixels and visits the boxes that can touch it, in order, so that it needs no
// atomics.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A thread per pixel.
constexpr int kTileWidth = 16, kTileHeight = 8, kTileThreads = kTileWidth * kTileHeight;
// How many channels a thread sums at a time.
constexpr int kTileChannels = 8;

// The map that the pass writes. The channels of a block belong to one group: c * groups + group.
template <class T>
struct TiledMap {
  T* data;  // (N, C, height, width), or (N, height, width, C) where channels_last
  int64_t batch, channels, height, width;
  bool channels_last;
  int64_t groups = 1;

  TILEWRIGHT_HD int64_t tiles_y() const { return ceil_div(height, kTileHeight); }
  TILEWRIGHT_HD int64_t tiles_x() const { return ceil_div(width, kTileWidth); }
  TILEWRIGHT_HD int64_t runs() const { return ceil_div(channels / groups, kTileChannels); }
  // The blocks that share the work.
  TILEWRIGHT_HD int64_t blocks() const { return tiles_y() * tiles_x() * runs() * groups * batch; }

  TILEWRIGHT_HD T& at(int64_t image, int64_t c, int64_t y, int64_t x) const {
    const int64_t pixels = height * width, pixel = y * width + x;
    return data[channels_last ? (image * pixels + pixel) * channels + c
                              : (image * channels + c) * pixels + pixel];
  }
};

// What a block owns: kTileHeight x kTileWidth pixels from (y0, x0), and `count` channels of a group
// from the group's c0-th.
struct Tile {
  int64_t image, group, y0, x0, c0;
  int count;
};

// The boxes, of a batch of kTileThreads, that can touch the tile.
template <class Box>
struct RoiTileParts {
  Box* boxes;
  int64_t* indices;
  int* warp_counts;
  TILEWRIGHT_HD explicit RoiTileParts(SharedMemory& shared)
      : boxes(shared.take<Box>(kTileThreads)),
        indices(shared.take<int64_t>(kTileThreads)),
        warp_counts(shared.take<int>(kTileThreads / 32)) {}
};

// Writes the candidates that `meets` marks into the parts, in order; returns how many. All threads
// of the block call it.
template <class Box>
TILEWRIGHT_DEVICE int compact(const RoiTileParts<Box>& parts, bool meets, const Box& box,
                              int64_t k) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned vote = __ballot_sync(0xffffffffu, meets);
  __syncthreads();  // the last batch has been read
  if (lane == 0) parts.warp_counts[warp] = __popc(vote);
  __syncthreads();
  int place = __popc(vote & ((1u << lane) - 1)), total = 0;
  for (int w = 0; w < kTileThreads / 32; ++w) {
    if (w < warp) place += parts.warp_counts[w];
    total += parts.warp_counts[w];
  }
  if (meets) {
    parts.boxes[place] = box;
    parts.indices[place] = k;
  }
  __syncthreads();
  return total;
}

// Writes the whole map. meets(k, tile, box) makes box k and tells whether it can touch the tile;
// gather(box, k, tile, y, x, sums) adds its gradient at a pixel to the sums of the tile's channels.
template <class Box, class T, class Meets, class Gather>
TILEWRIGHT_DEVICE void gather_tiles(const TiledMap<T>& map, int64_t num_rois, Meets meets,
                                    Gather gather) {
  SharedMemory shared;
  const RoiTileParts<Box> parts(shared);
  for (int64_t item = blockIdx.x; item < map.blocks(); item += gridDim.x) {
    Tile tile;
    int64_t rest = item;
    const auto next = [&rest](int64_t size) {
      const int64_t place = rest % size;
      rest /= size;
      return place;
    };
    tile.x0 = next(map.tiles_x()) * kTileWidth;
    tile.y0 = next(map.tiles_y()) * kTileHeight;
    tile.c0 = next(map.runs()) * kTileChannels;
    tile.group = next(map.groups);
    tile.image = rest;
    tile.count = int(min_of<int64_t>(kTileChannels, map.channels / map.groups - tile.c0));
    const int64_t x = tile.x0 + threadIdx.x % kTileWidth, y = tile.y0 + threadIdx.x / kTileWidth;
    const bool inside = x < map.width && y < map.height;
    accumulate_t<T> sums[kTileChannels] = {};
    for (int64_t first = 0; first < num_rois; first += kTileThreads) {
      const int64_t k = first + threadIdx.x;
      Box box{};
      const bool candidate = k < num_rois && meets(k, tile, box);
      const int total = compact(parts, candidate, box, k);
      for (int i = 0; inside && i < total; ++i) {
        gather(parts.boxes[i], parts.indices[i], tile, y, x, sums);
      }
    }
    if (!inside) continue;
#pragma unroll  // with a loop of `count` turns the sums would lie in local memory
    for (int j = 0; j < kTileChannels; ++j) {
      if (j >= tile.count) break;
      const int64_t c = (tile.c0 + j) * map.groups + tile.group;
      map.at(tile.image, c, y, x) = from_accumulate<T>(sums[j]);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
