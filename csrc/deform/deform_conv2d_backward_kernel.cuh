// deform_conv2d's gradients on the device. The columns' gradient is a tile of a matrix product that
// a block spreads over the pixels its samples read, and multiplies with these pixels for the
// gradients of offsets and masks; the weight's gradient is a product over output pixels.
#pragma once
#include "tilewright/deform/deform_conv2d_kernel.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct DeformSpreadParts {
  using Acc = accumulate_t<T>;
  // Half of the tile's rows at a time, so that float64 fits.
  static constexpr int kRows = kDeformRows / 2, kStride = kDeformColumns + 1;
  TilePlan<Acc> plan;
  TileFactors<T> factors;
  Acc* columns;  // (kRows, kStride): the columns' gradient
  Acc* dots;     // (kDeformRows, 4): its products with the four pixels
  TILEWRIGHT_HD explicit DeformSpreadParts(SharedMemory& shared)
      : plan(shared),
        factors(shared),
        columns(shared.take<Acc>(kRows * kStride)),
        dots(shared.take<Acc>(kDeformRows * 4)) {}
};

// Of the columns' gradient in parts.columns, that of the tile's rows from `first_row` on: `count`
// channels from `channel` on.
template <class T>
TILEWRIGHT_DEVICE void spread_columns(const DeformParams<T>& p, const DeformSpreadParts<T>& parts,
                                      int64_t image, int64_t channel, int count, int first_row) {
  using Acc = accumulate_t<T>;
  const DeformConvShape& s = p.shape;
  const int64_t first_place = image * s.pixels() * s.channels + channel;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Acc largest = Acc(0);
  for (int r = warp; r < DeformSpreadParts<T>::kRows; r += kDeformThreads / 32) {
    const int row = first_row + r;
    const DeformSample<Acc> sample = parts.plan.samples[row];
    const Acc mask = parts.plan.masks[row];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      Acc dot = Acc(0);
      if (sample.pixel[k] < s.pixels()) {  // alike in all lanes
        const int64_t place = first_place + sample.pixel[k] * s.channels;
        const Acc weight = sample.weight(k) * mask;
        for (int c = lane; c < count; c += 32) {
          const Acc grad = parts.columns[r * DeformSpreadParts<T>::kStride + c];
          dot += grad * to_accumulate(ldg(p.input + place + c));
          if (p.grad_input.only_largest) {
            p.grad_input.note(grad * weight, largest);
          } else if (p.grad_input.wanted()) {
            p.grad_input.add(place + c, grad * weight);
          }
        }
      }
      dot = warp_reduce(dot, Sum());
      if (lane == 0) parts.dots[row * 4 + k] += dot;
    }
  }
  if (p.grad_input.only_largest) p.grad_input.keep_largest(largest);
}

// A block: kDeformRows output pixels of an image, one tap of one offset group.
template <class T>
__global__ void deform_conv_spread_kernel(DeformParams<T> p) {
  using Acc = accumulate_t<T>;
  constexpr int kDepth = TileFactors<T>::kDepth;
  SharedMemory shared;
  const DeformSpreadParts<T> parts(shared);
  const DeformConvShape& s = p.shape;
  const int64_t tap = blockIdx.x % s.taps(), og = blockIdx.x / s.taps() % s.offset_groups;
  const int64_t tile = blockIdx.x / s.taps() / s.offset_groups;
  const int64_t image = tile / p.tiles(), first = tile % p.tiles() * kDeformRows;
  const int64_t outs = s.group_out_channels(), inside = s.group_channels();
  parts.plan.make(p, image, og, tap, first, s.out_pixels());
  for (int i = int(threadIdx.x); i < kDeformRows * 4; i += kDeformThreads) parts.dots[i] = Acc(0);
  __syncthreads();
  const int64_t end = (og + 1) * s.offset_group_channels();
  for (int64_t c = og * s.offset_group_channels(); c < end;) {
    const int64_t group = c / inside;
    const int count = int(min_of<int64_t>(min_of(end, (group + 1) * inside) - c, kDeformColumns));
    TileSums<T> sums;
    sums.clear();
    for (int64_t out = 0; out < outs; out += kDepth) {
      fill_rows<kDeformRows, kDepth, 1>(
          parts.factors.a, TileFactors<T>::kStrideA, outs - out, [&](int row, int k) {
            Pack<T, 1> value;
            const int64_t pixel = first + row;
            value[0] = pixel < s.out_pixels()
                           ? ldg(p.grad_rows + (image * s.out_pixels() + pixel) * s.out_channels +
                                 group * outs + out + k)
                           : from_accumulate<T>(Acc(0));
            return value;
          });
      fill_rows<kDepth, kDeformColumns, 1>(
          parts.factors.b, TileFactors<T>::kStrideB, count, [&](int k, int column) {
            Pack<T, 1> value;
            value[0] = out + k < outs
                           ? ldg(p.weight + ((group * outs + out + k) * s.taps() + tap) * inside +
                                 c - group * inside + column)
                           : from_accumulate<T>(Acc(0));
            return value;
          });
      __syncthreads();
      sums.add(parts.factors);
      __syncthreads();
    }
    for (int from = 0; from < kDeformRows; from += DeformSpreadParts<T>::kRows) {
      sums.for_each([&](int row, int column, Acc sum) {
        if (row < from || row >= from + DeformSpreadParts<T>::kRows) return;
        parts.columns[(row - from) * DeformSpreadParts<T>::kStride + column] = sum;
      });
      __syncthreads();
      spread_columns(p, parts, image, c, count, from);
      __syncthreads();
    }
    c += count;
  }
  if (p.grad_input.only_largest) return;
  const int64_t map = (image * s.offset_groups + og) * s.taps() + tap;
  for (int row = int(threadIdx.x); row < kDeformRows; row += kDeformThreads) {
    const int64_t pixel = first + row;
    if (pixel >= s.out_pixels()) continue;
    const DeformSample<Acc> sample = parts.plan.samples[row];
    const Acc* dots = parts.dots + row * 4;
    if (p.grad_offset) {
      Acc* to = p.grad_offset + 2 * map * s.out_pixels() + pixel;
      to[0] = parts.plan.masks[row] * sample.slope_y(dots);
      to[s.out_pixels()] = parts.plan.masks[row] * sample.slope_x(dots);
    }
    if (p.grad_mask) p.grad_mask[map * s.out_pixels() + pixel] = sample.value(dots);
  }
}

// A block: the weight's gradient of kDeformRows results and kDeformColumns channels of a group, for
// one tap, over one split of all output pixels.
template <class T, int kWidth>
__global__ void deform_conv_grad_weight_kernel(DeformParams<T> p, int64_t channel_tiles) {
  using Acc = accumulate_t<T>;
  constexpr int kDepth = TileFactors<T>::kDepth;
  SharedMemory shared;
  const DeformForwardParts<T> parts(shared);
  const DeformConvShape& s = p.shape;
  const int64_t outs = s.group_out_channels(), inside = s.group_channels();
  const int64_t out_tiles = ceil_div(outs, kDeformRows);
  int64_t index = blockIdx.x;
  const int64_t out = index % out_tiles * kDeformRows;
  index /= out_tiles;
  const int64_t tap = index % s.taps();
  index /= s.taps();
  const int64_t channel = index % channel_tiles * kDeformColumns;
  index /= channel_tiles;
  const int64_t group = index % s.groups, split = index / s.groups;
  const int64_t steps = ceil_div(s.out_pixels(), kDepth), all = s.batch * steps;
  TileSums<T> sums;
  sums.clear();
  for (int64_t step = all * split / p.splits; step < all * (split + 1) / p.splits; ++step) {
    const int64_t image = step / steps, first = step % steps * kDepth;
    const T* pixels = p.input + image * s.pixels() * s.channels;
    const T* grad = p.grad_planes + (image * s.out_channels + group * outs + out) * s.out_pixels();
    fill_rows<kDeformRows, kDepth, 1>(
        parts.factors.a, TileFactors<T>::kStrideA, s.out_pixels() - first, [&](int row, int k) {
          Pack<T, 1> value;
          value[0] = out + row < outs ? ldg(grad + row * s.out_pixels() + first + k)
                                      : from_accumulate<T>(Acc(0));
          return value;
        });
    const int64_t begin = group * inside + channel;
    const int64_t end = min_of((group + 1) * inside, begin + kDeformColumns);
    for (int64_t c = begin; c < end;) {  // runs of channels that share offsets
      const int64_t og = c / s.offset_group_channels();
      const int64_t last = min_of(end, (og + 1) * s.offset_group_channels());
      parts.plan.make(p, image, og, tap, first, min_of(s.out_pixels(), first + kDepth));
      __syncthreads();
      // This run's columns of b; the last run clears those that no channel has.
      const int from = int(c - begin), to = int(last - begin);
      const int stop = last == end ? kDeformColumns : to;
      for (int i = int(threadIdx.x); i < kDepth * (kDeformColumns / kWidth); i += kDeformThreads) {
        const int k = i / (kDeformColumns / kWidth),
                  column = i % (kDeformColumns / kWidth) * kWidth;
        if (column < from || column >= stop) continue;
        Pack<T, kWidth> values;
#pragma unroll
        for (int e = 0; e < kWidth; ++e) values[e] = from_accumulate<T>(Acc(0));
        if (column < to) {
          values = sample_channels<kWidth>(s, pixels, parts.plan.samples[k], parts.plan.masks[k],
                                           begin + column);
        }
        store_pack(parts.factors.b_at(k, column), values);
      }
      __syncthreads();
      c = last;
    }
    sums.add(parts.factors);
    __syncthreads();
  }
  sums.for_each([&](int row, int column, Acc sum) {
    if (out + row >= outs || channel + column >= inside) return;
    p.grad_weight[(((split * s.groups + group) * outs + out + row) * s.taps() + tap) * inside +
                  channel + column] = sum;
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
