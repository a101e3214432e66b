// How a block of a pooling operator's backward pass finds its boxes. The pass is a gather: a block
// owns a tile of pixels and visits the boxes that can touch it, in order, so that it needs no atomics.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A thread per pixel.
constexpr int kTileWidth = 16, kTileHeight = 8, kTileThreads = kTileWidth * kTileHeight;
// How many channels a thread sums at a time.
constexpr int kTileChannels = 8;

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

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
