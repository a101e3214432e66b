// The weights of one box on one axis, bin by bin, as a sparse list. Samples of a bin that share a
// pixel are merged, so dense grids cost their pixels, not their samples. CPU kernels of both
// directions walk these lists: the backward is the exact transpose of the forward.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/detection/roi_align_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct Tap {
  int64_t pixel;
  T weight;
};

// The taps of one axis of one box, wherever they are kept.
template <class T>
struct AxisTaps {
  const Tap<T>* taps;
  const int64_t* ends;  // of each bin, from `taps`
  int64_t size;         // taps of all bins
  int64_t low, high;    // the pixels that any bin touches lie in [low, high)

  const Tap<T>* begin(int64_t bin) const { return taps + (bin ? ends[bin - 1] : 0); }
  const Tap<T>* end(int64_t bin) const { return taps + ends[bin]; }
};

template <class T>
struct BoxTaps {
  AxisTaps<T> y, x;  // the weights of y carry the 1 / samples per bin
};

// The taps of any number of boxes, one after another in one piece of memory.
template <class T>
class BoxTapList {
 public:
  void clear() {
    taps_.clear();
    ends_.clear();
    boxes_.clear();
  }

  // Appends a box; without taps where it has no sample on the map.
  void add(const T* roi, T spatial_scale, const RoiAlignGeometry& geometry, int64_t height,
           int64_t width) {
    const RoiAlignBox<T> box = make_roi_box(roi, spatial_scale, geometry);
    Axis y{}, x{};
    if (box.finite) y = add_axis(box.y, geometry.pooled_height, height, box.inverse_count);
    if (y.size > 0) x = add_axis(box.x, geometry.pooled_width, width, T(1));
    boxes_.push_back({y, x});
  }

  int64_t size() const { return boxes_.size(); }
  bool empty(int64_t k) const { return boxes_[k].x.size == 0; }
  BoxTaps<T> operator[](int64_t k) const { return {view(boxes_[k].y), view(boxes_[k].x)}; }

 private:
  struct Axis {
    int64_t taps, ends, size, low, high;
  };
  struct Box {
    Axis y, x;
  };

  AxisTaps<T> view(const Axis& axis) const {
    return {taps_.data() + axis.taps, ends_.data() + axis.ends, axis.size, axis.low, axis.high};
  }

  // `scale` is multiplied into every weight.
  Axis add_axis(const RoiAxis<T>& axis, int64_t bins, int64_t size, T scale) {
    const int64_t begin = taps_.size(), ends = ends_.size();
    int64_t low = size, high = 0;
    for (int64_t p = 0; p < bins; ++p) {
      const int64_t bin_begin = taps_.size();
      int64_t first, last;
      axis.sample_range(p, T(-1), T(size), first, last);
      for (int64_t i = first; i < last; ++i) {
        AxisSample<T> sample;
        if (!sample_axis(axis.coordinate(p, i), size, sample)) continue;
        add(bin_begin, sample.low, sample.weight_low * scale);
        if (sample.weight_high != T(0)) add(bin_begin, sample.high, sample.weight_high * scale);
        low = min_of(low, sample.low);
        high = max_of(high, sample.high + 1);
      }
      ends_.push_back(taps_.size() - begin);
    }
    return {begin, ends, taps_.size() - begin, low, high};
  }

  // Samples go forward along the axis, so only the last two pixels can come again.
  void add(int64_t bin_begin, int64_t pixel, T weight) {
    const int64_t n = taps_.size();
    for (int64_t back = 1; back <= 2 && n >= bin_begin + back; ++back) {
      if (taps_[n - back].pixel == pixel) {
        taps_[n - back].weight += weight;
        return;
      }
    }
    taps_.push_back({pixel, weight});
  }

  Buffer<Tap<T>> taps_;
  Buffer<int64_t> ends_;
  Buffer<Box> boxes_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
