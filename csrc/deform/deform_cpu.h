// What the CPU kernels of deform_conv2d are called with: raw pointers, sizes, and how the work is
// cut.
#pragma once
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/deform/deform_math.h"

namespace tilewright {

// Kernels and hosts share what follows, for several instruction sets: all of it is inlined.

// What a tile's columns may take: half of a second-level cache of 512 KB.
inline constexpr int64_t kDeformColumnsBytes = int64_t(256) << 10;
inline constexpr int64_t kDeformTileRows = 64;

// Products with so few results in a group are faster of float32: of 8 they took three times as long
// as pairs of bfloat16.
inline constexpr int64_t kDeformLeastBfloat16Results = 32;

// A tile is a run of output pixels of one image; its columns are filled and multiplied for some
// taps at a time, `taps`. A matrix product of all of them at once takes the fewest passes over the
// result, but the columns must stay in cache.
struct DeformTile {
  int64_t rows, taps;

  TILEWRIGHT_HD int64_t tiles(int64_t pixels) const { return (pixels + rows - 1) / rows; }
};

// `tap_bytes`: of the columns of one output pixel and one tap.
inline DeformTile deform_tile(int64_t pixels, int64_t taps, int64_t tap_bytes) {
  const int64_t fitting = kDeformColumnsBytes / std::max<int64_t>(tap_bytes, 1);
  const int64_t rows = std::min({pixels, kDeformTileRows, std::max<int64_t>(fitting, 8)});
  const int64_t most = std::clamp<int64_t>(fitting / std::max<int64_t>(rows, 1), 1, taps);
  const int64_t chunks = (taps + most - 1) / most;
  return {rows, (taps + chunks - 1) / chunks};  // chunks of one size, or nearly
}

// The backward pass: a task owns some images and a run of channels of one offset group. It alone
// writes to the gradient of that part of the input, and adds the weight's gradient of these
// channels over its images. Depends on sizes alone, and so do the sums.
struct DeformTasks {
  int64_t image_parts;  // tasks that share a weight's gradient
  int64_t block;        // channels of a task: a part of a group, or whole groups
  int64_t blocks;       // tasks that share the gradient of an offset

  static constexpr int64_t kMostImageParts = 8, kWanted = 16, kLeastBlock = 16, kMostBlock = 64;

  TILEWRIGHT_HD explicit DeformTasks(const DeformConvShape& s)
      : image_parts(std::clamp<int64_t>(s.batch, 1, kMostImageParts)), block(0) {
    const int64_t group = s.group_channels(), run = s.offset_group_channels();
    int64_t widest = 1;
    // The widest block that gives enough tasks; or else the narrowest that fills registers.
    for (int64_t size = 1; size <= run; ++size) {
      if (run % size != 0 || (group % size != 0 && size % group != 0)) continue;
      widest = size;
      if (size < kLeastBlock) continue;
      const bool enough = image_parts * s.offset_groups * (run / size) >= kWanted;
      if (block == 0 || (enough && size <= kMostBlock)) block = size;
    }
    if (block == 0) block = widest;
    blocks = run / block;
  }
  // Channels of a block that lie in one group, and how many groups it touches.
  TILEWRIGHT_HD int64_t group_part(const DeformConvShape& s) const {
    return std::min(block, s.group_channels());
  }
  TILEWRIGHT_HD int64_t groups(const DeformConvShape& s) const { return block / group_part(s); }
  TILEWRIGHT_HD int64_t count(const DeformConvShape& s) const {
    return image_parts * s.offset_groups * blocks;
  }
  TILEWRIGHT_HD int64_t first_image(const DeformConvShape& s, int64_t part) const {
    return s.batch * part / image_parts;
  }
};

// Tensors of T, and of Acc, the type that sums of T are kept in. `bfloat16_products`: weights are
// packed as pairs of bfloat16, and columns are rounded to it.
struct DeformCpuParams {
  c10::ScalarType dtype;
  bool bfloat16_products, channels_last;
  DeformConvShape shape;
  const void* input;          // (N, H, W, C) of T
  const void *offset, *mask;  // of Acc, as the operator has them; mask may be null
  const void *weight, *bias;  // forward: (groups, taps, C / groups, C_out / groups); of Acc
  void* output;               // of T; (N, OH, OW, C_out) where channels_last
  DeformTile tile;
};

struct DeformBackwardCpuParams {
  c10::ScalarType dtype;
  bool bfloat16_products;
  bool grad_channels_last, channels_last;  // of the result's and of the input's gradient
  DeformConvShape shape;
  const void *grad, *input;   // of T; input (N, H, W, C)
  const void *offset, *mask;  // of Acc
  const void* weight;         // (parts, C_out / groups, taps, group part), parts = C / group part;
                              // of bfloat16 products pairs of results lie together
  void* grad_input;           // of T, or null
  void* grad_weight;  // (image_parts, parts, C_out / groups, taps, group part) of Acc, or null
  // (blocks, N, offset_groups, taps, OH, OW) of Acc each, or null.
  void *grad_offset_y, *grad_offset_x, *grad_mask;
  DeformTile tile;
};

// Tiles [begin, end) of all images, N * tile.tiles(pixels). They write to places of their own.
TILEWRIGHT_CPU_KERNEL(deform_conv_forward, void(const DeformCpuParams&, int64_t begin, int64_t end))
// Tasks [begin, end) of DeformTasks.
TILEWRIGHT_CPU_KERNEL(deform_conv_backward,
                      void(const DeformBackwardCpuParams&, int64_t begin, int64_t end))
// The bias's gradient, (C_out,) of Acc: channels [begin, end).
TILEWRIGHT_CPU_KERNEL(deform_conv_grad_bias, void(const DeformBackwardCpuParams&, void* grad_bias,
                                                  int64_t begin, int64_t end))

}  // namespace tilewright
