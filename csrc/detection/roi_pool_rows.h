// The rows of bins of many boxes, from the top of the map to its bottom: the order in which RoIPool
// on the CPU visits contiguous maps, so that a few packed rows of pixels serve all boxes.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/detection/roi_pool_cpu.h"
#include "tilewright/detection/roi_pool_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Boxes of a piece of the forward pass over contiguous maps: enough to be worth packing for.
constexpr int64_t kPoolBoxRun = 512;

// A row of bins of one box: pixel rows [first, last).
struct PoolBinRow {
  int64_t box, ph;  // box: index into the run
  int64_t first, last;
};

template <class Acc>
PoolBox<Acc> pool_box_of(const RoiPoolCpuParams& p, int64_t k) {
  return make_pool_box(static_cast<const Acc*>(p.rois) + 5 * k, Acc(p.spatial_scale),
                       p.pooled_height, p.pooled_width, true);
}

template <class Acc>
class PoolBinRows {
 public:
  // The rows of bins of a run of boxes that lie in an image, in the order of their first pixel.
  void gather(const RoiPoolCpuParams& p, int64_t image, int64_t run) {
    if (image == image_ && run == run_) return;
    image_ = image;
    run_ = run;
    rows_.clear();
    boxes_.clear();
    empty_.clear();
    tallest_ = 1;
    first_column_ = p.width;
    last_column_ = 0;
    const int64_t end = min_of((run + 1) * kPoolBoxRun, p.num_rois);
    for (int64_t k = run * kPoolBoxRun; k < end; ++k) {
      const PoolBox<Acc> box = pool_box_of<Acc>(p, k);
      boxes_.push_back(box);
      if (roi_batch(static_cast<const Acc*>(p.rois)[5 * k], p.batch) != image) continue;
      int64_t x0, x1, unused;
      box.x.pixels(0, p.width, x0, unused);
      box.x.pixels(p.pooled_width - 1, p.width, unused, x1);
      if (!box.finite) {
        empty_.push_back(k);
        continue;
      }
      if (x0 < x1) {
        first_column_ = min_of(first_column_, x0);
        last_column_ = max_of(last_column_, x1);
      }
      for (int64_t ph = 0; ph < p.pooled_height; ++ph) {
        PoolBinRow row{k - run * kPoolBoxRun, ph};
        box.y.pixels(ph, p.height, row.first, row.last);
        tallest_ = max_of(tallest_, row.last - row.first);
        rows_.push_back(row);
      }
    }
    sort(p.height);
  }

  const Buffer<PoolBinRow>& rows() const { return rows_; }
  const PoolBox<Acc>& box(const PoolBinRow& row) const { return boxes_[row.box]; }
  // Boxes of the image that have no pixels because they are not finite.
  const Buffer<int64_t>& empty() const { return empty_; }
  // The most pixel rows of one row of bins.
  int64_t tallest() const { return tallest_; }
  // All bins lie in columns [first_column, last_column).
  int64_t first_column() const { return first_column_; }
  int64_t last_column() const { return last_column_; }

 private:
  // Radix sort by `first`.
  void sort(int64_t height) {
    constexpr int kBits = 11;
    constexpr int64_t kDigits = 1 << kBits;
    for (int shift = 0; height >> shift > 0; shift += kBits) {
      int64_t starts[kDigits + 1] = {};
      for (const PoolBinRow& row : rows_) ++starts[(row.first >> shift & (kDigits - 1)) + 1];
      for (int64_t i = 0; i < kDigits; ++i) starts[i + 1] += starts[i];
      sorted_.resize(rows_.size());
      for (const PoolBinRow& row : rows_)
        sorted_[starts[row.first >> shift & (kDigits - 1)]++] = row;
      rows_.swap(sorted_);
    }
  }

  Buffer<PoolBinRow> rows_, sorted_;
  Buffer<PoolBox<Acc>> boxes_;
  Buffer<int64_t> empty_;
  int64_t image_ = -1, run_ = -1;
  int64_t tallest_ = 1, first_column_ = 0, last_column_ = 0;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
