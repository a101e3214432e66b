// The forward pass of nade, and sampling: a few samples walk over the pixels together, so that rows
// of both weights are read once for all of them. Hidden units change where a pixel is 1.
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/density/nade_cpu_lanes.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class A>
class NadeForward {
  using V = at::vec::Vectorized<A>;
  static constexpr int64_t kLane = V::size();
  static constexpr int kRows = int(kNadeRows);

 public:
  explicit NadeForward(const NadeForwardParams& params)
      : p_(params),
        weight_in_(static_cast<const A*>(params.weight_in)),
        weight_out_(static_cast<const A*>(params.weight_out)) {
    take();
    scratch_.allocate();
    take();
  }

  // At most kTogether groups.
  void run(int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      turn_to(group, group - begin);
      start();
    }
    // Some pixels' weights stay in the second cache while all groups walk over them.
    for (int64_t first = 0; first < p_.pixels; first += kStretch) {
      const int64_t last = min_of(first + kStretch, p_.pixels);
      for (int64_t group = begin; group < end; ++group) {
        turn_to(group, group - begin);
        p_.sample == nullptr ? raise(first, last) : draw(first, last);
      }
    }
    if (p_.sample != nullptr) return;
    for (int64_t row = row_of(begin); row < row_of(end); ++row) {
      const int64_t at = row * p_.pixels;
      static_cast<A*>(p_.log_prob)[row] =
          log_prob(static_cast<const A*>(p_.logits) + at, static_cast<const A*>(p_.x) + at);
    }
  }

  static constexpr int64_t kTogether = 8;

 private:
  static constexpr int64_t kStretch = 32;  // pixels

  void take() { state_ = scratch_.take<A>(kTogether * 2 * kRows * p_.padded); }
  int64_t row_of(int64_t group) const { return group * p_.rows / p_.groups; }

  void turn_to(int64_t group, int64_t place) {
    first_ = row_of(group);
    count_ = int(row_of(group + 1) - first_);
    activations_ = state_ + place * 2 * kRows * p_.padded;
    hidden_ = activations_ + kRows * p_.padded;
  }
  int64_t row(int r) const { return (first_ + r) * p_.pixels; }

  // Rows that the group lacks stay as the bias has them.
  void start() {
    for (int64_t h = 0; h < p_.padded; h += kLane) {
      const V bias = V::loadu(static_cast<const A*>(p_.bias_in) + h);
      const V hidden = sigmoid_lanes<A>(bias);
      for (int r = 0; r < kRows; ++r) {
        bias.store(activations_ + r * p_.padded + h);
        hidden.store(hidden_ + h * kRows + r * kLane);
      }
    }
  }

  void raise(int64_t first, int64_t last) {
    const auto* x = static_cast<const A*>(p_.x);
    auto* to = static_cast<A*>(p_.logits);
    A logits[kRows];
    for (int64_t d = first; d < last; ++d) {
      multiply(d, logits);
      for (int r = 0; r < count_; ++r) {
        to[row(r) + d] = logits[r];
        if (x[row(r) + d] != A(0)) set(r, d);
      }
    }
  }

  void draw(int64_t first, int64_t last) {
    auto* sample = static_cast<A*>(p_.sample);
    const auto* uniform = static_cast<const A*>(p_.uniform);
    A probability[kRows > kLane ? kRows : kLane] = {};
    for (int64_t d = first; d < last; ++d) {
      if (d >= p_.given) {
        multiply(d, probability);
        for (int64_t r = 0; r < kRows; r += kLane) {
          sigmoid_lanes<A>(V::loadu(probability + r) * V(A(-kLog2E))).store(probability + r);
        }
      }
      for (int r = 0; r < count_; ++r) {
        A& pixel = sample[row(r) + d];
        if (d >= p_.given) pixel = uniform[row(r) + d] < probability[r] ? A(1) : A(0);
        if (pixel != A(0)) set(r, d);
      }
    }
  }

  // Pixel d of a row is 1. Of one that is 0 nothing changes, so most of an image's pixels cost no
  // sigmoid.
  void set(int r, int64_t d) {
    const A* in = weight_in_ + d * p_.padded;
    A* activations = activations_ + r * p_.padded;
    constexpr int kEach = 4;
    int64_t h = 0;
    for (; h + kEach * kLane <= p_.padded; h += kEach * kLane) move<kEach>(in, activations, r, h);
    for (; h < p_.padded; h += kLane) move<1>(in, activations, r, h);
  }

  template <int kEach>
  void move(const A* in, A* activations, int r, int64_t h) {
    V lanes[kEach];
    for (int k = 0; k < kEach; ++k) {
      lanes[k] = V::loadu(activations + h + k * kLane) + V::loadu(in + h + k * kLane);
    }
    for (int k = 0; k < kEach; ++k) lanes[k].store(activations + h + k * kLane);
    sigmoid_each<A>(lanes);
    for (int k = 0; k < kEach; ++k) lanes[k].store(hidden_ + (h + k * kLane) * kRows + r * kLane);
  }

  // Logits of pixel d.
  void multiply(int64_t d, A* logits) const {
    const A* out = weight_out_ + d * p_.padded;
    V sums[kRows];
    for (int r = 0; r < kRows; ++r) sums[r] = V(A(0));
    for (int64_t h = 0; h < p_.padded; h += kLane) {
      const V weight = V::loadu(out + h);
      for (int r = 0; r < kRows; ++r) {
        sums[r] = at::vec::fmadd(V::loadu(hidden_ + h * kRows + r * kLane), weight, sums[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      logits[r] = add_up(sums[r]) + static_cast<const A*>(p_.bias_out)[d];
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
      const V value = min_of(s, zero) - exp2_lanes<5>(s.abs() * V(A(-kLog2E))).log1p();
      sum = sum + (left == kLane ? value : V::set(zero, value, left));
    }
    return add_up(sum);
  }

  static A add_up(const V& lanes) {
    return at::vec::vec_reduce_all<A>([](const V& a, const V& b) { return a + b; }, lanes);
  }

  const NadeForwardParams& p_;
  const A *weight_in_, *weight_out_;
  TileScratch scratch_;
  A* state_;  // (kTogether, 2, rows * padded)
  // Of the group at hand: (rows, padded), and sigmoids of those, (padded / lanes, rows, lanes).
  A *activations_ = nullptr, *hidden_ = nullptr;
  int64_t first_ = 0;
  int count_ = 0;  // samples of the group
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(nade_pack)(const NadePackParams& params, int64_t begin, int64_t end) {
  dispatch_floating("nade", params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    TileScratch scratch;
    scratch.take<A>(params.pixels * kNadeUnits);
    scratch.allocate();
    A* tile = scratch.take<A>(params.pixels * kNadeUnits);
    for (int64_t i = begin; i < end; ++i) {
      load_weight_in<T>(params.weight_in, params.pixels, params.hidden, i, tile);
      A* to = static_cast<A*>(params.in) + i * kNadeUnits;
      for (int64_t d = 0; d < params.pixels; ++d) {
        for (int64_t u = 0; u < kNadeUnits; ++u)
          to[d * params.padded + u] = tile[d * kNadeUnits + u];
      }
      load_weight_out<T>(params.weight_out, params.pixels, params.hidden, i,
                         static_cast<A*>(params.out) + i * kNadeUnits, params.padded);
    }
  });
}

void TILEWRIGHT_ON_MACHINE(nade_forward)(const NadeForwardParams& params, int64_t begin,
                                         int64_t end) {
  const auto run = [&](auto zero) {
    using Worker = NadeForward<decltype(zero)>;
    Worker worker(params);
    for (int64_t i = begin; i < end; i += Worker::kTogether) {
      worker.run(i, min_of(i + Worker::kTogether, end));
    }
  };
  params.wide ? run(0.0) : run(0.f);
}

}  // namespace tilewright
