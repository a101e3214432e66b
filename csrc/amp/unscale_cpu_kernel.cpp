// The loops of unscale_, compiled once per instruction set: one pass over memory.
#include "tilewright/amp/unscale_cpu.h"
#include "tilewright/amp/unscale_math.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/math.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

using Doubles = at::vec::Vectorized<double>;

// Squares of float32 neither overflow nor vanish in float64.
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
  // Of squares that were added up in float32.
  void add_sum(const at::vec::Vectorized<float>& sum) {
    const auto [low, high] = widen(sum);
    sums_[0] = sums_[0] + low;
    sums_[1] = sums_[1] + high;
  }
  void add(const Squares& other) {
    sums_[0] = sums_[0] + other.sums_[0];
    sums_[1] = sums_[1] + other.sums_[1];
  }
  double sum() const {
    return at::vec::vec_reduce_all<double>([](Doubles& a, Doubles& b) { return a + b; },
                                           sums_[0] + sums_[1]);
  }

 private:
  Doubles sums_[2] = {Doubles(0), Doubles(0)};
};

// kMultiply: or the factor is 1. kWrite: or gradients are only looked through.
template <class T, bool kMultiply, bool kWrite, bool kNorm>
class Unscale {
  using Acc = Accumulate<T>;
  static constexpr bool kShort = !std::is_same_v<T, Acc>;
  static constexpr int kVectors = kShort ? 4 : 8;  // of a step of the loop

 public:
  explicit Unscale(float inv_scale) : inv_(Acc(inv_scale)) {}

  UnscaleFound operator()(T* data, int64_t count) {
    constexpr int64_t kStep = kVectors * kLanes<T>;
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) step(data + i);
    for (; i < count; i += kLanes<T>) {
      const int64_t lanes = min_of(kLanes<T>, count - i);
      Vec<T> value = load_lanes(data + i, lanes);
      product(value, 0);
      if constexpr (kNorm && kNarrow) squares_[0].add(value);
      if constexpr (kMultiply && kWrite) store_lanes<T>(value, data + i, lanes);
    }
    Vec<T> zeros = zeros_[0], most = most_[0];
    for (int v = 1; v < kSums; ++v) zeros = zeros + zeros_[v], most = max_of(most, most_[v]);
    const bool bad = any_lane(zeros != Vec<T>(0)) || any_lane(most >= Vec<T>(overflow()));
    double squares = 0;
    if constexpr (kNorm) {
      for (int v = 1; v < kSums; ++v) squares_[0].add(squares_[v]);
      squares = squares_[0].sum();
      if (kNarrow && !(squares > kLeastNarrow && squares < kMostNarrow))
        squares = wide(data, count);
    }
    return {bad, squares};
  }

 private:
  static constexpr int kSums = 2;  // an addition need not wait for the one before
  // float32 adds up a few squares before they go to float64. Where a piece's sum is beyond these
  // bounds some may have overflowed or lost their digits: the piece, in cache yet, is read again.
  static constexpr bool kNarrow = std::is_same_v<T, float>;
  static constexpr double kLeastNarrow = 0x1p-100, kMostNarrow = 0x1p127;

  // What becomes infinite only when it is stored; others show in zeros_.
  static constexpr Acc overflow() {
    if constexpr (std::is_same_v<T, c10::Half>) return kOverflowOfHalf;
    if constexpr (std::is_same_v<T, c10::BFloat16>) return kOverflowOfBFloat16;
    return std::numeric_limits<Acc>::infinity();
  }

  void step(T* at) {
    Vec<T> value[kVectors];
    if constexpr (kShort) {
      for (int v = 0; v < kVectors; v += 2) {
        at::vec::load_to_float<T>(at + v * kLanes<T>, value[v], value[v + 1]);
      }
    } else {
      for (int v = 0; v < kVectors; ++v) value[v] = load_lanes(at + v * kLanes<T>);
    }
    for (int v = 0; v < kVectors; ++v) product(value[v], v % kSums);
    if constexpr (kNorm && kNarrow) {
      Vec<T> sum[kSums] = {value[0] * value[0], value[1] * value[1]};
      for (int v = kSums; v < kVectors; ++v) {
        sum[v % kSums] = at::vec::fmadd(value[v], value[v], sum[v % kSums]);
      }
      squares_[0].add_sum(sum[0] + sum[1]);
    }
    if constexpr (!kMultiply || !kWrite) return;
    if constexpr (kShort) {
      for (int v = 0; v < kVectors; v += 2) {
        at::vec::convert_from_float<T>(value[v], value[v + 1]).store(at + v * kLanes<T>);
      }
    } else {
      for (int v = 0; v < kVectors; ++v) value[v].store(at + v * kLanes<T>);
    }
  }

  void product(Vec<T>& value, int sum) {
    if constexpr (kMultiply) {
      value = value * inv_;
      if constexpr (kShort) most_[sum] = max_of(most_[sum], value.abs());
    }
    zeros_[sum] = at::vec::fmadd(value, Vec<T>(0), zeros_[sum]);  // inf and NaN times 0 are NaN
    if constexpr (kNorm && !kNarrow) squares_[sum].add(value);
  }

  // The squares of products that were written, or are not to be.
  double wide(const T* data, int64_t count) const {
    Squares<Acc> squares;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      Vec<T> value = load_lanes(data + i, min_of(kLanes<T>, count - i));
      if constexpr (kMultiply && !kWrite) value = value * inv_;
      squares.add(value);
    }
    return squares.sum();
  }

  const Vec<T> inv_;
  Vec<T> zeros_[kSums] = {Vec<T>(0), Vec<T>(0)}, most_[kSums] = {Vec<T>(0), Vec<T>(0)};
  Squares<Acc> squares_[kSums];
};

template <class T, bool kNorm>
UnscaleFound unscale_typed(const UnscalePiece& piece) {
  T* data = static_cast<T*>(piece.data);
  if (piece.inv_scale == 1) return Unscale<T, false, false, kNorm>(1)(data, piece.count);
  return piece.write ? Unscale<T, true, true, kNorm>(piece.inv_scale)(data, piece.count)
                     : Unscale<T, true, false, kNorm>(piece.inv_scale)(data, piece.count);
}

}  // namespace TILEWRIGHT_MACHINE

UnscaleFound TILEWRIGHT_ON_MACHINE(unscale_piece)(const UnscalePiece& piece, bool norm) {
  return dispatch_floating("unscale_", piece.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return norm ? unscale_typed<T, true>(piece) : unscale_typed<T, false>(piece);
  });
}

}  // namespace tilewright
