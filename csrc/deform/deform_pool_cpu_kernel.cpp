// The loops of deformable RoI pooling, compiled once per instruction set: the products of a bin's
// weights with a run of channels.
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_pool_bins.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

template <class T>
class DeformPoolForward {
  using Acc = Accumulate<T>;

 public:
  explicit DeformPoolForward(const DeformPoolCpuParams& params)
      : p_(params), s_(params.shape), bins_(params) {
    rows_.resize(s_.bins() * s_.outs + kLanes<T>);  // transposing reads registers
  }

  void boxes(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      std::fill(rows_.begin(), rows_.end(), Acc(0));
      const int64_t image = bins_.take(k);
      for (int64_t bin = 0; image >= 0 && bin < s_.bins(); ++bin) {
        const T* map = static_cast<const T*>(p_.maps) +
                       (image * s_.maps() + s_.map_of(bin)) * s_.pixels() * s_.outs;
        for (int64_t cls = 0; cls < s_.classes; ++cls) {
          if (!bins_.plan(bin, cls)) continue;
          const int64_t first = cls * s_.class_channels();
          pool(map + first, s_.class_channels(), rows_.data() + bin * s_.outs + first);
        }
      }
      store(k);
    }
  }

 private:
  void pool(const T* map, int64_t count, Acc* to) {
    int64_t c = 0;
    for (; c + 4 * kLanes<T> <= count; c += 4 * kLanes<T>) run<4>(map + c, kLanes<T>, to + c);
    for (; c + kLanes<T> <= count; c += kLanes<T>) run<1>(map + c, kLanes<T>, to + c);
    if (c < count) run<1>(map + c, count - c, to + c);
  }
  template <int kRegisters>
  void run(const T* map, int64_t lanes, Acc* to) {
    Vec<T> sums[kRegisters];
    for (auto& sum : sums) sum = Vec<T>(Acc(0));
    for (const auto& y : bins_.y.taps()) {
      for (const auto& x : bins_.x.taps()) {
        const Acc weight = y.weight * x.weight;
        // A pixel of weight 0 is no part of a bin, even where it is infinite or NaN.
        if (weight == Acc(0)) continue;
        const T* pixel = map + (y.at * s_.width + x.at) * s_.outs;
        for (int r = 0; r < kRegisters; ++r) {
          sums[r] =
              at::vec::fmadd(Vec<T>(weight), load_lanes(pixel + r * kLanes<T>, lanes), sums[r]);
        }
      }
    }
    const Vec<T> share(bins_.share());
    for (int r = 0; r < kRegisters; ++r)
      store_lanes<Acc>(sums[r] * share, to + r * kLanes<T>, lanes);
  }

  void store(int64_t k) {
    T* to = static_cast<T*>(p_.pooled) + k * s_.bins() * s_.outs;
    if (!p_.pooled_last) {
      return tile_to_planes(rows_.data(), s_.outs, s_.bins(), s_.outs, to, s_.bins());
    }
    const int64_t count = s_.bins() * s_.outs;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t lanes = min_of(kLanes<T>, count - i);
      store_lanes<T>(load_lanes(rows_.data() + i, lanes), to + i, lanes);
    }
  }

  const DeformPoolCpuParams& p_;
  const DeformPoolShape& s_;
  MovedBins<T> bins_;
  Buffer<Acc> rows_;  // (bins, outs)
};

template <class T>
class DeformPoolBackward {
  using Acc = Accumulate<T>;

 public:
  explicit DeformPoolBackward(const DeformPoolCpuParams& params)
      : p_(params),
        s_(params.shape),
        tasks_(s_),
        bins_(params),
        spreads_(p_.grad_input != nullptr),
        row_((tasks_.block + kLanes<T> - 1) / kLanes<T> * kLanes<T>) {
    tile_.resize(s_.bins() * row_);
    if (spreads_) grad_map_.resize(s_.pixels() * row_);
  }

  void tasks(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      block_ = i % tasks_.blocks;
      cls_ = i / tasks_.blocks % s_.classes;
      map_ = i / tasks_.blocks / s_.classes % s_.maps();
      image_ = i / tasks_.blocks / s_.classes / s_.maps();
      const int64_t inside = block_ * tasks_.block;
      channel_ = cls_ * s_.class_channels() + inside;
      count_ = min_of(tasks_.block, s_.class_channels() - inside);
      if (spreads_) grad_map_.assign(grad_map_.size(), Acc(0));
      for (int64_t k = 0; k < s_.rois; ++k) {
        if (bins_.take(k) == image_) box(k);
      }
      if (spreads_) store();
    }
  }

 private:
  void box(int64_t k) {
    load_grad(k);
    for (int64_t bin = 0; bin < s_.bins(); ++bin) {
      if (s_.map_of(bin) != map_ || !bins_.plan(bin, cls_)) continue;
      Acc move_y, move_x;
      spread(tile_.data() + bin * row_, move_y, move_x);
      if (p_.grad_moves == nullptr) continue;
      Acc* to = static_cast<Acc*>(p_.grad_moves) +
                ((block_ * s_.rois + k) * s_.classes + cls_) * 2 * s_.bins() + bin;
      to[0] = move_x * bins_.unit_x();
      to[s_.bins()] = move_y * bins_.unit_y();
    }
  }

  // The box's gradient of the task's channels, (bins, row); lanes that fill up a register are 0.
  void load_grad(int64_t k) {
    const T* grad = static_cast<const T*>(p_.pooled) + k * s_.bins() * s_.outs;
    if (!p_.pooled_last) {
      return planes_to_tile(grad + channel_ * s_.bins(), s_.bins(), s_.bins(), count_, tile_.data(),
                            row_);
    }
    for (int64_t bin = 0; bin < s_.bins(); ++bin) {
      for (int64_t c = 0; c < count_; c += kLanes<T>) {
        const Vec<T> lanes =
            load_lanes(grad + bin * s_.outs + channel_ + c, min_of(kLanes<T>, count_ - c));
        store_lanes<Acc>(lanes, tile_.data() + bin * row_ + c);
      }
    }
  }

  // One bin's gradient over the map; the derivatives in a move of a pixel.
  void spread(const Acc* grad, Acc& move_y, Acc& move_x) {
    const T* map = static_cast<const T*>(p_.maps) +
                   (image_ * s_.maps() + map_) * s_.pixels() * s_.outs + channel_;
    const Acc share = bins_.share();
    Vec<T> down(Acc(0)), right(Acc(0));
    for (const auto& y : bins_.y.taps()) {
      for (const auto& x : bins_.x.taps()) {
        const int64_t pixel = y.at * s_.width + x.at;
        const Vec<T> weight(y.weight * x.weight * share), slope_y(y.slope * x.weight * share),
            slope_x(y.weight * x.slope * share);
        for (int64_t c = 0; c < count_; c += kLanes<T>) {
          const Vec<T> g = load_lanes(grad + c);
          if (spreads_) {
            Acc* to = grad_map_.data() + pixel * row_ + c;
            store_lanes<Acc>(at::vec::fmadd(weight, g, load_lanes(to)), to);
          }
          if (p_.grad_moves == nullptr) continue;
          const Vec<T> product =
              g * load_lanes(map + pixel * s_.outs + c, min_of(kLanes<T>, count_ - c));
          down = at::vec::fmadd(slope_y, product, down);
          right = at::vec::fmadd(slope_x, product, right);
        }
      }
    }
    const auto sum = [](const Vec<T>& lanes) {
      return at::vec::vec_reduce_all<Acc>([](auto& a, auto& b) { return a + b; }, lanes);
    };
    move_y = sum(down);
    move_x = sum(right);
  }

  void store() {
    T* grad = static_cast<T*>(p_.grad_input);
    const int64_t channels = s_.outs * s_.maps();
    if (!p_.grad_input_last) {
      T* plane = grad + (image_ * channels + channel_ * s_.maps() + map_) * s_.pixels();
      return tile_to_planes(grad_map_.data(), row_, s_.pixels(), count_, plane,
                            s_.maps() * s_.pixels());
    }
    T* to = grad + image_ * s_.pixels() * channels + channel_ * s_.maps() + map_;
    for (int64_t pixel = 0; pixel < s_.pixels(); ++pixel) {
      const Acc* from = grad_map_.data() + pixel * row_;
      if (s_.maps() > 1) {
        for (int64_t c = 0; c < count_; ++c) to[pixel * channels + c * s_.maps()] = T(from[c]);
        continue;
      }
      for (int64_t c = 0; c < count_; c += kLanes<T>) {
        store_lanes<T>(load_lanes(from + c), to + pixel * channels + c,
                       min_of(kLanes<T>, count_ - c));
      }
    }
  }

  const DeformPoolCpuParams& p_;
  const DeformPoolShape& s_;
  const DeformPoolTasks tasks_;
  MovedBins<T> bins_;
  const bool spreads_;
  const int64_t row_;
  Buffer<Acc> tile_;      // (bins, row)
  Buffer<Acc> grad_map_;  // (pixels, row)
  int64_t image_, map_, cls_, block_, channel_, count_;
};

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(deform_pool_forward)(const DeformPoolCpuParams& params, int64_t begin,
                                                int64_t end) {
  dispatch_floating("_deform_pool", params.dtype, [&](auto tag) {
    DeformPoolForward<typename decltype(tag)::type>(params).boxes(begin, end);
  });
}

void TILEWRIGHT_ON_MACHINE(deform_pool_backward)(const DeformPoolCpuParams& params, int64_t begin,
                                                 int64_t end) {
  dispatch_floating("_deform_pool_backward", params.dtype, [&](auto tag) {
    DeformPoolBackward<typename decltype(tag)::type>(params).tasks(begin, end);
  });
}

}  // namespace tilewright
