// The vectorised loops of ps_roi_align and ps_roi_pool, compiled once per instruction set. A plane
// (one channel of one image) stays in the cache while all boxes visit it, SIMD along x; planes of
// channels last are laid out one register of channels at a time.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/ps_roi_cpu.h"
#include "tilewright/detection/ps_roi_plan.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
class PsRoiCpu {
  using Acc = Accumulate<T>;

 public:
  explicit PsRoiCpu(const PsRoiCpuParams& params)
      : p_(params),
        pixels_(params.height * params.width),
        outputs_(params.channels / params.geometry.bins()) {}

  void forward(int64_t begin, int64_t end) {
    for_channels(begin, end, p_.channels_last ? kLanes<T> : kPsRoiPieceChannels,
                 [this](T* map, int64_t image, int64_t c0, int64_t channels) {
                   if (p_.channels_last) {
                     pack(map + c0, image, channels);
                     pool_planes(image, c0, channels, planes_.data());
                   } else {
                     pool_planes(image, c0, channels, map + c0 * pixels_);
                   }
                 });
  }

  void backward(int64_t begin, int64_t end) {
    // 16-bit gradients are summed in fp32 and rounded once.
    const bool in_place = !p_.channels_last && std::is_same_v<T, Acc>;
    const int64_t step = p_.channels_last ? kLanes<T> : in_place ? kPsRoiPieceChannels : 1;
    for_channels(begin, end, step,
                 [this, in_place](T* map, int64_t image, int64_t c0, int64_t channels) {
                   if (in_place) {
                     spread_planes(image, c0, channels, reinterpret_cast<Acc*>(map) + c0 * pixels_);
                     return;
                   }
                   planes_.resize(channels * pixels_);
                   spread_planes(image, c0, channels, planes_.data());
                   unpack(channels, p_.channels_last ? map + c0 : map + c0 * pixels_);
                 });
  }

 private:
  // body(the image's map, image, first channel, channels), at most `step` channels at a time.
  template <class Body>
  void for_channels(int64_t begin, int64_t end, int64_t step, const Body& body) {
    const int64_t pieces = ceil_div(p_.channels, kPsRoiPieceChannels);
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t image = piece / pieces, first = piece % pieces * kPsRoiPieceChannels;
      const int64_t last = min_of(first + kPsRoiPieceChannels, p_.channels);
      T* map = static_cast<T*>(p_.map) + image * p_.channels * pixels_;
      for (int64_t c = first; c < last; c += step) body(map, image, c, min_of(step, last - c));
    }
  }

  // from: the first of `channels` channels of (H, W, C), to planes_: (channels, H, W). Only the
  // rows that boxes look at, where one plan holds them all.
  void pack(const T* from, int64_t image, int64_t channels) {
    planes_.resize(channels * pixels_);
    const bool all = plan_.build(p_, image, 0) == p_.num_rois;
    const int64_t begin = all ? plan_.first_row() : 0;
    const int64_t end = all ? min_of(plan_.last_row() + p_.width, pixels_) : pixels_;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < channels; ++c) {
        planes_[c * pixels_ + i] = Acc(from[i * p_.channels + c]);
      }
    }
  }

  void unpack(int64_t channels, T* to) const {
    if (!p_.channels_last) {
      for (int64_t i = 0; i < channels * pixels_; ++i) to[i] = T(planes_[i]);
      return;
    }
    for (int64_t i = 0; i < pixels_; ++i, to += p_.channels) {
      for (int64_t c = 0; c < channels; ++c) to[c] = T(planes_[c * pixels_ + i]);
    }
  }

  // Where box k has the bin that looks at input channel c.
  int64_t pooled_index(int64_t k, int64_t c) const {
    const int64_t bins = p_.geometry.bins();
    return k * p_.channels + (p_.channels_last ? c % bins * outputs_ + c / bins : c);
  }

  // open(plane) for every plane, then visit(element of pooled, y bin, x bin, plane) for every box
  // of the image in order.
  template <class Plane, class Open, class Visit>
  void for_bins(int64_t image, int64_t c0, int64_t channels, Plane* planes, const Open& open,
                const Visit& visit) {
    int64_t next = 0;
    do {
      const bool first = next == 0;
      next = plan_.build(p_, image, next);
      for (int64_t c = c0; c < c0 + channels; ++c) {
        Plane* plane = planes + (c - c0) * pixels_;
        if (first) open(plane);
        const int64_t bin = c % p_.geometry.bins();
        const int64_t ph = bin / p_.geometry.pooled_width, pw = bin % p_.geometry.pooled_width;
        for (int64_t i = 0; i < plan_.size(); ++i) {
          visit(static_cast<T*>(p_.pooled)[pooled_index(plan_.box(i), c)],
                plan_.y_bin(i, ph, p_.geometry), plan_.x_bin(i, pw, p_.geometry), plane);
        }
      }
    } while (next < p_.num_rois);
  }

  // Calls body(load, store) with what moves a register of columns; a map narrower than that has
  // fewer.
  template <class Body>
  void with_columns(const Body& body) {
    const int64_t count = p_.width;
    if (count >= kLanes<T>) {
      body([](const auto* from) { return load_lanes(from); },
           [](const Vec<T>& lanes, Acc* to) { lanes.store(to); });
    } else {
      body([count](const auto* from) { return load_lanes(from, count); },
           [count](const Vec<T>& lanes, Acc* to) { lanes.store(to, int(count)); });
    }
  }

  using Bin = typename PsRoiPlan<Acc>::Bin;

  template <class S>
  void pool_planes(int64_t image, int64_t c0, int64_t channels, const S* planes) {
    with_columns([&](auto load, auto) {
      const auto open = [](const S*) {};
      const auto visit = [&](T& pooled, const Bin& y, const Bin& x, const S* plane) {
        const Vec<T> zero(0);
        Vec<T> sum(0);
        for (const auto* columns = plan_.columns() + x.begin; columns != plan_.columns() + x.end;
             ++columns) {
          const S* from = plane + columns->first;
          Vec<T> line(0);
          for (const auto* row = plan_.rows() + y.begin; row != plan_.rows() + y.end; ++row) {
            line = at::vec::fmadd(Vec<T>(row->weight), load(from + row->offset), line);
          }
          const Vec<T> weights = Vec<T>::loadu(columns->weights);
          sum = at::vec::fmadd(Vec<T>::blendv(line, zero, weights == zero), weights, sum);
        }
        pooled = T(total(sum) / (y.count * x.count));
      };
      for_bins(image, c0, channels, planes, open, visit);
    });
  }

  static Acc total(const Vec<T>& lanes) {
    return at::vec::vec_reduce_all<Acc>([](const Vec<T>& a, const Vec<T>& b) { return a + b; },
                                        lanes);
  }

  void spread_planes(int64_t image, int64_t c0, int64_t channels, Acc* planes) {
    with_columns([&](auto load, auto store) {
      const auto clear = [this](Acc* plane) {
        std::memset(plane, 0, size_t(pixels_) * sizeof(Acc));
      };
      const auto visit = [&](T& pooled, const Bin& y, const Bin& x, Acc* plane) {
        const Vec<T> zero(0), grad(Acc(pooled) / (y.count * x.count));
        for (const auto* columns = plan_.columns() + x.begin; columns != plan_.columns() + x.end;
             ++columns) {
          const Vec<T> weights = Vec<T>::loadu(columns->weights);
          const Vec<T> line = Vec<T>::blendv(grad * weights, zero, weights == zero);
          Acc* to = plane + columns->first;
          for (const auto* row = plan_.rows() + y.begin; row != plan_.rows() + y.end; ++row) {
            store(at::vec::fmadd(Vec<T>(row->weight), line, load(to + row->offset)),
                  to + row->offset);
          }
        }
      };
      for_bins(image, c0, channels, planes, clear, visit);
    });
  }

  const PsRoiCpuParams& p_;
  const int64_t pixels_, outputs_;
  PsRoiPlan<Acc> plan_;
  Buffer<Acc> planes_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(ps_roi_forward)(const PsRoiCpuParams& params, int64_t begin,
                                           int64_t end) {
  dispatch_floating("ps_roi", params.dtype, [&](auto tag) {
    PsRoiCpu<typename decltype(tag)::type>(params).forward(begin, end);
  });
}

void TILEWRIGHT_ON_MACHINE(ps_roi_backward)(const PsRoiCpuParams& params, int64_t begin,
                                            int64_t end) {
  dispatch_floating("ps_roi", params.dtype, [&](auto tag) {
    PsRoiCpu<typename decltype(tag)::type>(params).backward(begin, end);
  });
}

}  // namespace tilewright
