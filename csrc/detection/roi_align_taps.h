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

template <class T>
class AxisTaps {
 public:
  // `scale` is multiplied into every weight.
  void build(const RoiAxis<T>& axis, int64_t bins, int64_t size, T scale) {
    taps_.clear();
    ends_.clear();
    low_ = size;
    high_ = 0;
    for (int64_t p = 0; p < bins; ++p) {
      const int64_t bin_begin = taps_.size();
      int64_t first, last;
      axis.sample_range(p, T(-1), T(size), first, last);
      for (int64_t i = first; i < last; ++i) {
        AxisSample<T> sample;
        if (!sample_axis(axis.coordinate(p, i), size, sample)) continue;
        add(bin_begin, sample.low, sample.weight_low * scale);
        if (sample.weight_high != T(0)) add(bin_begin, sample.high, sample.weight_high * scale);
        low_ = min_of(low_, sample.low);
        high_ = max_of(high_, sample.high + 1);
      }
      ends_.push_back(taps_.size());
    }
  }

  const Tap<T>* begin(int64_t bin) const { return taps_.data() + (bin ? ends_[bin - 1] : 0); }
  const Tap<T>* end(int64_t bin) const { return taps_.data() + ends_[bin]; }
  bool empty() const { return taps_.empty(); }
  int64_t count() const { return taps_.size(); }
  // The pixels that any bin touches lie in [low, high).
  int64_t low() const { return low_; }
  int64_t high() const { return high_; }

 private:
  // Samples go forward along the axis, so only the last two pixels can come again.
  void add(size_t bin_begin, int64_t pixel, T weight) {
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
  int64_t low_ = 0, high_ = 0;
};

template <class T>
struct BoxTaps {
  AxisTaps<T> y, x;

  // False where the box has no sample on the map.
  bool build(const T* roi, T spatial_scale, const RoiAlignGeometry& geometry, int64_t height,
             int64_t width) {
    const RoiAlignBox<T> box = make_roi_box(roi, spatial_scale, geometry);
    if (!box.finite) return false;
    y.build(box.y, geometry.pooled_height, height, box.inverse_count);
    x.build(box.x, geometry.pooled_width, width, T(1));
    return !y.empty() && !x.empty();
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
