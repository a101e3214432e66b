// RoIAlign's loops over pieces of work, for boxes that are upright (roi_align_upright.h) or rotated
// (roi_align_rotated_boxes.h).
//
// With channels last the maps are read where they lie. Of contiguous ones a piece of work packs a
// run of channels, row by row as the boxes need it, into a window with channels innermost, pools
// the boxes from there and unpacks what they pooled: even for one box that beats walking the
// planes. The backward pass sums into such windows in both layouts.
#pragma once
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/pixel_rows.h"
#include "tilewright/detection/roi_align_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A piece has one register of channels; more where a whole map of them is smaller than this.
constexpr int64_t kSmallMapBytes = 1 << 18;
constexpr int64_t kMostRegisters = 4;
// Forward: boxes whose rows would need a larger window are walked tap by tap. Backward: rows are
// summed in bands of this size, which stay in the cache.
constexpr int64_t kWindowBytes = 16 << 20;
constexpr int64_t kBandBytes = 1 << 20;

template <class T, template <class> class Boxes>
class RoiAlignCpu {
  using Acc = Accumulate<T>;
  static constexpr int64_t kNone = -1;

 public:
  explicit RoiAlignCpu(const RoiAlignCpuParams& params)
      : p_(params),
        bins_(params.geometry.pooled_height * params.geometry.pooled_width),
        groups_(params.pyramid.levels * params.batch),
        rois_(static_cast<const Acc*>(params.rois)),
        run_(channels_of_piece()),
        boxes_(params.geometry) {}

  int64_t forward_pieces() const {
    return p_.channels_last ? p_.num_rois : ceil_div(p_.channels, run_) * groups_;
  }
  int64_t backward_pieces() const { return ceil_div(p_.channels, run_) * bands(); }

  void forward(int64_t begin, int64_t end) {
    if (p_.channels_last) {
      for (int64_t k = begin; k < end; ++k) pool_channels_last(k);
      return;
    }
    list_boxes();
    for (int64_t piece = begin; piece < end; ++piece) {
      enter_group(piece % groups_);
      const int64_t c0 = piece / groups_ * run_;
      pool_group(c0, min_of(run_, p_.channels - c0));
    }
  }

  void backward(int64_t begin, int64_t end) {
    list_boxes();
    for (int64_t piece = begin; piece < end; ++piece) {
      int64_t band = piece % bands(), level = 0;
      for (; band >= p_.batch * bands_of_map(level); ++level)
        band -= p_.batch * bands_of_map(level);
      enter_group(level * p_.batch + band / bands_of_map(level));
      const int64_t first = band % bands_of_map(level) * band_rows(level);
      const int64_t last = min_of(first + band_rows(level), level_->height);
      const int64_t c0 = piece / bands() * run_;
      spread_band(first, last, c0, min_of(run_, p_.channels - c0));
    }
  }

 private:
  // Channels of a piece. It depends on the sizes alone, like everything about how work is cut.
  int64_t channels_of_piece() const {
    if (p_.channels_last) return kLanes<T> * min_of(kMostRegisters, registers_of_pixel());
    int64_t pixels = 1;
    for (int64_t i = 0; i < p_.pyramid.levels; ++i) {
      pixels = max_of(pixels, p_.levels[i].height * p_.levels[i].width);
    }
    const int64_t fitting = kSmallMapBytes / (pixels * kLanes<T> * int64_t(sizeof(Acc)));
    // Not so many that a few threads would be left without a piece.
    const int64_t shared = registers_of_pixel() / 8;
    return kLanes<T> * max_of<int64_t>(1, min_of(kMostRegisters, min_of(fitting, shared)));
  }
  int64_t registers_of_pixel() const {
    return max_of<int64_t>(1, ceil_div(p_.channels, kLanes<T>));
  }

  // The backward pass is cut into bands of rows besides.
  int64_t band_rows(int64_t level) const {
    const int64_t row = max_of<int64_t>(1, p_.levels[level].width) * run_ * int64_t(sizeof(Acc));
    return max_of<int64_t>(1, kBandBytes / row);
  }
  int64_t bands_of_map(int64_t level) const {
    return ceil_div(p_.levels[level].height, band_rows(level));
  }
  int64_t bands() const {
    int64_t all = 0;
    for (int64_t i = 0; i < p_.pyramid.levels; ++i) all += p_.batch * bands_of_map(i);
    return all;
  }

  // The taps of all boxes, and for each group (an image on a level) the list of its boxes in order.
  void list_boxes() {
    group_head_.assign(groups_, kNone);
    group_next_.resize(p_.num_rois);
    boxes_.clear();
    for (int64_t k = 0; k < p_.num_rois; ++k) {
      const Acc* roi = rois_ + Boxes<T>::kRoiWidth * k;
      const RoiAlignCpuLevel& level = p_.levels[roi_level(roi, p_.pyramid)];
      boxes_.add(roi, Acc(level.spatial_scale), level.height, level.width);
    }
    for (int64_t k = p_.num_rois - 1; k >= 0; --k) {
      const Acc* roi = rois_ + Boxes<T>::kRoiWidth * k;
      const int64_t group = roi_level(roi, p_.pyramid) * p_.batch + roi_batch(roi[0], p_.batch);
      group_next_[k] = group_head_[group];
      group_head_[group] = k;
    }
  }

  template <class Visit>
  void for_boxes(Visit visit) const {
    for (int64_t k = group_head_[group_]; k != kNone; k = group_next_[k]) visit(k);
  }

  // Which part of each row of the map the group's boxes touch, and how many rows one of them spans,
  // of those that fit.
  void enter_group(int64_t group) {
    if (group == group_) return;
    group_ = group;
    level_ = &p_.levels[group / p_.batch];
    spans_.assign(level_->height, {level_->width, 0});
    most_rows_ = 1;
    for_boxes([this](int64_t k) {
      if (boxes_.empty(k)) return;
      if (fits_window(k)) {
        most_rows_ = max_of(most_rows_, boxes_.end_row(k) - boxes_.first_row(k));
      }
      boxes_.for_rows(k, [this](int64_t y, int64_t low, int64_t high) {
        spans_[y] = {min_of(spans_[y].low, low), max_of(spans_[y].high, high)};
      });
    });
  }

  T* map_of_group(int64_t channel_offset) const {
    const int64_t image = group_ % p_.batch;
    return static_cast<T*>(level_->data) + image * p_.channels * pixels() + channel_offset;
  }
  int64_t pixels() const { return level_->height * level_->width; }

  // pooled: (PH, PW, C).
  void pool_channels_last(int64_t k) {
    const Acc* roi = rois_ + Boxes<T>::kRoiWidth * k;
    const RoiAlignCpuLevel& level = p_.levels[roi_level(roi, p_.pyramid)];
    T* pooled = static_cast<T*>(p_.pooled) + k * p_.channels * bins_;
    boxes_.clear();
    boxes_.add(roi, Acc(level.spatial_scale), level.height, level.width);
    if (boxes_.empty(0)) return clear(pooled, p_.channels * bins_);
    const T* map = static_cast<const T*>(level.data) +
                   roi_batch(roi[0], p_.batch) * level.height * level.width * p_.channels;
    boxes_.template pool<T>(0, {map, level.width * p_.channels, p_.channels}, p_.channels, pooled,
                            p_.channels);
  }

  // pooled: (channels, PH, PW), of box k.
  T* pooled_of(int64_t k, int64_t c0) const {
    return static_cast<T*>(p_.pooled) + (k * p_.channels + c0) * bins_;
  }

  bool fits_window(int64_t k) const {
    const int64_t pixels = (boxes_.end_row(k) - boxes_.first_row(k)) * level_->width;
    return pixels * run_ * int64_t(sizeof(Acc)) <= kWindowBytes;
  }

  // The window of packed rows moves down the map with the boxes, in the order of their first rows.
  void pool_group(int64_t c0, int64_t channels) {
    const T* map = map_of_group(c0 * pixels());
    window_.resize(most_rows_ * level_->width * run_);
    bin_sums_.resize(bins_ * run_);
    row_head_.assign(level_->height, kNone);
    row_next_.resize(p_.num_rois);
    for_boxes([&](int64_t k) {
      if (boxes_.empty(k)) return clear(pooled_of(k, c0), channels * bins_);
      if (!fits_window(k)) {
        return boxes_.pool_planes(k, map, pixels(), level_->width, channels, pooled_of(k, c0));
      }
      int64_t& head = row_head_[boxes_.first_row(k)];
      row_next_[k] = head;
      head = k;
    });
    int64_t packed = 0;
    for (int64_t y = 0; y < level_->height; ++y) {
      for (int64_t k = row_head_[y]; k != kNone; k = row_next_[k]) {
        const PixelRows<Acc> window{window_.data(), level_->width * run_, run_,
                                    y / most_rows_ * most_rows_, most_rows_};
        for (packed = max_of(packed, y); packed < boxes_.end_row(k); ++packed) {
          const Span span = spans_[packed];
          if (span.low >= span.high) continue;
          planes_to_tile(map + packed * level_->width + span.low, pixels(), span.high - span.low,
                         channels, window.data + window.offset(packed) + span.low * run_, run_);
        }
        boxes_.template pool<Acc>(k, window.read_only(), run_, bin_sums_.data(), run_);
        tile_to_planes(bin_sums_.data(), run_, bins_, channels, pooled_of(k, c0), bins_);
      }
    }
  }

  // The gradient of rows [first, last) of the map and a run of channels.
  void spread_band(int64_t first, int64_t last, int64_t c0, int64_t channels) {
    const int64_t row = level_->width * run_;
    window_.resize((last - first) * row);
    bin_sums_.resize(bins_ * run_);
    const PixelRows<Acc> sums{window_.data(), row, run_, first};
    for (int64_t y = first; y < last; ++y) {
      const Span span = spans_[y];
      if (span.low < span.high)
        clear(sums.data + sums.offset(y) + span.low * run_, (span.high - span.low) * run_);
    }
    for_boxes([&](int64_t k) {
      if (boxes_.empty(k)) return;
      if (boxes_.first_row(k) >= last || boxes_.end_row(k) <= first) return;
      if (p_.channels_last) {
        const T* grad = static_cast<const T*>(p_.pooled) + k * p_.channels * bins_ + c0;
        boxes_.spread(k, grad, p_.channels, channels, sums, first, last);
      } else {
        planes_to_tile(pooled_of(k, c0), bins_, bins_, channels, bin_sums_.data(), run_);
        boxes_.spread(k, bin_sums_.data(), run_, run_, sums, first, last);
      }
    });
    for (int64_t y = first; y < last; ++y) {
      if (p_.channels_last) {
        write_row_channels_last(sums.data + sums.offset(y), y, c0, channels);
      } else {
        write_row(sums.data + sums.offset(y), y, c0, channels);
      }
    }
  }

  void write_row(const Acc* sums, int64_t y, int64_t c0, int64_t channels) const {
    const Span span = spans_[y];
    T* row = map_of_group(c0 * pixels()) + y * level_->width;
    if (span.low >= span.high) {
      for (int64_t c = 0; c < channels; ++c) clear(row + c * pixels(), level_->width);
      return;
    }
    for (int64_t c = 0; c < channels; ++c) {
      clear(row + c * pixels(), span.low);
      clear(row + c * pixels() + span.high, level_->width - span.high);
    }
    tile_to_planes(sums + span.low * run_, run_, span.high - span.low, channels, row + span.low,
                   pixels());
  }

  void write_row_channels_last(const Acc* sums, int64_t y, int64_t c0, int64_t channels) const {
    const Span span = spans_[y];
    T* row = map_of_group(c0) + y * level_->width * p_.channels;
    for (int64_t x = 0; x < level_->width; ++x, row += p_.channels) {
      if (x < span.low || x >= span.high) {
        clear(row, channels);
        continue;
      }
      for (int64_t c = 0; c < channels; c += kLanes<T>) {
        store_lanes<T>(Vec<T>::loadu(sums + x * run_ + c), row + c,
                       min_of(kLanes<T>, channels - c));
      }
    }
  }

  template <class V>
  static void clear(V* values, int64_t count) {
    if (count > 0) std::memset(static_cast<void*>(values), 0, size_t(count) * sizeof(V));
  }

  struct Span {
    int64_t low, high;
  };

  const RoiAlignCpuParams& p_;
  const int64_t bins_, groups_;
  const Acc* rois_;
  const int64_t run_;
  Boxes<T> boxes_;
  Buffer<int64_t> group_head_, group_next_, row_head_, row_next_;
  Buffer<Acc> window_, bin_sums_;
  // Of the piece at hand.
  int64_t group_ = kNone, most_rows_ = 1;
  const RoiAlignCpuLevel* level_ = nullptr;
  Buffer<Span> spans_;
};

// Calls work(kernel) with the loops for the call's dtype.
template <template <class> class Boxes, class Work>
auto with_roi_align_cpu(const RoiAlignCpuParams& params, Work work) {
  return dispatch_floating("roi_align", params.dtype, [&](auto tag) {
    return work(RoiAlignCpu<typename decltype(tag)::type, Boxes>(params));
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
