// Deformable RoI pooling's device code. Forward: a thread per output element. Backward: a block per
// bin and class, which spreads the bin's gradient over the map and sums the derivative in its move.
#pragma once
#include "tilewright/core/cuda/shared.h"
#include "tilewright/deform/deform_pool_math.h"
#include "tilewright/deform/gradient_sums.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kDeformPoolThreads = 64;

template <class T>
struct DeformPoolParams {
  using Acc = accumulate_t<T>;
  DeformPoolShape shape;
  const Acc *rois, *offset;  // (K, 5); (K, classes, 2, parts)
  const T* maps;             // (N, maps, H, W, outs)
  T* pooled;                 // (K, outs, bins), or (K, bins, outs) where pooled_last
  bool pooled_last;
  GradientSums<Acc> grad_maps;  // as maps
  Acc* grad_moves;              // (K, classes, 2, bins), or null

  TILEWRIGHT_HD int64_t pooled_at(int64_t k, int64_t bin, int64_t out) const {
    const int64_t bins = shape.bins();
    return k * bins * shape.outs + (pooled_last ? bin * shape.outs + out : out * bins + bin);
  }
};

template <class Acc>
struct DeformPoolParts {
  Acc* scratch;
  TILEWRIGHT_HD explicit DeformPoolParts(SharedMemory& shared) : scratch(shared.take<Acc>(32)) {}
};

// A bin of one box and class, moved.
template <class Acc>
struct MovedBin {
  MovedBox<Acc> box;
  Acc move_y, move_x, unit_y, unit_x;
  int64_t ph, pw, map;  // map: of all images', or -1 where there are no samples

  template <class T>
  TILEWRIGHT_DEVICE MovedBin(const DeformPoolParams<T>& p, int64_t k, int64_t bin, int64_t cls)
      : box(make_moved_box(p.rois + 5 * k, p.shape)) {
    const DeformPoolShape& s = p.shape;
    const Acc* moves = p.offset + (k * s.classes + cls) * 2 * s.parts() + s.part_of(bin);
    unit_y = box.y.unit(s.pooled_height, s);
    unit_x = box.x.unit(s.pooled_width, s);
    move_x = ldg(moves) * unit_x;
    move_y = ldg(moves + s.parts()) * unit_y;
    ph = bin / s.pooled_width;
    pw = bin % s.pooled_width;
    const int64_t image = box.finite ? roi_batch(ldg(p.rois + 5 * k), s.batch) : -1;
    map = image < 0 ? -1 : image * s.maps() + s.map_of(bin);
  }

  // Calls visit(pixel, weight, slope_y, slope_x) for what the bin reads, weights summing to the
  // count, which it returns. A pixel may come several times, and some of weight 0.
  template <class Visit>
  TILEWRIGHT_DEVICE Acc for_each_pixel(const DeformPoolShape& s, Visit&& visit) const {
    Acc count_x = Acc(1);
    const Acc count_y = for_each_moved_sample(
        box.y, ph, move_y, s.height, s.position_sensitive,
        [&](const AxisSample<Acc>& y, Acc slope_y) {
          count_x = for_each_moved_sample(
              box.x, pw, move_x, s.width, s.position_sensitive,
              [&](const AxisSample<Acc>& x, Acc slope_x) {
#pragma unroll
                for (int corner = 0; corner < 4; ++corner) {
                  const bool low = corner & 2, right = corner & 1;
                  const Acc weight_y = low ? y.weight_high : y.weight_low;
                  const Acc weight_x = right ? x.weight_high : x.weight_low;
                  visit((low ? y.high : y.low) * s.width + (right ? x.high : x.low),
                        weight_y * weight_x, (low ? slope_y : -slope_y) * weight_x,
                        (right ? slope_x : -slope_x) * weight_y);
                }
              });
        });
    return count_y * count_x;
  }
};

template <class T>
__global__ void deform_pool_forward_kernel(DeformPoolParams<T> p) {
  using Acc = accumulate_t<T>;
  const DeformPoolShape& s = p.shape;
  for (int64_t index : grid_stride(s.rois * s.bins() * s.outs)) {
    const int64_t out = index % s.outs, bin = index / s.outs % s.bins();
    const int64_t k = index / s.outs / s.bins();
    const MovedBin<Acc> moved(p, k, bin, out / s.class_channels());
    Acc sum = Acc(0), count = Acc(1);
    if (moved.map >= 0) {
      const T* map = p.maps + moved.map * s.pixels() * s.outs + out;
      count = moved.for_each_pixel(s, [&](int64_t pixel, Acc weight, Acc, Acc) {
        // A pixel of weight 0 is no part of a bin, even where it is infinite or NaN.
        if (weight != Acc(0)) sum += weight * to_accumulate(ldg(map + pixel * s.outs));
      });
    }
    p.pooled[p.pooled_at(k, bin, out)] = from_accumulate<T>(sum / count);
  }
}

// One thread's channels of a bin: their gradient over the map, and the derivatives in a move of a
// pixel; or in a first pass the largest addend.
template <class T>
TILEWRIGHT_DEVICE void spread_bin(const DeformPoolParams<T>& p,
                                  const MovedBin<accumulate_t<T>>& moved, int64_t k, int64_t bin,
                                  int64_t cls, accumulate_t<T>& down, accumulate_t<T>& right,
                                  accumulate_t<T>& largest) {
  using Acc = accumulate_t<T>;
  const DeformPoolShape& s = p.shape;
  if (moved.map < 0) return;
  const Acc count = moved.for_each_pixel(s, [](int64_t, Acc, Acc, Acc) {});
  const int64_t end = (cls + 1) * s.class_channels();
  for (int64_t out = cls * s.class_channels() + threadIdx.x; out < end; out += kDeformPoolThreads) {
    const Acc grad = to_accumulate(ldg(p.pooled + p.pooled_at(k, bin, out))) / count;
    const int64_t first = moved.map * s.pixels() * s.outs + out;
    moved.for_each_pixel(s, [&](int64_t pixel, Acc weight, Acc slope_y, Acc slope_x) {
      const int64_t place = first + pixel * s.outs;
      if (p.grad_maps.only_largest) return p.grad_maps.note(weight * grad, largest);
      if (p.grad_maps.wanted() && weight != Acc(0)) p.grad_maps.add(place, weight * grad);
      if (!p.grad_moves) return;
      const Acc product = grad * to_accumulate(ldg(p.maps + place));
      down += slope_y * product;
      right += slope_x * product;
    });
  }
}

template <class T>
__global__ void deform_pool_backward_kernel(DeformPoolParams<T> p) {
  using Acc = accumulate_t<T>;
  SharedMemory shared;
  const DeformPoolParts<Acc> parts(shared);
  const DeformPoolShape& s = p.shape;
  Acc largest = Acc(0);
  for (int64_t block = blockIdx.x; block < s.rois * s.classes * s.bins(); block += gridDim.x) {
    const int64_t bin = block % s.bins(), cls = block / s.bins() % s.classes;
    const int64_t k = block / s.bins() / s.classes;
    const MovedBin<Acc> moved(p, k, bin, cls);
    Acc down = Acc(0), right = Acc(0);
    spread_bin(p, moved, k, bin, cls, down, right, largest);
    if (p.grad_maps.only_largest || !p.grad_moves) continue;
    down = block_reduce(down, Sum(), Acc(0), parts.scratch);
    right = block_reduce(right, Sum(), Acc(0), parts.scratch);
    if (threadIdx.x != 0) continue;
    Acc* to = p.grad_moves + (k * s.classes + cls) * 2 * s.bins() + bin;
    const bool moves = moved.map >= 0;  // else the box's size may be no number
    to[0] = moves ? right * moved.unit_x : Acc(0);
    to[s.bins()] = moves ? down * moved.unit_y : Acc(0);
  }
  if (p.grad_maps.only_largest) p.grad_maps.keep_largest(largest);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
