// The backward pass of nade. With the logits known, hidden units have nothing to do with each
// other: a task walks a tile of them over all pixels, and owns their gradients.
//
// Activations are made again on the way up, and kept at every kNadeStride-th pixel; from the last
// of these places to the first, each stretch is walked upward once more, for the hidden units and
// what their activations' gradients get of each pixel, and then downward, adding those up.
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/math.h"
#include "tilewright/density/nade_cpu.h"
#include "tilewright/density/nade_cpu_lanes.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class A>
class NadeBackward {
  using V = at::vec::Vectorized<A>;
  static constexpr int64_t kLane = V::size();
  static constexpr int kRows = int(kNadeRows);
  static constexpr int64_t kRegisters = kNadeRows * kLane;  // one of each sample, in values
  static_assert(kNadeUnits % kLane == 0);

 public:
  explicit NadeBackward(const NadeBackwardParams<A>& params) : p_(params) {
    take();
    scratch_.allocate();
    take();
  }

  void run(int64_t task) {
    const int64_t copy = task / p_.tiles, tile = task % p_.tiles;
    const int64_t share = ceil_div(p_.groups, p_.copies);
    const int64_t begin = copy * share, end = min_of(p_.groups, begin + share);
    const int64_t from = tile * p_.pixels * kNadeUnits, to = task * p_.pixels * kNadeUnits;
    for (int64_t i = 0; i < p_.pixels * kNadeUnits; ++i) {
      p_.grad_weight_in[to + i] = p_.grad_weight_out[to + i] = A(0);
    }
    for (int64_t lane = 0; lane < kNadeUnits; lane += kLane) {
      weight_in_ = p_.weight_in + from + lane;
      weight_out_ = p_.weight_out + from + lane;
      grad_weight_in_ = p_.grad_weight_in + to + lane;
      grad_weight_out_ = p_.grad_weight_out + to + lane;
      const V bias = V::loadu(p_.bias_in + tile * kNadeUnits + lane);
      V grad_bias(A(0));
      for (int64_t group = begin; group < end; ++group) {
        steps_ = p_.steps + group * p_.pixels * 2 * kNadeRows;
        grad_bias = grad_bias + walk(bias);
      }
      grad_bias.store(p_.grad_bias_in + task * kNadeUnits + lane);
    }
  }

 private:
  void take() {
    places_ = scratch_.take<A>(ceil_div(p_.pixels, kNadeStride) * kRegisters);
    shares_ = scratch_.take<A>(kNadeStride * kRegisters);
  }
  const A* logit_grads(int64_t d) const { return steps_ + d * 2 * kNadeRows; }
  const A* pixels(int64_t d) const { return logit_grads(d) + kNadeRows; }

  // A group's samples; returns what the bias gets of them.
  V walk(const V& bias) {
    V rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = bias;
    const int64_t stretches = ceil_div(p_.pixels, kNadeStride);
    for (int64_t i = 0; i < stretches; ++i) {
      for (int r = 0; r < kRows; ++r) rows[r].store(places_ + i * kRegisters + r * kLane);
      if (i + 1 == stretches) break;
      for (int64_t d = i * kNadeStride; d < (i + 1) * kNadeStride; ++d) {
        const V weight_in = V::loadu(weight_in_ + d * kNadeUnits);
        const A* x = pixels(d);
        for (int r = 0; r < kRows; ++r) rows[r] = at::vec::fmadd(V(x[r]), weight_in, rows[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) rows[r] = V(A(0));
    for (int64_t i = stretches - 1; i >= 0; --i) {
      const int64_t first = i * kNadeStride, end = min_of(first + kNadeStride, p_.pixels);
      raise(first, end, places_ + i * kRegisters);
      for (int64_t d = end - 1; d >= first; --d) {
        const A *share = shares_ + (d - first) * kRegisters, *x = pixels(d);
        V sum(A(0));
        for (int r = 0; r < kRows; ++r) {
          sum = at::vec::fmadd(V(x[r]), rows[r], sum);
          rows[r] = rows[r] + V::loadu(share + r * kLane);
        }
        add(sum, grad_weight_in_ + d * kNadeUnits);
      }
    }
    V sum = rows[0];
    for (int r = 1; r < kRows; ++r) sum = sum + rows[r];
    return sum;
  }

  // A stretch upward, from the activations before it.
  void raise(int64_t first, int64_t end, const A* from) {
    V rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = V::loadu(from + r * kLane);
    for (int64_t d = first; d < end; ++d) {
      const A *logit_grad = logit_grads(d), *x = pixels(d);
      const V weight_in = V::loadu(weight_in_ + d * kNadeUnits);
      const V weight_out = V::loadu(weight_out_ + d * kNadeUnits);
      A* to = shares_ + (d - first) * kRegisters;
      V sum(A(0));
      for (int r = 0; r < kRows; ++r) {
        const V hidden = sigmoid_lanes<A>(rows[r]), part = V(logit_grad[r]) * hidden;
        sum = sum + part;
        (at::vec::fnmadd(part, hidden, part) * weight_out).store(to + r * kLane);
        rows[r] = at::vec::fmadd(V(x[r]), weight_in, rows[r]);
      }
      add(sum, grad_weight_out_ + d * kNadeUnits);
    }
  }

  static void add(const V& sum, A* to) { (V::loadu(to) + sum).store(to); }

  const NadeBackwardParams<A>& p_;
  TileScratch scratch_;
  A* places_;  // (stretches, rows, lanes): activations
  A* shares_;  // (kNadeStride, rows, lanes): what pixels give to the activations' gradients
  // Of the task's tile and lanes, and of the group.
  const A *weight_in_, *weight_out_, *steps_;
  A *grad_weight_in_, *grad_weight_out_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(nade_backward_float)(const NadeBackwardParams<float>& params,
                                                int64_t begin, int64_t end) {
  NadeBackward<float> worker(params);
  for (int64_t i = begin; i < end; ++i) worker.run(i);
}

void TILEWRIGHT_ON_MACHINE(nade_backward_double)(const NadeBackwardParams<double>& params,
                                                 int64_t begin, int64_t end) {
  NadeBackward<double> worker(params);
  for (int64_t i = begin; i < end; ++i) worker.run(i);
}

}  // namespace tilewright
