// RoIPool's vectorised loops, compiled once per instruction set.
//
// SIMD runs over channels. Where the map is contiguous, a run of channels is laid side by side
// first: the rows of all boxes' bins are visited from the top of the map to its bottom, and a
// window of packed rows moves with them, so each pixel is packed once and the window stays in the
// cache.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/roi_pool_cpu.h"
#include "tilewright/detection/roi_pool_rows.h"
#include "tilewright/detection/roi_pool_scan.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Aim for the sums that a thread holds in the backward pass; one channel (channels last: one
// register of channels) of a large map takes more.
constexpr int64_t kTileBytes = 1 << 20;
// The most that a window of packed rows takes; bins too tall for it are pooled where they lie.
constexpr int64_t kWindowBytes = 16 << 20;

template <class T>
class RoiPoolCpu {
  using Acc = Accumulate<T>;

 public:
  explicit RoiPoolCpu(const RoiPoolCpuParams& params)
      : p_(params),
        bins_(params.pooled_height * params.pooled_width),
        pixels_(params.height * params.width),
        rois_(static_cast<const Acc*>(params.rois)) {}

  int64_t forward_pieces() const {
    if (p_.channels_last) return p_.num_rois;
    return p_.batch * box_runs() * channel_runs(kLanes<T>);
  }

  void forward(int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      if (p_.channels_last) {
        forward_channels_last(piece);
      } else {
        const int64_t runs = channel_runs(kLanes<T>);
        forward_planes(piece / runs / box_runs(), piece / runs % box_runs(),
                       piece % runs * kLanes<T>);
      }
    }
  }

  int64_t backward_pieces() const { return p_.batch * channel_runs(piece_channels()); }

  void backward(int64_t begin, int64_t end) {
    const int64_t step = piece_channels(), runs = channel_runs(step);
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t image = piece / runs, c0 = piece % runs * step;
      const int64_t channels = min_of(step, p_.channels - c0);
      T* map = static_cast<T*>(p_.map) + image * p_.channels * pixels_;
      if constexpr (std::is_same_v<T, Acc>) {
        if (!p_.channels_last) {
          std::memset(map + c0 * pixels_, 0, size_t(channels * pixels_) * sizeof(T));
          accumulate(image, c0, channels, map + c0 * pixels_);
          continue;
        }
      }
      sums_.assign(pixels_ * channels, Acc(0));
      accumulate(image, c0, channels, sums_.data());
      if (p_.channels_last) {
        for (int64_t i = 0; i < pixels_; ++i) {
          for (int64_t c = 0; c < channels; ++c) {
            map[i * p_.channels + c0 + c] = T(sums_[i * channels + c]);
          }
        }
      } else {
        for (int64_t i = 0; i < pixels_ * channels; ++i) map[c0 * pixels_ + i] = T(sums_[i]);
      }
    }
  }

 private:
  int64_t box_runs() const { return ceil_div(p_.num_rois, kPoolBoxRun); }
  int64_t channel_runs(int64_t channels) const { return ceil_div(p_.channels, channels); }
  // Of the backward pass.
  int64_t piece_channels() const {
    const int64_t lanes = p_.channels_last ? kLanes<T> : 1;
    const int64_t fitting = kTileBytes / (max_of<int64_t>(pixels_, 1) * int64_t(sizeof(Acc)));
    return max_of(lanes, min_of<int64_t>(fitting, 32) / lanes * lanes);
  }

  void clear(int64_t from, int64_t count) const {
    T* pooled = static_cast<T*>(p_.pooled) + from;
    for (int64_t i = 0; i < count; ++i) pooled[i] = T(0);
    for (int64_t i = 0; i < count; ++i) p_.argmax[from + i] = -1;
  }

  void forward_channels_last(int64_t k) {
    const int64_t image = roi_batch(rois_[5 * k], p_.batch), row_stride = p_.width * p_.channels;
    const PoolBox<Acc> box = pool_box_of<Acc>(p_, k);
    int64_t to = k * bins_ * p_.channels;
    if (image < 0 || !box.finite) return clear(to, bins_ * p_.channels);
    const T* map = static_cast<const T*>(p_.map) + image * p_.height * row_stride;
    for (int64_t ph = 0; ph < p_.pooled_height; ++ph) {
      int64_t y0, y1, x0, x1;
      box.y.pixels(ph, p_.height, y0, y1);
      for (int64_t pw = 0; pw < p_.pooled_width; ++pw, to += p_.channels) {
        box.x.pixels(pw, p_.width, x0, x1);
        if (y0 >= y1 || x0 >= x1) {
          clear(to, p_.channels);
          continue;
        }
        int64_t c = 0;
        for (; c + 4 * kLanes<T> <= p_.channels; c += 4 * kLanes<T>) {
          store_bin<4>(map + c, y0, y1, x0, x1, to + c, 4 * kLanes<T>);
        }
        for (; c < p_.channels; c += kLanes<T>) {
          store_bin<1>(map + c, y0, y1, x0, x1, to + c, min_of(kLanes<T>, p_.channels - c));
        }
      }
    }
  }

  // `map` is the image from some channel on.
  template <int kVectors>
  void store_bin(const T* map, int64_t y0, int64_t y1, int64_t x0, int64_t x1, int64_t to,
                 int64_t channels) {
    lines_.resize(y1 - y0);
    for (int64_t y = y0; y < y1; ++y) lines_[y - y0] = map + y * p_.width * p_.channels;
    const PoolScan<kVectors, T> best({lines_.data(), y1 - y0, x0, x1 - x0, p_.channels, p_.width},
                                     channels);
    T* pooled = static_cast<T*>(p_.pooled) + to;
    for (int64_t c = 0; c < channels; ++c) pooled[c] = T(best.values[c]);
    for (int64_t c = 0; c < channels; ++c) {
      p_.argmax[to + c] = best.indices[c] + int32_t(y0 * p_.width);
    }
  }

  void forward_planes(int64_t image, int64_t run, int64_t c0) {
    const int64_t channels = min_of(kLanes<T>, p_.channels - c0);
    bin_rows_.gather(p_, image, run);
    for (const int64_t k : bin_rows_.empty()) {
      clear((k * p_.channels + c0) * bins_, channels * bins_);
    }
    const int64_t row_bytes = max_of<int64_t>(columns(), 1) * kLanes<T> * int64_t(sizeof(Acc));
    window_rows_ = min_of(bin_rows_.tallest(), max_of<int64_t>(kWindowBytes / row_bytes, 1));
    window_.resize(window_rows_ * columns() * kLanes<T>);
    const T* map = static_cast<const T*>(p_.map) + (image * p_.channels + c0) * pixels_;
    int64_t packed = 0;  // rows below it are in the window, or were
    for (const PoolBinRow& row : bin_rows_.rows()) {
      const int64_t channel = (run * kPoolBoxRun + row.box) * p_.channels + c0;
      if (row.last - row.first > window_rows_) {
        pool_tall_row(row, map, channel, channels);
        continue;
      }
      for (packed = max_of(packed, row.first); packed < row.last; ++packed) {
        planes_to_tile(map + packed * p_.width + bin_rows_.first_column(), pixels_, columns(),
                       channels, window_row(packed), kLanes<T>);
      }
      pool_row(row, channel, channels);
    }
  }

  int64_t columns() const {
    return max_of<int64_t>(bin_rows_.last_column() - bin_rows_.first_column(), 0);
  }
  Acc* window_row(int64_t y) { return window_.data() + y % window_rows_ * columns() * kLanes<T>; }

  // One row of a box's bins from the planes themselves, `map` the first of them.
  void pool_tall_row(const PoolBinRow& row, const T* map, int64_t channel, int64_t channels) {
    const PoolAxis<Acc>& axis = bin_rows_.box(row).x;
    int64_t to = channel * bins_ + row.ph * p_.pooled_width;
    lines_.resize(row.last - row.first);
    for (int64_t c = 0; c < channels; ++c, to += bins_) {
      for (int64_t y = row.first; y < row.last; ++y) {
        lines_[y - row.first] = map + c * pixels_ + y * p_.width;
      }
      for (int64_t pw = 0; pw < p_.pooled_width; ++pw) {
        int64_t x0, x1;
        axis.pixels(pw, p_.width, x0, x1);
        if (x0 >= x1) {
          clear(to + pw, 1);
          continue;
        }
        const PoolScan<1, T> best({lines_.data(), row.last - row.first, x0, x1 - x0, 1, p_.width},
                                  1);
        static_cast<T*>(p_.pooled)[to + pw] = T(best.values[0]);
        p_.argmax[to + pw] = best.indices[0] + int32_t(row.first * p_.width);
      }
    }
  }

  // One row of a box's bins from the window. `channel`: k * channels + c0.
  void pool_row(const PoolBinRow& row, int64_t channel, int64_t channels) {
    const PoolAxis<Acc>& axis = bin_rows_.box(row).x;
    const int64_t base = channel * bins_ + row.ph * p_.pooled_width;
    packed_lines_.clear();
    for (int64_t y = row.first; columns() > 0 && y < row.last; ++y) {
      packed_lines_.push_back(window_row(y) - bin_rows_.first_column() * kLanes<T>);
    }
    for (int64_t pw = 0; pw < p_.pooled_width; ++pw) {
      T* pooled = static_cast<T*>(p_.pooled) + base + pw;
      int32_t* argmax = p_.argmax + base + pw;
      int64_t x0, x1;
      axis.pixels(pw, p_.width, x0, x1);
      if (row.first >= row.last || x0 >= x1) {
        for (int64_t c = 0; c < channels; ++c) {
          pooled[c * bins_] = T(0);
          argmax[c * bins_] = -1;
        }
        continue;
      }
      const PoolScan<1, Acc> best(
          {packed_lines_.data(), row.last - row.first, x0, x1 - x0, kLanes<T>, p_.width},
          kLanes<T>);
      const int32_t above = int32_t(row.first * p_.width);
      for (int64_t c = 0; c < channels; ++c) {
        pooled[c * bins_] = T(best.values[c]);
        argmax[c * bins_] = best.indices[c] + above;
      }
    }
  }

  // Adds the gradients of all boxes of an image to `sums`: (channels, H, W), or (H, W, channels)
  // where channels_last.
  void accumulate(int64_t image, int64_t c0, int64_t channels, Acc* sums) const {
    const T* grads = static_cast<const T*>(p_.pooled);
    for (int64_t k = 0; k < p_.num_rois; ++k) {
      if (roi_batch(rois_[5 * k], p_.batch) != image) continue;
      if (p_.channels_last) {
        int64_t from = k * bins_ * p_.channels + c0;
        for (int64_t bin = 0; bin < bins_; ++bin, from += p_.channels) {
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t pixel = p_.argmax[from + c];
            if (uint64_t(pixel) < uint64_t(pixels_)) {
              sums[pixel * channels + c] += Acc(grads[from + c]);
            }
          }
        }
      } else {
        int64_t from = (k * p_.channels + c0) * bins_;
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t bin = 0; bin < bins_; ++bin, ++from) {
            const int64_t pixel = p_.argmax[from];
            if (uint64_t(pixel) < uint64_t(pixels_)) {
              sums[c * pixels_ + pixel] += Acc(grads[from]);
            }
          }
        }
      }
    }
  }

  const RoiPoolCpuParams& p_;
  const int64_t bins_, pixels_;
  const Acc* rois_;
  Buffer<const T*> lines_;
  Buffer<const Acc*> packed_lines_;
  PoolBinRows<Acc> bin_rows_;
  Buffer<Acc> window_, sums_;
  int64_t window_rows_ = 1;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

int64_t TILEWRIGHT_ON_MACHINE(roi_pool_forward_pieces)(const RoiPoolCpuParams& params) {
  return dispatch_floating("roi_pool", params.dtype, [&](auto tag) {
    return RoiPoolCpu<typename decltype(tag)::type>(params).forward_pieces();
  });
}

void TILEWRIGHT_ON_MACHINE(roi_pool_forward)(const RoiPoolCpuParams& params, int64_t begin,
                                             int64_t end) {
  dispatch_floating("roi_pool", params.dtype, [&](auto tag) {
    RoiPoolCpu<typename decltype(tag)::type>(params).forward(begin, end);
  });
}

int64_t TILEWRIGHT_ON_MACHINE(roi_pool_backward_pieces)(const RoiPoolCpuParams& params) {
  return dispatch_floating("roi_pool", params.dtype, [&](auto tag) {
    return RoiPoolCpu<typename decltype(tag)::type>(params).backward_pieces();
  });
}

void TILEWRIGHT_ON_MACHINE(roi_pool_backward)(const RoiPoolCpuParams& params, int64_t begin,
                                              int64_t end) {
  dispatch_floating("roi_pool", params.dtype, [&](auto tag) {
    RoiPoolCpu<typename decltype(tag)::type>(params).backward(begin, end);
  });
}

}  // namespace tilewright
