// RoIAlign's vectorised loops, compiled once per instruction set.
//
// Feature maps with channels last: SIMD over channels, one fused multiply-add per tap. Contiguous
// ones: the taps of a bin row are first summed over y into one line, SIMD along x, and the line is
// then summed per bin; where the box is so wide that most of the line would be wasted, taps are
// walked one by one.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/roi_align_cpu.h"
#include "tilewright/detection/roi_align_taps.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Aim for the tile of sums that a thread holds in the backward pass; one channel (with channels
// last: one register of channels) of a large map takes more.
constexpr int64_t kTileBytes = 1 << 20;

template <class T>
struct FlatTap {
  int64_t offset;
  T weight;
};

template <class T>
class RoiAlignCpu {
  using Acc = Accumulate<T>;

 public:
  explicit RoiAlignCpu(const RoiAlignCpuParams& params)
      : p_(params),
        bins_(params.geometry.pooled_height * params.geometry.pooled_width),
        rois_(static_cast<const Acc*>(params.rois)) {}

  // Pieces of the forward pass: a run of boxes and a run of channels. With channels last a box's
  // pixels hold all channels; of contiguous maps only a few fit the cache, so boxes come and go
  // while the maps stay.
  int64_t forward_pieces() const {
    return ceil_div(p_.channels, forward_channels()) * ceil_div(p_.num_rois, forward_rois());
  }

  void forward(int64_t begin, int64_t end) {
    const int64_t roi_pieces = ceil_div(p_.num_rois, forward_rois());
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t k0 = piece % roi_pieces * forward_rois();
      const int64_t c0 = piece / roi_pieces * forward_channels();
      const int64_t k1 = min_of(k0 + forward_rois(), p_.num_rois);
      const int64_t channels = min_of(forward_channels(), p_.channels - c0);
      for (int64_t k = k0; k < k1; ++k) forward_box(k, c0, channels);
    }
  }

  // Channels that one piece of the backward pass owns: 32 where sums go straight to the output
  // (more would leave threads without work, fewer would build the taps more often), otherwise what
  // fits the tile.
  int64_t piece_channels(const RoiAlignCpuLevel& level) const {
    constexpr int64_t kMost = 32;
    if (!sums_in_tile()) return min_of(p_.channels, kMost);
    const int64_t pixels = max_of<int64_t>(level.height * level.width, 1);
    const int64_t lanes = p_.channels_last ? kLanes<T> : 1;
    const int64_t fitting = kTileBytes / int64_t(pixels * sizeof(Acc)) / lanes * lanes;
    return min_of(p_.channels, max_of(lanes, min_of(fitting, kMost)));
  }

  void backward(int64_t level_index, int64_t begin, int64_t end) {
    const RoiAlignCpuLevel& level = p_.levels[level_index];
    const int64_t pixels = level.height * level.width, step = piece_channels(level);
    const int64_t pieces = ceil_div(p_.channels, step);
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t image = piece / pieces, c0 = piece % pieces * step;
      const int64_t channels = min_of(step, p_.channels - c0);
      T* map = static_cast<T*>(level.data) + image * p_.channels * pixels;
      if (!sums_in_tile()) {
        accumulate(level_index, image, c0, channels, pixels,
                   reinterpret_cast<Acc*>(map) + c0 * pixels);
        continue;
      }
      sums_.assign(pixels * channels, Acc(0));
      if (!accumulate(level_index, image, c0, channels, pixels, sums_.data())) continue;
      if (p_.channels_last) {
        for (int64_t i = 0; i < pixels; ++i) {
          for (int64_t c = 0; c < channels; ++c) {
            map[i * p_.channels + c0 + c] = T(sums_[i * channels + c]);
          }
        }
      } else {
        for (int64_t i = 0; i < pixels * channels; ++i) map[c0 * pixels + i] = T(sums_[i]);
      }
    }
  }

 private:
  // 16-bit gradients are summed in fp32 and rounded once; with channels last, the pixels of a piece
  // lie far apart in the output.
  bool sums_in_tile() const { return p_.channels_last || !std::is_same_v<T, Acc>; }

  int64_t forward_rois() const { return p_.channels_last ? 1 : 32; }
  int64_t forward_channels() const {
    if (p_.channels_last) return max_of<int64_t>(p_.channels, 1);
    int64_t pixels = 1;
    for (int64_t i = 0; i < p_.pyramid.levels; ++i) {
      pixels = max_of(pixels, p_.levels[i].height * p_.levels[i].width);
    }
    return max_of<int64_t>(1, min_of<int64_t>(kTileBytes / int64_t(pixels * sizeof(T)), 32));
  }

  void forward_box(int64_t k, int64_t c0, int64_t channels) {
    const Acc* roi = rois_ + 5 * k;
    const RoiAlignCpuLevel& level = p_.levels[roi_level(roi, p_.pyramid)];
    const int64_t image = roi_batch(roi[0], p_.batch), pixels = level.height * level.width;
    T* pooled = static_cast<T*>(p_.pooled) + (k * p_.channels + c0) * bins_;
    if (image < 0 ||
        !taps_.build(roi, Acc(level.spatial_scale), p_.geometry, level.height, level.width)) {
      for (int64_t i = 0; i < channels * bins_; ++i) pooled[i] = T(0);
      return;
    }
    const T* map = static_cast<const T*>(level.data) + (image * p_.channels + c0) * pixels;
    if (p_.channels_last) {
      forward_channels_last(map, level.width, pooled);
    } else {
      forward_planes(map, pixels, level.width, channels, pooled);
    }
  }

  // map: (H, W, C), pooled: (PH, PW, C).
  void forward_channels_last(const T* map, int64_t width, T* pooled) {
    const int64_t channels = p_.channels;
    for (int64_t ph = 0; ph < p_.geometry.pooled_height; ++ph) {
      for (int64_t pw = 0; pw < p_.geometry.pooled_width; ++pw, pooled += channels) {
        flatten(ph, pw, width, channels);
        int64_t c = 0;
        for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) sum_lanes<4>(map + c, pooled + c);
        for (; c + kLanes<T> <= channels; c += kLanes<T>) sum_lanes<1>(map + c, pooled + c);
        if (c < channels) {
          Vec<T> sum(0);
          for (const auto& tap : flat_) {
            sum = at::vec::fmadd(Vec<T>(tap.weight), load_lanes(map + c + tap.offset, channels - c),
                                 sum);
          }
          store_lanes<T>(sum, pooled + c, channels - c);
        }
      }
    }
  }

  template <int kVectors>
  void sum_lanes(const T* map, T* pooled) const {
    Vec<T> sum[kVectors];
    for (auto& s : sum) s = Vec<T>(0);
    for (const auto& tap : flat_) {
      const Vec<T> weight(tap.weight);
      for (int v = 0; v < kVectors; ++v) {
        sum[v] = at::vec::fmadd(weight, load_lanes(map + tap.offset + v * kLanes<T>), sum[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) store_lanes<T>(sum[v], pooled + v * kLanes<T>);
  }

  // The taps of one bin as offsets into the map.
  void flatten(int64_t ph, int64_t pw, int64_t width, int64_t pixel_stride) {
    flat_.clear();
    for (auto y = taps_.y.begin(ph); y != taps_.y.end(ph); ++y) {
      for (auto x = taps_.x.begin(pw); x != taps_.x.end(pw); ++x) {
        flat_.push_back({(y->pixel * width + x->pixel) * pixel_stride, y->weight * x->weight});
      }
    }
  }

  // A line of sums costs its pixels / kLanes, single taps their number; a SIMD step costs about a
  // tap.
  bool lines_serve() const {
    return (taps_.x.high() - taps_.x.low()) / kLanes<T> <= taps_.x.count();
  }

  // map: (channels, H, W), pooled: (channels, PH, PW).
  void forward_planes(const T* map, int64_t pixels, int64_t width, int64_t channels, T* pooled) {
    const int64_t low = taps_.x.low(), length = taps_.x.high() - low;
    const bool lines = lines_serve();
    if (lines) line_.resize(ceil_div(length, kLanes<T>) * kLanes<T>);
    for (int64_t c = 0; c < channels; ++c, map += pixels) {
      for (int64_t ph = 0; ph < p_.geometry.pooled_height; ++ph) {
        if (lines) sum_line(map + low, width, ph, length);
        for (int64_t pw = 0; pw < p_.geometry.pooled_width; ++pw) {
          *pooled++ = T(lines ? sum_bin(pw, low) : sum_taps(map, width, ph, pw));
        }
      }
    }
  }

  void sum_line(const T* map, int64_t width, int64_t ph, int64_t length) {
    const Tap<Acc>*begin = taps_.y.begin(ph), *end = taps_.y.end(ph);
    int64_t x = 0;
    for (; x + kLanes<T> <= length; x += kLanes<T>) {
      Vec<T> sum(0);
      for (auto y = begin; y != end; ++y) {
        sum = at::vec::fmadd(Vec<T>(y->weight), load_lanes(map + y->pixel * width + x), sum);
      }
      sum.store(line_.data() + x);
    }
    if (x < length) {
      Vec<T> sum(0);
      for (auto y = begin; y != end; ++y) {
        sum = at::vec::fmadd(Vec<T>(y->weight), load_lanes(map + y->pixel * width + x, length - x),
                             sum);
      }
      sum.store(line_.data() + x);
    }
  }

  Acc sum_bin(int64_t pw, int64_t low) const {
    Acc sum = 0;
    const Acc* line = line_.data() - low;
    for (auto x = taps_.x.begin(pw); x != taps_.x.end(pw); ++x) sum += x->weight * line[x->pixel];
    return sum;
  }

  Acc sum_taps(const T* map, int64_t width, int64_t ph, int64_t pw) const {
    Acc sum = 0;
    for (auto y = taps_.y.begin(ph); y != taps_.y.end(ph); ++y) {
      const T* row = map + y->pixel * width;
      Acc part = 0;
      for (auto x = taps_.x.begin(pw); x != taps_.x.end(pw); ++x) {
        part += x->weight * Acc(row[x->pixel]);
      }
      sum += y->weight * part;
    }
    return sum;
  }

  // Adds the gradients of all boxes of an image to `sums`: (channels, H, W), or (H, W, channels)
  // where channels_last. False where no box touches it.
  bool accumulate(int64_t level_index, int64_t image, int64_t c0, int64_t channels, int64_t pixels,
                  Acc* sums) {
    const RoiAlignCpuLevel& level = p_.levels[level_index];
    bool touched = false;
    for (int64_t k = 0; k < p_.num_rois; ++k) {
      const Acc* roi = rois_ + 5 * k;
      if (roi_batch(roi[0], p_.batch) != image || roi_level(roi, p_.pyramid) != level_index ||
          !taps_.build(roi, Acc(level.spatial_scale), p_.geometry, level.height, level.width)) {
        continue;
      }
      touched = true;
      const T* grad = static_cast<const T*>(p_.pooled) + k * p_.channels * bins_;
      if (p_.channels_last) {
        backward_channels_last(grad + c0, level.width, channels, sums);
      } else {
        backward_planes(grad + c0 * bins_, pixels, level.width, channels, sums);
      }
    }
    return touched;
  }

  // grad: (PH, PW, C), sums: (H, W, channels).
  void backward_channels_last(const T* grad, int64_t width, int64_t channels, Acc* sums) {
    for (int64_t ph = 0; ph < p_.geometry.pooled_height; ++ph) {
      for (int64_t pw = 0; pw < p_.geometry.pooled_width; ++pw, grad += p_.channels) {
        flatten(ph, pw, width, channels);
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
          const int64_t count = min_of(kLanes<T>, channels - c);
          const Vec<T> g = load_lanes(grad + c, count);
          for (const auto& tap : flat_) {
            Acc* to = sums + tap.offset + c;
            store_lanes<Acc>(at::vec::fmadd(Vec<T>(tap.weight), g, load_lanes(to, count)), to,
                             count);
          }
        }
      }
    }
  }

  // grad: (channels, PH, PW), sums: (channels, H, W).
  void backward_planes(const T* grad, int64_t pixels, int64_t width, int64_t channels, Acc* sums) {
    const int64_t low = taps_.x.low(), length = taps_.x.high() - low;
    const bool lines = lines_serve();
    for (int64_t c = 0; c < channels; ++c, sums += pixels) {
      for (int64_t ph = 0; ph < p_.geometry.pooled_height; ++ph, grad += p_.geometry.pooled_width) {
        if (lines) {
          spread_line(grad, low, length);
          for (auto y = taps_.y.begin(ph); y != taps_.y.end(ph); ++y) {
            add_line(y->weight, length, sums + y->pixel * width + low);
          }
        } else {
          for (auto y = taps_.y.begin(ph); y != taps_.y.end(ph); ++y) {
            Acc* row = sums + y->pixel * width;
            for (int64_t pw = 0; pw < p_.geometry.pooled_width; ++pw) {
              const Acc g = y->weight * Acc(grad[pw]);
              for (auto x = taps_.x.begin(pw); x != taps_.x.end(pw); ++x) {
                row[x->pixel] += x->weight * g;
              }
            }
          }
        }
      }
    }
  }

  void spread_line(const T* grad, int64_t low, int64_t length) {
    line_.assign(length, Acc(0));
    Acc* line = line_.data() - low;
    for (int64_t pw = 0; pw < p_.geometry.pooled_width; ++pw) {
      const Acc g = Acc(grad[pw]);
      for (auto x = taps_.x.begin(pw); x != taps_.x.end(pw); ++x) line[x->pixel] += x->weight * g;
    }
  }

  void add_line(Acc weight, int64_t length, Acc* to) const {
    const Vec<T> w(weight);
    for (int64_t x = 0; x < length; x += kLanes<T>) {
      const int64_t count = min_of(kLanes<T>, length - x);
      const Vec<T> line = load_lanes(line_.data() + x, count);
      store_lanes<Acc>(at::vec::fmadd(w, line, load_lanes(to + x, count)), to + x, count);
    }
  }

  const RoiAlignCpuParams& p_;
  const int64_t bins_;
  const Acc* rois_;
  BoxTaps<Acc> taps_;
  Buffer<FlatTap<Acc>> flat_;
  Buffer<Acc> line_, sums_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

int64_t TILEWRIGHT_ON_MACHINE(roi_align_forward_pieces)(const RoiAlignCpuParams& params) {
  return dispatch_floating("roi_align", params.dtype, [&](auto tag) {
    return RoiAlignCpu<typename decltype(tag)::type>(params).forward_pieces();
  });
}

void TILEWRIGHT_ON_MACHINE(roi_align_forward)(const RoiAlignCpuParams& params, int64_t begin,
                                              int64_t end) {
  dispatch_floating("roi_align", params.dtype, [&](auto tag) {
    RoiAlignCpu<typename decltype(tag)::type>(params).forward(begin, end);
  });
}

int64_t TILEWRIGHT_ON_MACHINE(roi_align_backward_channels)(const RoiAlignCpuParams& params,
                                                           int64_t level) {
  return dispatch_floating("roi_align", params.dtype, [&](auto tag) {
    return RoiAlignCpu<typename decltype(tag)::type>(params).piece_channels(params.levels[level]);
  });
}

void TILEWRIGHT_ON_MACHINE(roi_align_backward)(const RoiAlignCpuParams& params, int64_t level,
                                               int64_t begin, int64_t end) {
  dispatch_floating("roi_align", params.dtype, [&](auto tag) {
    RoiAlignCpu<typename decltype(tag)::type>(params).backward(level, begin, end);
  });
}

}  // namespace tilewright
