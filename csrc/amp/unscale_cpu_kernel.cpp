// The loops of unscale_, compiled once per instruction set: one pass over memory.
#include "tilewright/amp/unscale_cpu.h"
#include "tilewright/amp/unscale_math.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/math.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

using Doubles = at::vec::Vectorized<double>;

// Squares of float32 neither overflow in float64 nor vanish there.
template <class Acc>
class Squares {
 public:
  void add(const at::vec::Vectorized<Acc>& value) {
    if constexpr (std::is_same_v<Acc, double>) {
      sums_[0] = at::vec::fmadd(value, value, sums_[0]);
    } else {
      const auto [low, high] = widen(value);
      sums_[0] = at::vec::fmadd(low, low, sums_[0]);
      sums_[1] = at::vec::fmadd(high, high, sums_[1]);
    }
  }
  double sum() const {
    return at::vec::vec_reduce_all<double>([](Doubles& a, Doubles& b) { return a + b; },
                                           sums_[0] + sums_[1]);
  }

 private:
  Doubles sums_[2] = {Doubles(0), Doubles(0)};
};

// kMultiply: or gradients are only looked through.
template <class T, bool kMultiply, bool kNorm>
class Unscale {
  using Acc = Accumulate<T>;

 public:
  explicit Unscale(float inv_scale) : inv_(Acc(inv_scale)) {}

  UnscaleFound operator()(T* data, int64_t count) {
    int64_t i = 0;
    for (; i + 4 * kLanes<T> <= count; i += 4 * kLanes<T>) {
      for (int k = 0; k < 4; ++k) lanes(data + i + k * kLanes<T>, kLanes<T>);
    }
    for (; i < count; i += kLanes<T>) lanes(data + i, min_of(kLanes<T>, count - i));
    const bool bad = any_lane(zeros_ != Vec<T>(0)) || any_lane(most_ >= Vec<T>(overflow()));
    return {bad, kNorm ? squares_.sum() : 0};
  }

 private:
  // What becomes infinite only when it is stored; others show in zeros_.
  static constexpr Acc overflow() {
    if constexpr (std::is_same_v<T, c10::Half>) return kOverflowOfHalf;
    if constexpr (std::is_same_v<T, c10::BFloat16>) return kOverflowOfBFloat16;
    return std::numeric_limits<Acc>::infinity();
  }

  void lanes(T* at, int64_t count) {
    Vec<T> value = load_lanes(at, count);
    if constexpr (kMultiply) {
      value = value * inv_;
      store_lanes<T>(value, at, count);
      if constexpr (!std::is_same_v<T, Acc>) most_ = max_of(most_, value.abs());
    }
    zeros_ = at::vec::fmadd(value, Vec<T>(0), zeros_);  // inf and NaN times 0 are NaN
    if constexpr (kNorm) squares_.add(value);
  }

  const Vec<T> inv_;
  Vec<T> zeros_ = Vec<T>(0), most_ = Vec<T>(0);
  Squares<Acc> squares_;
};

template <class T>
UnscaleFound unscale_typed(const UnscalePiece& piece, bool norm) {
  T* data = static_cast<T*>(piece.data);
  if (piece.inv_scale == 1) {
    return norm ? Unscale<T, false, true>(1)(data, piece.count)
                : Unscale<T, false, false>(1)(data, piece.count);
  }
  return norm ? Unscale<T, true, true>(piece.inv_scale)(data, piece.count)
              : Unscale<T, true, false>(piece.inv_scale)(data, piece.count);
}

}  // namespace TILEWRIGHT_MACHINE

UnscaleFound TILEWRIGHT_ON_MACHINE(unscale_piece)(const UnscalePiece& piece, bool norm) {
  return dispatch_floating("unscale_", piece.dtype, [&](auto tag) {
    return unscale_typed<typename decltype(tag)::type>(piece, norm);
  });
}

}  // namespace tilewright
