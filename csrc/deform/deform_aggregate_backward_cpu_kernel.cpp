// The loops of deform_aggregate's backward, compiled once per instruction set. A task copies its
// channels of an image together, goes over the output places once, and spreads each place's
// gradient over an image of the same form; both stay in cache.
#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_aggregate_cpu.h"
#include "tilewright/deform/deform_columns.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

template <class T>
class DeformAggregateBackward {
  using Acc = Accumulate<T>;

 public:
  explicit DeformAggregateBackward(const DeformAggregateCpuParams& params)
      : p_(params),
        s_(params.shape),
        tasks_(s_),
        spreads_(p_.grad_input != nullptr),
        dots_(p_.grad_offset != nullptr || p_.grad_mask != nullptr) {
    const int64_t widest = whole_lanes<T>(tasks_.block);
    grad_.resize(widest);
    if (dots_) pixels_.resize((s_.pixels() + 1) * widest);
    if (spreads_) grad_pixels_.resize((s_.pixels() + 1) * widest);
  }

  void tasks(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      block_ = i % tasks_.blocks;
      group_ = i / tasks_.blocks % s_.groups;
      image_ = i / tasks_.blocks / s_.groups;
      const int64_t inside = block_ * tasks_.block;
      channel_ = group_ * s_.group_channels() + inside;
      count_ = min_of(tasks_.block, s_.group_channels() - inside);
      stride_ = whole_lanes<T>(count_);
      task();
    }
  }

 private:
  void task() {
    if (dots_) load_pixels();
    if (spreads_) grad_pixels_.assign((s_.pixels() + 1) * stride_, Acc(0));
    OutputPlaces at(s_.out_width, 0);
    for (int64_t i = 0; i < s_.out_pixels(); ++i, at.next()) {
      const int64_t place = image_ * s_.out_pixels() + i;
      copy_lanes(static_cast<const T*>(p_.grad) + place * s_.channels + channel_, grad_.data());
      const int64_t first = (place * s_.groups + group_) * s_.taps();
      s_.for_taps([&](int64_t t, int64_t ky, int64_t kx) {
        const Acc* offset = static_cast<const Acc*>(p_.offset) + 2 * (first + t);
        tap(first + t, s_.sample(at.y(), at.x(), ky, kx, offset[0], offset[1]));
      });
    }
    if (spreads_) store_grad_input();
  }

  // count_ channels as whole registers; zeros behind them.
  void copy_lanes(const T* from, Acc* to) const {
    for (int64_t c = 0; c < count_; c += kLanes<T>) {
      load_lanes(from + c, count_ - c).store(to + c);
    }
  }

  // Behind the last pixel comes the one that does not exist.
  void load_pixels() {
    const T* image =
        static_cast<const T*>(p_.input) + image_ * s_.pixels() * s_.channels + channel_;
    for (int64_t i = 0; i < s_.pixels(); ++i) {
      copy_lanes(image + i * s_.channels, pixels_.data() + i * stride_);
    }
    Acc* none = pixels_.data() + s_.pixels() * stride_;
    for (int64_t c = 0; c < stride_; ++c) none[c] = Acc(0);
  }

  // `index`: of the tap among all masks.
  void tap(int64_t index, const DeformSample<Acc>& sample) {
    const Acc mask = static_cast<const Acc*>(p_.mask)[index];
    if (spreads_) spread(sample, mask);
    if (!dots_) return;
    Acc dots[4];
    multiply(sample, dots);
    const int64_t to = block_ * s_.batch * s_.out_pixels() * s_.groups * s_.taps() + index;
    if (p_.grad_offset != nullptr) {
      Acc* moves = static_cast<Acc*>(p_.grad_offset) + 2 * to;
      moves[0] = mask * Acc(s_.offset_scale) * sample.slope_x(dots);
      moves[1] = mask * Acc(s_.offset_scale) * sample.slope_y(dots);
    }
    if (p_.grad_mask != nullptr) static_cast<Acc*>(p_.grad_mask)[to] = sample.value(dots);
  }

  void spread(const DeformSample<Acc>& sample, Acc mask) {
    for (int k = 0; k < 4; ++k) {
      const Acc share = sample.weight(k);
      if (share == Acc(0)) continue;  // such a pixel is no part of the sample
      const Vec<T> weight(share * mask);
      Acc* to = grad_pixels_.data() + sample.pixel[k] * stride_;
      for (int64_t c = 0; c < stride_; c += kLanes<T>) {
        const Vec<T> there = Vec<T>::loadu(to + c);
        at::vec::fmadd(Vec<T>::loadu(grad_.data() + c), weight, there).store(to + c);
      }
    }
  }

  // The products of the gradient and the four pixels.
  void multiply(const DeformSample<Acc>& sample, Acc (&dots)[4]) const {
    Vec<T> sums[4];
    for (auto& sum : sums) sum = Vec<T>(Acc(0));
    for (int64_t c = 0; c < stride_; c += kLanes<T>) {
      const Vec<T> grad = Vec<T>::loadu(grad_.data() + c);
      for (int k = 0; k < 4; ++k) {
        const Vec<T> pixel = Vec<T>::loadu(pixels_.data() + sample.pixel[k] * stride_ + c);
        sums[k] = at::vec::fmadd(grad, pixel, sums[k]);
      }
    }
    for (int k = 0; k < 4; ++k) {
      dots[k] = at::vec::vec_reduce_all<Acc>([](auto& a, auto& b) { return a + b; }, sums[k]);
    }
  }

  void store_grad_input() const {
    T* image = static_cast<T*>(p_.grad_input) + image_ * s_.pixels() * s_.channels + channel_;
    for (int64_t i = 0; i < s_.pixels(); ++i) {
      const Acc* from = grad_pixels_.data() + i * stride_;
      for (int64_t c = 0; c < count_; c += kLanes<T>) {
        store_lanes<T>(Vec<T>::loadu(from + c), image + i * s_.channels + c,
                       min_of(kLanes<T>, count_ - c));
      }
    }
  }

  const DeformAggregateCpuParams& p_;
  const DeformAggregateShape& s_;
  const DeformAggregateTasks tasks_;
  const bool spreads_, dots_;
  int64_t block_, group_, image_, channel_, count_, stride_;
  Buffer<Acc> grad_;                  // of one place
  Buffer<Acc> pixels_, grad_pixels_;  // (pixels and the one that does not exist, stride)
};

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(deform_aggregate_backward)(const DeformAggregateCpuParams& params,
                                                      int64_t begin, int64_t end) {
  dispatch_floating("_deform_aggregate_backward", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    DeformAggregateBackward<T>(params).tasks(begin, end);
  });
}

}  // namespace tilewright
