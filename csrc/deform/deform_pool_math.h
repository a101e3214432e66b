// Pooling whose bins move, once, for every machine: where the samples of a bin lie when it is moved
// (deformable RoI pooling, arXiv:1703.06211), what they weigh, and the derivative in the move.
//
// A bin's samples form a grid and move together, so its average is separable, as RoIAlign's is:
//   bin = sum over y, x of weight_y(y) * weight_x(x) * pixel(y, x) / count
// and so are its derivatives, with weight_y' or weight_x' in the place of one of the two.
#pragma once
#include "tilewright/detection/roi_align_math.h"

namespace tilewright {

// Functions of the host take it too, whatever the machine.
struct DeformPoolShape {
  int64_t rois, batch, height, width;
  int64_t outs;     // channels of a bin
  int64_t group;    // group * group maps of `outs` channels each; 1: all bins read the same
  int64_t classes;  // runs of channels that move together
  int64_t pooled_height, pooled_width;
  int64_t part_height, part_width;  // how finely moves are given
  int64_t samples;                  // of a bin and axis; <= 0: one per pixel
  bool position_sensitive;          // R-FCN's rule of boxes and borders; else RoIAlign's
  double spatial_scale, gamma;      // gamma: of a box's side, for a move of 1

  TILEWRIGHT_HD int64_t bins() const { return pooled_height * pooled_width; }
  TILEWRIGHT_HD int64_t parts() const { return part_height * part_width; }
  TILEWRIGHT_HD int64_t maps() const { return group * group; }
  TILEWRIGHT_HD int64_t pixels() const { return height * width; }
  TILEWRIGHT_HD int64_t class_channels() const { return outs / classes; }
  // Which map a bin reads, and which part of the moves is its own.
  TILEWRIGHT_HD int64_t map_of(int64_t bin) const {
    const int64_t ph = bin / pooled_width, pw = bin % pooled_width;
    return ph * group / pooled_height * group + pw * group / pooled_width;
  }
  TILEWRIGHT_HD int64_t part_of(int64_t bin) const {
    const int64_t ph = bin / pooled_width, pw = bin % pooled_width;
    return ph * part_height / pooled_height * part_width + pw * part_width / pooled_width;
  }
};

inline namespace TILEWRIGHT_MACHINE {

// One axis of a box whose bins move.
template <class T>
struct MovedAxis {
  RoiAxis<T> bins;
  T phase;  // where in its part of a bin a sample lies: 0.5 in the middle, 0 at the left end

  // Of phase 0 the first sample of the first bin lies exactly where the box begins: at -0.5 of
  // boxes that begin with the image, which is still on the map.
  TILEWRIGHT_HD T coordinate(int64_t p, int64_t i) const {
    return bins.start + T(p) * bins.bin + (T(i) + phase) * bins.bin / T(bins.grid);
  }
  // How far a move of 1 goes, in pixels.
  TILEWRIGHT_HD T unit(int64_t pooled, const DeformPoolShape& s) const {
    return T(s.gamma) * bins.bin * T(pooled);
  }
};

template <class T>
struct MovedBox {
  MovedAxis<T> y, x;
  bool finite;  // a box with a NaN or infinite coordinate has no samples
};

// R-FCN's box on one axis: whole pixels, the last one included; samples begin at the bin's corner.
template <class T>
TILEWRIGHT_HD MovedAxis<T> make_corner_axis(T low, T high, T scale, int64_t pooled,
                                            int64_t samples) {
  const T start = std::round(low) * scale - T(0.5);
  const T end = (std::round(high) + T(1)) * scale - T(0.5);
  return {{start, max_of(end - start, T(0.1)) / T(pooled), samples}, T(0)};
}

template <class T>
TILEWRIGHT_HD MovedBox<T> make_moved_box(const T* roi, const DeformPoolShape& s) {
  const RoiAlignBox<T> upright =
      make_roi_box(roi, T(s.spatial_scale), {s.pooled_height, s.pooled_width, s.samples, true});
  MovedBox<T> box{{upright.y, T(0.5)}, {upright.x, T(0.5)}, upright.finite};
  if (!s.position_sensitive) return box;
  box.x = make_corner_axis(roi[1], roi[3], T(s.spatial_scale), s.pooled_width, s.samples);
  box.y = make_corner_axis(roi[2], roi[4], T(s.spatial_scale), s.pooled_height, s.samples);
  box.finite = box.finite && is_finite(box.x.bins.start + box.x.bins.bin) &&
               is_finite(box.y.bins.start + box.y.bins.bin);
  return box;
}

// A sample of one axis and its derivative: what weight_high gains, and weight_low loses, for each
// pixel of moving. 0 where the border pixel's value holds; at whole coordinates that to the right.
template <class T>
TILEWRIGHT_HD bool moved_sample(T coordinate, int64_t size, bool position_sensitive,
                                AxisSample<T>& sample, T& slope) {
  // Such samples count for nothing, not for zeros.
  if (position_sensitive && !(coordinate >= T(-0.5) && coordinate <= T(size) - T(0.5))) {
    return false;
  }
  if (!sample_axis(coordinate, size, sample)) return false;
  slope = coordinate >= T(0) && sample.low != sample.high ? T(1) : T(0);
  return true;
}

// Calls visit(sample, slope) for the samples of bin p that a move leaves on the axis; returns what
// the axis counts.
template <class T, class Visit>
TILEWRIGHT_HD T for_each_moved_sample(const MovedAxis<T>& axis, int64_t p, T move, int64_t size,
                                      bool position_sensitive, Visit&& visit) {
  int64_t first = 0, last = 0, seen = 0;
  if (is_finite(move)) axis.bins.sample_range(p, T(-1) - move, T(size) - move, first, last);
#pragma unroll 1  // a few turns
  for (int64_t i = first; i < last; ++i) {
    AxisSample<T> sample;
    T slope;
    if (!moved_sample(axis.coordinate(p, i) + move, size, position_sensitive, sample, slope)) {
      continue;
    }
    ++seen;
    visit(sample, slope);
  }
  return T(max_of<int64_t>(position_sensitive ? seen : axis.bins.grid, 1));
}

}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
