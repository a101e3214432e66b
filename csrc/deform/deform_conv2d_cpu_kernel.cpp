// The loops of deform_conv2d, compiled once per instruction set: the columns of a tile are filled
// and multiplied while they lie in cache.
#include "tilewright/core/cpu/gemm_loops.h"
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_columns.h"
#include "tilewright/deform/deform_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

// T: what tensors hold. G: what is multiplied.
template <class T, class G>
class DeformForward {
  using Acc = Accumulate<T>;

 public:
  explicit DeformForward(const DeformCpuParams& params)
      : p_(params),
        s_(params.shape),
        group_(s_.group_channels()),
        padded_(std::is_same_v<G, c10::BFloat16> ? (group_ + 1) / 2 * 2 : group_),
        serves_(brgemm_serves_float() && fits_brgemm(p_.tile.taps * padded_, s_.out_channels)),
        samples_(p_.tile.rows) {
    zeros_.assign(s_.channels, T(0));
    columns_.resize(s_.groups * p_.tile.rows * p_.tile.taps * padded_);
    if (padded_ != group_) std::fill(columns_.begin(), columns_.end(), G(0));
    sums_.resize(p_.tile.rows * s_.out_channels + kLanes<T>);  // transposing reads registers
  }
  ~DeformForward() { brgemm_done(); }

  void tiles(int64_t begin, int64_t end) {
    const int64_t per_image = p_.tile.tiles(s_.out_pixels());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % per_image * p_.tile.rows;
      tile(i / per_image, first, min_of(p_.tile.rows, s_.out_pixels() - first));
    }
  }

 private:
  void tile(int64_t image, int64_t first, int64_t rows) {
    start_sums(rows);
    for (int64_t tap = 0; tap < s_.taps(); tap += p_.tile.taps) {
      const int64_t taps = min_of(p_.tile.taps, s_.taps() - tap);
      for (int64_t og = 0; og < s_.offset_groups; ++og) {
        for (int64_t t = 0; t < taps; ++t) fill(image, og, tap, t, taps, first, rows);
      }
      multiply(tap, taps, rows);
    }
    store(image, first, rows);
  }

  void start_sums(int64_t rows) {
    const auto* bias = static_cast<const Acc*>(p_.bias);
    if (bias == nullptr) return;
    for (int64_t row = 0; row < rows; ++row) {
      std::copy(bias, bias + s_.out_channels, sums_.data() + row * s_.out_channels);
    }
  }

  // The columns of tap `first_tap + t`, of one offset group.
  void fill(int64_t image, int64_t og, int64_t first_tap, int64_t t, int64_t taps, int64_t first,
            int64_t rows) {
    samples_.plan(s_, static_cast<const Acc*>(p_.offset), static_cast<const Acc*>(p_.mask), image,
                  og, first_tap + t, first, rows);
    const PixelRows<T> pixels{static_cast<const T*>(p_.input) + image * s_.pixels() * s_.channels,
                              zeros_.data(), s_.pixels(), s_.channels};
    const int64_t begin = og * s_.offset_group_channels(), end = begin + s_.offset_group_channels();
    for (int64_t row = 0; row < rows; ++row) {
      const DeformSample<Acc> sample = samples_.sample(row);
      const Acc mask = samples_.mask(row);
      Acc weight[4];
      const T* from[4];
      for (int k = 0; k < 4; ++k) {
        const Acc share = sample.weight(k);
        weight[k] = share * mask;
        from[k] = share == Acc(0) ? zeros_.data() : pixels.at(sample.pixel[k]);
      }
      for (int64_t c = begin, run; c < end; c += run) {
        const int64_t group = c / group_, inside = c % group_;
        run = min_of(end - c, group_ - inside);
        const T* const at[4] = {from[0] + c, from[1] + c, from[2] + c, from[3] + c};
        blend(at, weight, run,
              columns_.data() + ((group * p_.tile.rows + row) * taps + t) * padded_ + inside);
      }
    }
  }

  void multiply(int64_t tap, int64_t taps, int64_t rows) {
    const int64_t outs = s_.group_out_channels(), k = taps * padded_;
    const bool add = tap > 0 || p_.bias != nullptr;
    for (int64_t g = 0; g < s_.groups; ++g) {
      const G* weight = static_cast<const G*>(p_.weight) + (g * s_.taps() + tap) * padded_ * outs;
      gemm(serves_, {rows, outs, k, k, outs, s_.out_channels, add},
           columns_.data() + g * p_.tile.rows * k, weight, sums_.data() + g * outs);
    }
  }

  void store(int64_t image, int64_t first, int64_t rows) {
    auto* output = static_cast<T*>(p_.output) + image * s_.out_pixels() * s_.out_channels;
    if (!p_.channels_last) {
      return tile_to_planes(sums_.data(), s_.out_channels, rows, s_.out_channels, output + first,
                            s_.out_pixels());
    }
    const int64_t count = rows * s_.out_channels;
    T* to = output + first * s_.out_channels;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t lanes = min_of(kLanes<T>, count - i);
      store_lanes<T>(load_lanes(sums_.data() + i, lanes), to + i, lanes);
    }
  }

  const DeformCpuParams& p_;
  const DeformConvShape& s_;
  const int64_t group_, padded_;
  const bool serves_;
  TapSamples<Acc> samples_;
  Buffer<T> zeros_;
  Buffer<G> columns_;  // (groups, rows, taps, padded)
  Buffer<Acc> sums_;   // (rows, C_out)
};

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(deform_conv_forward)(const DeformCpuParams& params, int64_t begin,
                                                int64_t end) {
  dispatch_floating("deform_conv2d", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, c10::BFloat16>) {
      if (params.bfloat16_products) {
        return DeformForward<T, c10::BFloat16>(params).tiles(begin, end);
      }
    }
    DeformForward<T, Accumulate<T>>(params).tiles(begin, end);
  });
}

}  // namespace tilewright
