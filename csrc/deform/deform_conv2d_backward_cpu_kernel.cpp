// The loops of deform_conv2d's backward, compiled once per instruction set. A task goes over its
// images' tiles: the columns' gradient is a matrix product, is spread over the pixels that a sample
// read, and gives the gradients of offset and mask; the columns themselves, filled on the way, are
// a factor of the weight's gradient.
#include "tilewright/core/cpu/gemm_loops.h"
#include "tilewright/core/cpu/transpose.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_columns.h"
#include "tilewright/deform/deform_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

// T: what tensors hold. G: what is multiplied.
template <class T, class G>
class DeformBackward {
  using Acc = Accumulate<T>;
  static constexpr bool kPairs = std::is_same_v<G, c10::BFloat16>;  // of rows, in products

 public:
  explicit DeformBackward(const DeformBackwardCpuParams& params)
      : p_(params),
        s_(params.shape),
        tasks_(s_),
        part_(tasks_.group_part(s_)),
        groups_(tasks_.groups(s_)),
        outs_(s_.group_out_channels()),
        out_stride_(whole_lanes<T>(groups_ * outs_)),
        row_stride_(whole_lanes<T>(p_.tile.rows)),
        serves_(brgemm_serves_float() && fits_brgemm(s_.taps() * part_, out_stride_)),
        spreads_(p_.grad_input != nullptr),
        dots_(p_.grad_offset_y != nullptr || p_.grad_mask != nullptr),
        samples_(p_.tile.rows) {
    const int64_t rows = p_.tile.rows, cells = tasks_.block * p_.tile.taps * rows;
    zeros_.assign(s_.channels, T(0));
    grad_rows_.resize(rows * out_stride_);
    grad_planes_.resize(groups_ * outs_ * row_stride_);
    if (kPairs) transposed_.resize(max_of(grad_rows_.size(), grad_planes_.size()));
    if (spreads_ || dots_) grad_columns_.resize(cells);
    if (p_.grad_weight != nullptr) columns_.resize(cells);
    if (kPairs && p_.grad_weight != nullptr) pairs_.resize(cells + tasks_.block * p_.tile.taps);
    if (spreads_) grad_image_.resize((s_.pixels() + 1) * tasks_.block + kLanes<T>);
  }
  ~DeformBackward() { brgemm_done(); }

  void tasks(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      block_ = i % tasks_.blocks;
      og_ = i / tasks_.blocks % s_.offset_groups;
      image_part_ = i / tasks_.blocks / s_.offset_groups;
      channel_ = og_ * s_.offset_group_channels() + block_ * tasks_.block;
      for (int64_t n = tasks_.first_image(s_, image_part_);
           n < tasks_.first_image(s_, image_part_ + 1); ++n) {
        image(n);
      }
    }
  }

 private:
  void image(int64_t n) {
    image_ = n;
    if (spreads_) grad_image_.assign(grad_image_.size(), Acc(0));
    for (int64_t first = 0; first < s_.out_pixels(); first += p_.tile.rows) {
      first_ = first;
      rows_ = min_of(p_.tile.rows, s_.out_pixels() - first);
      load_grad();
      for (int64_t tap = 0; tap < s_.taps(); tap += p_.tile.taps) {
        tap_ = tap;
        taps_ = min_of(p_.tile.taps, s_.taps() - tap);
        if (spreads_ || dots_) multiply_weight();
        for (int64_t t = 0; t < taps_; ++t) walk(t);
        if (p_.grad_weight != nullptr) multiply_grad();
      }
    }
    if (spreads_) store_grad_input();
  }

  int64_t first_group() const { return channel_ / s_.group_channels(); }
  // The block's parts of groups, of all parts in order of channels.
  int64_t first_part() const { return channel_ / part_; }

  // The gradient of the tile's results in the block's groups, both ways round.
  void load_grad() {
    const int64_t outs = groups_ * outs_, from = first_group() * outs_;
    const T* grad = static_cast<const T*>(p_.grad) + image_ * s_.out_pixels() * s_.out_channels;
    if (p_.grad_channels_last) {
      const T* rows = grad + first_ * s_.out_channels + from;
      transpose(rows, s_.out_channels, outs, rows_, grad_planes_, row_stride_);
      for (int64_t row = 0; row < rows_; ++row) {
        copy_run(rows + row * s_.out_channels, outs, grad_rows_.data() + row * out_stride_);
      }
    } else {
      const T* planes = grad + from * s_.out_pixels() + first_;
      transpose(planes, s_.out_pixels(), rows_, outs, grad_rows_, out_stride_);
      for (int64_t c = 0; c < outs; ++c) {
        copy_run(planes + c * s_.out_pixels(), rows_, grad_planes_.data() + c * row_stride_);
      }
    }
    if (kPairs && rows_ % 2 == 1) {
      for (int64_t c = 0; c < outs; ++c) grad_planes_[c * row_stride_ + rows_] = G(0);
    }
  }
  void transpose(const T* planes, int64_t plane_stride, int64_t size, int64_t channels,
                 Buffer<G>& to, int64_t stride) {
    if constexpr (kPairs) {
      planes_to_tile(planes, plane_stride, size, channels, transposed_.data(), stride);
      copy_run(transposed_.data(), size * stride, to.data());
    } else {
      planes_to_tile(planes, plane_stride, size, channels, to.data(), stride);
    }
  }
  template <class From>
  static void copy_run(const From* from, int64_t count, G* to) {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t lanes = min_of(kLanes<T>, count - i);
      store_lanes<G>(load_lanes(from + i, lanes), to + i, lanes);
    }
  }

  // The columns' gradient, (groups, rows, taps, part).
  void multiply_weight() {
    const int64_t n = taps_ * part_;
    for (int64_t g = 0; g < groups_; ++g) {
      const G* weight = static_cast<const G*>(p_.weight) +
                        ((first_part() + g) * outs_ * s_.taps() + (kPairs ? 2 : 1) * tap_) * part_;
      gemm(serves_, {rows_, n, outs_, out_stride_, s_.taps() * part_, n, false},
           grad_rows_.data() + g * outs_, weight, grad_columns_.data() + g * p_.tile.rows * n);
    }
  }

  // Adds to the weight's gradient, (parts, C_out / groups, taps, part).
  void multiply_grad() {
    const int64_t n = taps_ * part_;
    const bool add = first_ > 0 || image_ > tasks_.first_image(s_, image_part_);
    const int64_t parts = s_.channels / part_;
    const int64_t depth = kPairs ? (rows_ + 1) / 2 * 2 : rows_;
    for (int64_t g = 0; g < groups_; ++g) {
      Acc* to = static_cast<Acc*>(p_.grad_weight) +
                ((image_part_ * parts + first_part() + g) * outs_ * s_.taps() + tap_) * part_;
      G* columns = columns_.data() + g * p_.tile.rows * n;
      if constexpr (kPairs) columns = pair_up(columns, n);
      gemm(serves_, {outs_, n, depth, row_stride_, n, s_.taps() * part_, add},
           grad_planes_.data() + g * outs_ * row_stride_, columns, to);
    }
  }
  // Rows 2i and 2i + 1 element by element; behind an odd one come zeros.
  G* pair_up(const G* columns, int64_t n) {
    for (int64_t row = 0; row < rows_; row += 2) {
      const G *first = columns + row * n, *second = first + n;
      G* to = pairs_.data() + row * n;
      interleave(first, row + 1 < rows_ ? second : nullptr, n, to);
    }
    return pairs_.data();
  }

  // One tap of all the tile's output pixels.
  void walk(int64_t t) {
    samples_.plan(s_, static_cast<const Acc*>(p_.offset), static_cast<const Acc*>(p_.mask), image_,
                  og_, tap_ + t, first_, rows_);
    const PixelRows<T> pixels{static_cast<const T*>(p_.input) + image_ * s_.pixels() * s_.channels,
                              zeros_.data(), s_.pixels(), s_.channels};
    const int64_t map =
        ((block_ * s_.batch + image_) * s_.offset_groups + og_) * s_.taps() + tap_ + t;
    for (int64_t row = 0; row < rows_; ++row) {
      const DeformSample<Acc> sample = samples_.sample(row);
      const Acc mask = samples_.mask(row);
      Acc dots[4] = {0, 0, 0, 0};
      visit(sample, mask, pixels, row, t, dots);
      if (!dots_) continue;
      const int64_t place = map * s_.out_pixels() + first_ + row;
      if (p_.grad_offset_y != nullptr) {
        static_cast<Acc*>(p_.grad_offset_y)[place] = mask * sample.slope_y(dots);
        static_cast<Acc*>(p_.grad_offset_x)[place] = mask * sample.slope_x(dots);
      }
      if (p_.grad_mask != nullptr) static_cast<Acc*>(p_.grad_mask)[place] = sample.value(dots);
    }
  }

  // The block's channels of one sample: fills columns, spreads the gradient, and gives the products
  // of the columns' gradient and the four pixels.
  void visit(const DeformSample<Acc>& sample, Acc mask, const PixelRows<T>& pixels, int64_t row,
             int64_t t, Acc (&dots)[4]) {
    Corners corners;
    bool whole = true;  // a pixel of weight 0 is no part of the column
    for (int k = 0; k < 4; ++k) {
      const Acc weight = sample.weight(k);
      whole = whole && weight != Acc(0);
      corners.weight[k] = weight * mask;
      corners.counts[k] = weight != Acc(0);
      corners.from[k] = pixels.at(sample.pixel[k]) + channel_;
      corners.to[k] = spreads_ ? grad_image_.data() + sample.pixel[k] * tasks_.block : nullptr;
    }
    // What is needed in training has loops of its own.
    if (whole && spreads_ && !columns_.empty()) {
      visit_channels<true>(corners, row, t, dots);
    } else {
      visit_channels<false>(corners, row, t, dots);
    }
  }

  struct Corners {
    Acc weight[4];
    bool counts[4];
    const T* from[4];
    Acc* to[4];
  };

  // kAll: columns are filled, of all four pixels, and the gradient is spread.
  template <bool kAll>
  void visit_channels(const Corners& corners, int64_t row, int64_t t, Acc (&dots)[4]) {
    Vec<T> weight[4], sums[4];
    for (int k = 0; k < 4; ++k) {
      weight[k] = Vec<T>(corners.weight[k]);
      sums[k] = Vec<T>(Acc(0));
    }
    G* const columns = columns_.data();
    const Acc* const grads = grad_columns_.data();
    const bool fills = kAll || !columns_.empty(), reads = kAll || !grad_columns_.empty();
    const auto lanes_at = [&](int64_t c, int64_t place, int64_t lanes) {
      Vec<T> value[4];
      for (int k = 0; k < 4; ++k) value[k] = load_lanes(corners.from[k] + c, lanes);
      if (fills) {
        Vec<T> column(Acc(0));
        for (int k = 0; k < 4; ++k) {
          if (kAll || corners.counts[k]) column = at::vec::fmadd(weight[k], value[k], column);
        }
        store_lanes<G>(column, columns + place, lanes);
      }
      if (!reads) return;
      const Vec<T> grad = load_lanes(grads + place, lanes);
      for (int k = 0; k < 4; ++k) sums[k] = at::vec::fmadd(grad, value[k], sums[k]);
      if (!kAll && !spreads_) return;
      // One after the other: two pixels may be the one that does not exist.
      for (int k = 0; k < 4; ++k) {
        Acc* const to = corners.to[k] + c;
        store_lanes<Acc>(at::vec::fmadd(grad, weight[k], load_lanes(to, lanes)), to, lanes);
      }
    };
    const int64_t part = part_;
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t place = ((g * p_.tile.rows + row) * taps_ + t) * part;
      int64_t c = 0;
      for (; c + kLanes<T> <= part; c += kLanes<T>) lanes_at(g * part + c, place + c, kLanes<T>);
      if (c < part) lanes_at(g * part + c, place + c, part - c);
    }
    if (dots_) sums_of_four<T>(sums, dots);
  }

  void store_grad_input() {
    auto* image = static_cast<T*>(p_.grad_input) + image_ * s_.pixels() * s_.channels;
    if (!p_.channels_last) {
      return tile_to_planes(grad_image_.data(), tasks_.block, s_.pixels(), tasks_.block,
                            image + channel_ * s_.pixels(), s_.pixels());
    }
    for (int64_t pixel = 0; pixel < s_.pixels(); ++pixel) {
      const Acc* from = grad_image_.data() + pixel * tasks_.block;
      T* to = image + pixel * s_.channels + channel_;
      for (int64_t c = 0; c < tasks_.block; c += kLanes<T>) {
        const int64_t lanes = min_of(kLanes<T>, tasks_.block - c);
        store_lanes<T>(load_lanes(from + c, lanes), to + c, lanes);
      }
    }
  }

  const DeformBackwardCpuParams& p_;
  const DeformConvShape& s_;
  const DeformTasks tasks_;
  const int64_t part_, groups_, outs_;  // of the block: channels of a group, groups, their results
  const int64_t out_stride_, row_stride_;
  const bool serves_, spreads_, dots_;
  TapSamples<Acc> samples_;
  Buffer<T> zeros_;
  Buffer<G> grad_rows_;       // (rows, out_stride)
  Buffer<G> grad_planes_;     // (groups * outs, row_stride)
  Buffer<Acc> transposed_;    // of pairs: either of these, before it is rounded
  Buffer<Acc> grad_columns_;  // (groups, rows, taps, part)
  Buffer<G> columns_;         // the same
  Buffer<G> pairs_;           // of one group, rows side by side
  Buffer<Acc> grad_image_;    // (pixels and the one that does not exist, block)
  int64_t block_, og_, image_part_, channel_, image_, first_, rows_, tap_, taps_;
};

// The bias's gradient of kLanes channels, or of `count`: short sums in registers, those in float64.
template <class T>
void sum_channels(const DeformBackwardCpuParams& p, int64_t channel, int64_t count,
                  Accumulate<T>* to) {
  constexpr int64_t kShort = 64;
  const DeformConvShape& s = p.shape;
  const int64_t pixels = s.out_pixels();
  double sums[kLanes<T>] = {};
  const auto add = [&](const Vec<T>& part, int64_t c, int64_t lanes) {
    Accumulate<T> values[kLanes<T>];
    part.store(values);
    for (int64_t i = 0; i < kLanes<T>; ++i) sums[c + i * lanes] += double(values[i]);
  };
  for (int64_t n = 0; n < s.batch; ++n) {
    const T* image = static_cast<const T*>(p.grad) + n * s.out_channels * pixels;
    if (p.grad_channels_last) {
      for (int64_t first = 0; first < pixels; first += kShort) {
        Vec<T> part(Accumulate<T>(0));
        for (int64_t i = first; i < min_of(first + kShort, pixels); ++i) {
          part = part + load_lanes(image + i * s.out_channels + channel, count);
        }
        add(part, 0, 1);
      }
      continue;
    }
    for (int64_t c = 0; c < count; ++c) {
      const T* plane = image + (channel + c) * pixels;
      for (int64_t first = 0; first < pixels; first += kShort * kLanes<T>) {
        Vec<T> part(Accumulate<T>(0));
        for (int64_t i = first; i < min_of(first + kShort * kLanes<T>, pixels); i += kLanes<T>) {
          part = part + load_lanes(plane + i, min_of(kLanes<T>, pixels - i));
        }
        add(part, c, 0);
      }
    }
  }
  for (int64_t c = 0; c < count; ++c) to[c] = Accumulate<T>(sums[c]);
}

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(deform_conv_backward)(const DeformBackwardCpuParams& params,
                                                 int64_t begin, int64_t end) {
  dispatch_floating("_deform_conv2d_backward", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, c10::BFloat16>) {
      if (params.bfloat16_products) {
        return DeformBackward<T, c10::BFloat16>(params).tasks(begin, end);
      }
    }
    DeformBackward<T, Accumulate<T>>(params).tasks(begin, end);
  });
}

void TILEWRIGHT_ON_MACHINE(deform_conv_grad_bias)(const DeformBackwardCpuParams& params,
                                                  void* grad_bias, int64_t begin, int64_t end) {
  dispatch_floating("_deform_conv2d_backward", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t c = begin; c < end; c += kLanes<T>) {
      sum_channels<T>(params, c, min_of(kLanes<T>, end - c),
                      static_cast<Accumulate<T>*>(grad_bias) + c);
    }
  });
}

}  // namespace tilewright
