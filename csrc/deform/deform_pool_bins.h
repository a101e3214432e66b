// A moved bin's weights of rows and of columns, which both passes of the CPU walk.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/deform/deform_pool_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What a bin takes of one axis: pixels, their weights and these weights' derivatives.
template <class Acc>
class BinAxis {
 public:
  struct Tap {
    int64_t at;
    Acc weight, slope;
  };

  explicit BinAxis(int64_t size) : size_(size) {
    weights_.assign(size, Acc(0));
    slopes_.assign(size, Acc(0));
  }

  void plan(const MovedAxis<Acc>& axis, int64_t p, Acc move, bool position_sensitive) {
    int64_t first = size_, last = -1;
    count_ = for_each_moved_sample(axis, p, move, size_, position_sensitive,
                                   [&](const AxisSample<Acc>& sample, Acc slope) {
                                     weights_[sample.low] += sample.weight_low;
                                     weights_[sample.high] += sample.weight_high;
                                     slopes_[sample.low] -= slope;
                                     slopes_[sample.high] += slope;
                                     first = min_of(first, sample.low);
                                     last = max_of(last, sample.high);
                                   });
    taps_.clear();
    for (int64_t i = first; i <= last; ++i) {
      if (weights_[i] == Acc(0) && slopes_[i] == Acc(0)) continue;
      taps_.push_back({i, weights_[i], slopes_[i]});
      weights_[i] = slopes_[i] = Acc(0);
    }
  }
  const Buffer<Tap>& taps() const { return taps_; }
  Acc count() const { return count_; }

 private:
  int64_t size_;
  Acc count_ = Acc(1);
  Buffer<Acc> weights_, slopes_;  // (size,): zeros between plans
  Buffer<Tap> taps_;
};

// The bins of one box after the other, moved.
template <class T>
class MovedBins {
  using Acc = Accumulate<T>;

 public:
  explicit MovedBins(const DeformPoolCpuParams& params)
      : p_(params), s_(params.shape), y(s_.height), x(s_.width) {}

  // The image of box k, or -1 where the box has no samples.
  int64_t take(int64_t k) {
    const Acc* roi = static_cast<const Acc*>(p_.rois) + 5 * k;
    roi_ = k;
    box_ = make_moved_box(roi, s_);
    unit_y_ = box_.y.unit(s_.pooled_height, s_);
    unit_x_ = box_.x.unit(s_.pooled_width, s_);
    return box_.finite ? roi_batch(roi[0], s_.batch) : -1;
  }
  // Plans a bin of one class; false where it has no samples.
  bool plan(int64_t bin, int64_t cls) {
    const Acc* moves = static_cast<const Acc*>(p_.offset) +
                       (roi_ * s_.classes + cls) * 2 * s_.parts() + s_.part_of(bin);
    x.plan(box_.x, bin % s_.pooled_width, moves[0] * unit_x_, s_.position_sensitive);
    y.plan(box_.y, bin / s_.pooled_width, moves[s_.parts()] * unit_y_, s_.position_sensitive);
    return x.taps().size() > 0 && y.taps().size() > 0;
  }
  Acc share() const { return Acc(1) / (y.count() * x.count()); }
  Acc unit_y() const { return unit_y_; }
  Acc unit_x() const { return unit_x_; }

 private:
  const DeformPoolCpuParams& p_;
  const DeformPoolShape& s_;
  MovedBox<Acc> box_{};
  int64_t roi_ = 0;
  Acc unit_y_ = 0, unit_x_ = 0;

 public:
  BinAxis<Acc> y, x;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
