// The loops of deform_aggregate, compiled once per instruction set. The taps of a group are planned
// once at each place: four pixels and weights a tap; then registers of channels go over them.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_aggregate_cpu.h"
#include "tilewright/deform/deform_columns.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

template <class T>
class DeformAggregateForward {
  using Acc = Accumulate<T>;

 public:
  explicit DeformAggregateForward(const DeformAggregateCpuParams& params)
      : p_(params), s_(params.shape), inside_(s_.group_channels()) {
    zeros_.assign(inside_, T(0));
    plan_.resize(s_.taps());
  }

  void places(int64_t begin, int64_t end) {
    OutputPlaces at(s_.out_width, begin % s_.out_pixels());
    for (int64_t i = begin; i < end; ++i, at.next()) {
      if (i > begin && i % s_.out_pixels() == 0) at = OutputPlaces(s_.out_width, 0);
      const T* image =
          static_cast<const T*>(p_.input) + i / s_.out_pixels() * s_.pixels() * s_.channels;
      T* to = static_cast<T*>(p_.output) + i * s_.channels;
      for (int64_t g = 0; g < s_.groups; ++g) {
        plan(image + g * inside_, (i * s_.groups + g) * s_.taps(), at.y(), at.x());
        add_up(to + g * inside_);
      }
    }
  }

 private:
  struct Tap {
    const T* from[4];
    Acc weight[4];
  };

  // `image`: from the group's first channel on.
  void plan(const T* image, int64_t first, int64_t y, int64_t x) {
    const PixelRows<T> pixels{image, zeros_.data(), s_.pixels(), s_.channels};
    const Acc* offset = static_cast<const Acc*>(p_.offset) + 2 * first;
    const Acc* mask = static_cast<const Acc*>(p_.mask) + first;
    s_.for_taps([&](int64_t t, int64_t ky, int64_t kx) {
      const auto sample = s_.sample(y, x, ky, kx, offset[2 * t], offset[2 * t + 1]);
      for (int k = 0; k < 4; ++k) {
        const Acc share = sample.weight(k);
        plan_[t].weight[k] = share * mask[t];
        plan_[t].from[k] = share == Acc(0) ? zeros_.data() : pixels.at(sample.pixel[k]);
      }
    });
  }

  void add_up(T* to) {
    int64_t c = 0;
    for (; c + 2 * kLanes<T> <= inside_; c += 2 * kLanes<T>) add_up<2>(c, kLanes<T>, to + c);
    for (; c + kLanes<T> <= inside_; c += kLanes<T>) add_up<1>(c, kLanes<T>, to + c);
    if (c < inside_) add_up<1>(c, inside_ - c, to + c);
  }
  // kVecs registers of channels: a sum for each corner, so that additions do not wait for another.
  template <int kVecs>
  void add_up(int64_t c, int64_t lanes, T* to) {
    Vec<T> sums[4][kVecs];
    for (auto& corner : sums) {
      for (auto& sum : corner) sum = Vec<T>(Acc(0));
    }
    for (int64_t t = 0; t < s_.taps(); ++t) {
      const Tap& tap = plan_[t];
      for (int k = 0; k < 4; ++k) {
        const Vec<T> weight(tap.weight[k]);
        for (int v = 0; v < kVecs; ++v) {
          const Vec<T> pixel = load_lanes(tap.from[k] + c + v * kLanes<T>, lanes);
          sums[k][v] = at::vec::fmadd(weight, pixel, sums[k][v]);
        }
      }
    }
    for (int v = 0; v < kVecs; ++v) {
      store_lanes<T>((sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]), to + v * kLanes<T>,
                     lanes);
    }
  }

  const DeformAggregateCpuParams& p_;
  const DeformAggregateShape& s_;
  const int64_t inside_;
  Buffer<T> zeros_;   // of a pixel that does not exist
  Buffer<Tap> plan_;  // of one group at one place
};

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(deform_aggregate_forward)(const DeformAggregateCpuParams& params,
                                                     int64_t begin, int64_t end) {
  dispatch_floating("deform_aggregate", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    DeformAggregateForward<T>(params).places(begin, end);
  });
}

}  // namespace tilewright
