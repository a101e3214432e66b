// deform_conv2d's device code: matrix products whose one factor, the columns, is sampled into
// shared memory tile by tile and never stored. Features have their channels last.
#pragma once
#include "tilewright/deform/deform_math.h"
#include "tilewright/deform/deform_pixels.cuh"
#include "tilewright/deform/deform_tile.cuh"
#include "tilewright/deform/gradient_sums.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct DeformParams {
  using Acc = accumulate_t<T>;
  DeformConvShape shape;
  const T* input;            // (N, H, W, C)
  const T* weight;           // forward (groups, taps, C / groups, outs); backward (groups, outs,
                             // taps, C / groups); outs = C_out / groups
  const Acc *offset, *mask;  // as the operator has them; mask may be null
  const Acc* bias;           // (C_out,) or null
  T* output;                 // (N, C_out, OH, OW), or (N, OH, OW, C_out) where channels_last
  bool channels_last;
  const T *grad_rows, *grad_planes;  // backward: (N, OH, OW, C_out) and (N, C_out, OH, OW)
  int64_t splits;                    // of all output pixels, for the weight's gradient
  Acc* grad_weight;                  // (splits, groups, outs, taps, C / groups)
  Acc *grad_offset, *grad_mask;      // as offset and mask, or null
  GradientSums<Acc> grad_input;      // (N, H, W, C)

  TILEWRIGHT_HD int64_t tiles() const { return ceil_div(shape.out_pixels(), kDeformRows); }
};

// Where the tile's output pixels read for one tap of one offset group.
template <class Acc>
struct TilePlan {
  DeformSample<Acc>* samples;  // (kDeformRows,)
  Acc* masks;
  TILEWRIGHT_HD explicit TilePlan(SharedMemory& shared)
      : samples(shared.take<DeformSample<Acc>>(kDeformRows)),
        masks(shared.take<Acc>(kDeformRows)) {}

  // Output pixels from the first on; those from `end` on read nothing. Barriers are the caller's.
  template <class T>
  TILEWRIGHT_DEVICE void make(const DeformParams<T>& p, int64_t image, int64_t offset_group,
                              int64_t tap, int64_t first, int64_t end) const {
    const DeformConvShape& s = p.shape;
    const int64_t map = (image * s.offset_groups + offset_group) * s.taps() + tap;
    for (int row = int(threadIdx.x); row < kDeformRows; row += kDeformThreads) {
      const int64_t pixel = first + row;
      Acc y = Acc(-2), x = Acc(-2), mask = Acc(0);
      if (pixel < end) {
        const Acc* offset = p.offset + 2 * map * s.out_pixels() + pixel;
        y = Acc(s.tap_y(pixel / s.out_width, tap)) + ldg(offset);
        x = Acc(s.tap_x(pixel % s.out_width, tap)) + ldg(offset + s.out_pixels());
        mask = p.mask ? ldg(p.mask + map * s.out_pixels() + pixel) : Acc(1);
      }
      samples[row] = deform_sample(y, x, s.height, s.width);
      masks[row] = mask;
    }
  }
};

// A column's kWidth channels: what a sample reads there, times the mask.
template <int kWidth, class T>
TILEWRIGHT_DEVICE Pack<T, kWidth> sample_channels(const DeformConvShape& s, const T* image,
                                                  const DeformSample<accumulate_t<T>>& sample,
                                                  accumulate_t<T> mask, int64_t channel) {
  using Acc = accumulate_t<T>;
  Acc sums[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[i] = Acc(0);
  add_sample<kWidth>(s, image, sample, mask, channel, sums);
  Pack<T, kWidth> values;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] = from_accumulate<T>(sums[i]);
  return values;
}

// Fills rows of `depth` elements: element (row, k) from load(row, k), kWidth at a time, zeros from
// `count` on. rows * depth is a multiple of the threads' share.
template <int kRows, int kDepth, int kWidth, class T, class Load>
TILEWRIGHT_DEVICE void fill_rows(T* to, int stride, int64_t count, const Load& load) {
  for (int i = int(threadIdx.x); i < kRows * kDepth / kWidth; i += kDeformThreads) {
    const int row = i / (kDepth / kWidth), k = i % (kDepth / kWidth) * kWidth;
    Pack<T, kWidth> values;
    if (k < count) {
      values = load(row, k);
    } else {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) values[e] = from_accumulate<T>(accumulate_t<T>(0));
    }
    store_pack(to + row * stride + k, values);
  }
}

template <class T>
struct DeformForwardParts {
  TilePlan<accumulate_t<T>> plan;
  TileFactors<T> factors;
  TILEWRIGHT_HD explicit DeformForwardParts(SharedMemory& shared) : plan(shared), factors(shared) {}
};

// A run of channels that lie in one group and one offset group: visit(offset group, begin, end).
template <class Visit>
TILEWRIGHT_DEVICE void for_offset_groups(const DeformConvShape& s, int64_t group,
                                         const Visit& visit) {
  const int64_t end = (group + 1) * s.group_channels();
  for (int64_t c = group * s.group_channels(); c < end;) {
    const int64_t og = c / s.offset_group_channels();
    const int64_t last = min_of(end, (og + 1) * s.offset_group_channels());
    visit(og, c, last);
    c = last;
  }
}

// A block: kDeformRows output pixels of an image by kDeformColumns results of a group. kWidth:
// channels that travel together, 1 or what fills 16 bytes.
template <class T, int kWidth>
__global__ void deform_conv_forward_kernel(DeformParams<T> p) {
  using Acc = accumulate_t<T>;
  constexpr int kDepth = TileFactors<T>::kDepth;
  SharedMemory shared;
  const DeformForwardParts<T> parts(shared);
  const DeformConvShape& s = p.shape;
  const int64_t outs = s.group_out_channels(), out_tiles = ceil_div(outs, kDeformColumns);
  const int64_t out = blockIdx.x % out_tiles * kDeformColumns;
  const int64_t group = blockIdx.x / out_tiles % s.groups;
  const int64_t tile = blockIdx.x / out_tiles / s.groups;
  const int64_t image = tile / p.tiles(), first = tile % p.tiles() * kDeformRows;
  const T* pixels = p.input + image * s.pixels() * s.channels;
  TileSums<T> sums;
  sums.clear();
  for (int64_t tap = 0; tap < s.taps(); ++tap) {
    for_offset_groups(s, group, [&](int64_t og, int64_t begin, int64_t end) {
      parts.plan.make(p, image, og, tap, first, s.out_pixels());
      __syncthreads();
      for (int64_t c = begin; c < end; c += kDepth) {
        fill_rows<kDeformRows, kDepth, kWidth>(
            parts.factors.a, TileFactors<T>::kStrideA, end - c, [&](int row, int k) {
              return sample_channels<kWidth>(s, pixels, parts.plan.samples[row],
                                             parts.plan.masks[row], c + k);
            });
        const int64_t channel = c - group * s.group_channels();
        const T* weight =
            p.weight + ((group * s.taps() + tap) * s.group_channels() + channel) * outs;
        fill_rows<kDepth, kDeformColumns, 1>(
            parts.factors.b, TileFactors<T>::kStrideB, outs - out, [&](int k, int column) {
              Pack<T, 1> value;
              value[0] =
                  k < end - c ? ldg(weight + k * outs + out + column) : from_accumulate<T>(Acc(0));
              return value;
            });
        __syncthreads();
        sums.add(parts.factors);
        __syncthreads();
      }
    });
  }
  sums.for_each([&](int row, int column, Acc sum) {
    const int64_t pixel = first + row, channel = group * outs + out + column;
    if (pixel >= s.out_pixels() || out + column >= outs) return;
    if (p.bias) sum += ldg(p.bias + channel);
    const int64_t place = p.channels_last
                              ? (image * s.out_pixels() + pixel) * s.out_channels + channel
                              : (image * s.out_channels + channel) * s.out_pixels() + pixel;
    p.output[place] = from_accumulate<T>(sum);
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
