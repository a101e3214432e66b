// The forward pass of nade, and sampling: a few samples walk over the pixels together, so that rows
// of both weights are read once for all of them.
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/math.h"
#include "tilewright/density/nade_cpu.h"
#include "tilewright/density/nade_cpu_lanes.h"
#include "tilewright/density/nade_math.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class A>
class NadeForward {
  using V = at::vec::Vectorized<A>;
  static constexpr int64_t kLane = V::size();
  static constexpr int kRows = int(kNadeRows);

 public:
  explicit NadeForward(const NadeForwardParams<A>& params) : p_(params) {
    activations_ = scratch_.take<A>(kNadeRows * p_.hidden);
    scratch_.allocate();
    activations_ = scratch_.take<A>(kNadeRows * p_.hidden);
  }

  void run(int64_t group) {
    const int64_t first = group * kNadeRows;
    count_ = int(min_of(kNadeRows, p_.rows - first));
    for (int64_t h = 0; h < p_.hidden; h += kLane) {
      const V bias = V::loadu(p_.bias_in + h);
      for (int r = 0; r < kRows; ++r) bias.store(at(h, r));
    }
    // The last group's missing samples follow its first one, and are not stored.
    const auto row = [&](int r) { return (first + (r < count_ ? r : 0)) * p_.pixels; };
    if (p_.sample != nullptr) {
      for (int64_t d = 0; d < p_.pixels; ++d) draw(d, first);
      return;
    }
    for (int64_t d = 0; d < p_.pixels; ++d) {
      A x[kRows], logits[kRows];
      for (int r = 0; r < kRows; ++r) x[r] = p_.x[row(r) + d];
      walk<true>(d, x, logits);
      for (int r = 0; r < count_; ++r) p_.logits[row(r) + d] = logits[r];
    }
    for (int r = 0; r < count_; ++r) {
      p_.log_prob[first + r] = log_prob(p_.logits + row(r), p_.x + row(r));
    }
  }

 private:
  A* at(int64_t h, int r) { return activations_ + h * kNadeRows + r * kLane; }

  // Logits of pixel d; where it `moves`, its value is added to the activations too.
  template <bool moves>
  void walk(int64_t d, const A* x, A* logits) {
    const A *in = p_.weight_in + d * p_.hidden, *out = p_.weight_out + d * p_.hidden;
    V sums[kRows], pixel[kRows];
    for (int r = 0; r < kRows; ++r) {
      sums[r] = V(A(0));
      if constexpr (moves) pixel[r] = V(x[r]);
    }
    for (int64_t h = 0; h < p_.hidden; h += kLane) {
      const V weight_out = V::loadu(out + h);
      const V weight_in = moves ? V::loadu(in + h) : V(A(0));
      for (int r = 0; r < kRows; ++r) {
        const V activation = V::loadu(at(h, r));
        sums[r] = at::vec::fmadd(sigmoid_lanes<A>(activation), weight_out, sums[r]);
        if constexpr (moves) at::vec::fmadd(pixel[r], weight_in, activation).store(at(h, r));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const A sum =
          at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return a + b; }, sums[r]);
      logits[r] = sum + p_.bias_out[d];
    }
  }

  void draw(int64_t d, int64_t first) {
    A logits[kRows];
    if (d >= p_.given) walk<false>(d, nullptr, logits);
    for (int r = 0; r < count_; ++r) {
      const int64_t place = (first + r) * p_.pixels + d;
      if (d >= p_.given) {
        const A probability = nade_sigmoid(logits[r]);
        p_.sample[place] = p_.uniform[place] < probability ? A(1) : A(0);
      }
      if (p_.sample[place] == A(0)) continue;
      const A* in = p_.weight_in + d * p_.hidden;
      for (int64_t h = 0; h < p_.hidden; h += kLane) {
        (V::loadu(at(h, r)) + V::loadu(in + h)).store(at(h, r));
      }
    }
  }

  // log sigmoid of the logits, negated where the pixel is 0.
  A log_prob(const A* logits, const A* x) const {
    V sum(A(0));
    const V one(A(1)), two(A(2)), zero(A(0));
    for (int64_t d = 0; d < p_.pixels; d += kLane) {
      const int64_t left = min_of(kLane, p_.pixels - d);
      const V sign = at::vec::fmsub(two, load_lanes(x + d, left), one);
      const V s = load_lanes(logits + d, left) * sign;
      const V power = exp2_lanes<5>(s.abs() * V(A(-kLog2E)));
      const V value = min_of(s, zero) - power.log1p();
      sum = sum + (left == kLane ? value : V::set(zero, value, left));
    }
    return at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return a + b; }, sum);
  }

  const NadeForwardParams<A>& p_;
  TileScratch scratch_;
  A* activations_;  // (hidden / lanes, rows, lanes)
  int count_ = 0;   // samples of the group
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(nade_forward_float)(const NadeForwardParams<float>& params,
                                               int64_t begin, int64_t end) {
  NadeForward<float> worker(params);
  for (int64_t i = begin; i < end; ++i) worker.run(i);
}

void TILEWRIGHT_ON_MACHINE(nade_forward_double)(const NadeForwardParams<double>& params,
                                                int64_t begin, int64_t end) {
  NadeForward<double> worker(params);
  for (int64_t i = begin; i < end; ++i) worker.run(i);
}

}  // namespace tilewright
