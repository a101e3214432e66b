// What the boxes of one image take of each axis, bin by bin, in the form that the CPU kernels of
// the position-sensitive operators walk: rows with weights, and registers of columns with a weight
// per lane. Both directions walk it, so the backward is the exact transpose of the forward.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/ps_roi_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class Acc>
struct PsRow {
  int64_t offset;  // of the row's first pixel in the plane
  Acc weight;
};

// Columns [first, first + lanes); those of weight 0 are not meant.
template <class Acc>
struct PsColumns {
  int64_t first;
  Acc weights[kLanes<Acc>];
};

template <class Acc>
class PsRoiPlan {
 public:
  // One bin's part of an axis: entries [begin, end) of rows() or columns().
  struct Bin {
    int64_t begin, end;
    Acc count;
  };

  // Plans boxes of the image from `first` on, as many as kPlanBytes hold and one more; returns
  // where the next call has to go on. Remembers the last plan.
  int64_t build(const PsRoiCpuParams& p, int64_t image, int64_t first) {
    if (image == image_ && first == first_) return next_;
    image_ = image;
    first_ = first;
    boxes_.clear();
    y_bins_.clear();
    x_bins_.clear();
    rows_.clear();
    columns_.clear();
    first_row_ = p.height * p.width;
    last_row_ = 0;
    const Acc* rois = static_cast<const Acc*>(p.rois);
    for (next_ = first; next_ < p.num_rois && bytes() < kPlanBytes; ++next_) {
      const Acc* roi = rois + 5 * next_;
      if (roi_batch(roi[0], p.batch) != image) continue;
      boxes_.push_back(next_);
      if (p.geometry.align) {
        add<PsRoiAlignRule<Acc>>(p, roi);
      } else {
        add<PsRoiPoolRule<Acc>>(p, roi);
      }
    }
    return next_;
  }

  int64_t size() const { return boxes_.size(); }
  int64_t box(int64_t i) const { return boxes_[i]; }  // its row in rois
  const Bin& y_bin(int64_t i, int64_t ph, const PsRoiGeometry& geometry) const {
    return y_bins_[i * geometry.pooled_height + ph];
  }
  const Bin& x_bin(int64_t i, int64_t pw, const PsRoiGeometry& geometry) const {
    return x_bins_[i * geometry.pooled_width + pw];
  }
  const PsRow<Acc>* rows() const { return rows_.data(); }
  const PsColumns<Acc>* columns() const { return columns_.data(); }
  // Offsets of the first and the last row that any box takes.
  int64_t first_row() const { return first_row_; }
  int64_t last_row() const { return last_row_; }

 private:
  static constexpr int64_t kPlanBytes = 1 << 20;

  int64_t bytes() const {
    return rows_.size() * int64_t(sizeof(PsRow<Acc>)) +
           columns_.size() * int64_t(sizeof(PsColumns<Acc>)) +
           (y_bins_.size() + x_bins_.size()) * int64_t(sizeof(Bin));
  }

  template <class Rule>
  void add(const PsRoiCpuParams& p, const Acc* roi) {
    const auto box = Rule::box(roi, Acc(p.spatial_scale), p.geometry);
    for (int64_t ph = 0; ph < p.geometry.pooled_height; ++ph) {
      Bin bin{rows_.size(), rows_.size(), Acc(1)};
      if (box.finite) {
        bin.count = Rule::for_each_tap(box.y, ph, p.height, [&](int64_t y, Acc weight) {
          add_row(bin.begin, y * p.width, weight);
        });
      }
      bin.end = rows_.size();
      y_bins_.push_back(bin);
    }
    for (int64_t pw = 0; pw < p.geometry.pooled_width; ++pw) {
      Bin bin{columns_.size(), columns_.size(), Acc(1)};
      if (box.finite) {
        bin.count = Rule::for_each_tap(box.x, pw, p.width, [&](int64_t x, Acc weight) {
          add_column(bin.begin, x, weight, p.width);
        });
      }
      bin.end = columns_.size();
      x_bins_.push_back(bin);
    }
  }

  // Samples go along the axis, so only the last two rows can come again.
  void add_row(int64_t begin, int64_t offset, Acc weight) {
    for (int64_t back = 1; back <= 2 && rows_.size() >= begin + back; ++back) {
      PsRow<Acc>& row = rows_[rows_.size() - back];
      if (row.offset == offset) {
        row.weight += weight;
        return;
      }
    }
    rows_.push_back({offset, weight});
    first_row_ = min_of(first_row_, offset);
    last_row_ = max_of(last_row_, offset);
  }

  void add_column(int64_t begin, int64_t x, Acc weight, int64_t width) {
    constexpr int64_t kLane = kLanes<Acc>;
    if (columns_.size() > begin) {
      PsColumns<Acc>& last = columns_[columns_.size() - 1];
      if (x >= last.first && x < last.first + kLane) {
        last.weights[x - last.first] += weight;
        return;
      }
    }
    columns_.resize(columns_.size() + 1);
    PsColumns<Acc>& columns = columns_[columns_.size() - 1];
    columns.first = max_of<int64_t>(min_of(x, width - kLane), 0);
    for (Acc& lane : columns.weights) lane = Acc(0);
    columns.weights[x - columns.first] = weight;
  }

  int64_t image_ = -1, first_ = -1, next_ = 0;
  int64_t first_row_ = 0, last_row_ = 0;
  Buffer<int64_t> boxes_;
  Buffer<Bin> y_bins_, x_bins_;
  Buffer<PsRow<Acc>> rows_;
  Buffer<PsColumns<Acc>> columns_;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
