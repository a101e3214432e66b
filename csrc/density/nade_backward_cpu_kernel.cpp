// The backward pass of nade. With the logits known, hidden units have nothing to do with each
// other: a task walks a tile of them over all pixels, and owns their gradients.
//
// Activations are made again on the way up, and kept at every kNadeStride-th pixel; from the last
// of these places to the first, each stretch is walked upward once more, for the hidden units and
// what their activations' gradients get of each pixel, and then downward, adding those up. Walking
// down by subtracting what was added would cost the digits that a large weight took.
#include "tilewright/core/cpu/tile_scratch.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/density/nade_cpu_lanes.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
class NadeBackward {
  using A = Accumulate<T>;
  using V = Vec<T>;
  static constexpr int64_t kLane = kLanes<T>;
  static constexpr int kRows = int(kNadeRows);
  static constexpr int kEach = 4;  // of them whose sigmoids are found together
  static constexpr int64_t kRegisters = kNadeRows * kLane;  // one of each sample, in values
  static_assert(kNadeUnits % kLane == 0);

 public:
  explicit NadeBackward(const NadeBackwardParams& params)
      : p_(params), tile_size_(params.pixels * kNadeUnits) {
    take();
    scratch_.allocate();
    take();
  }

  void run(int64_t task) {
    const int64_t copy = task / p_.tiles, tile = task % p_.tiles;
    const int64_t share = ceil_div(p_.groups, p_.copies);
    const int64_t begin = copy * share, end = min_of(p_.groups, begin + share);
    load_weight_in<T>(p_.weight_in, p_.pixels, p_.hidden, tile, tile_in_);
    load_weight_out<T>(p_.weight_out, p_.pixels, p_.hidden, tile, tile_out_, kNadeUnits);
    A* sums = p_.copies > 1 ? copy_of(task) : sums_;
    for (int64_t i = 0; i < 2 * tile_size_; ++i) sums[i] = A(0);
    for (int64_t lane = 0; lane < kNadeUnits; lane += kLane) {
      weight_in_ = tile_in_ + lane;
      weight_out_ = tile_out_ + lane;
      grad_weight_in_ = sums + lane;
      grad_weight_out_ = sums + tile_size_ + lane;
      const V bias = V::loadu(static_cast<const A*>(p_.bias_in) + tile * kNadeUnits + lane);
      V grad_bias(A(0));
      for (int64_t group = begin; group < end; ++group) {
        steps_ = static_cast<const A*>(p_.steps) + group * p_.pixels * 2 * kNadeRows;
        grad_bias = grad_bias + walk(bias);
      }
      grad_bias.store(static_cast<A*>(p_.grad_bias_in) + task * kNadeUnits + lane);
    }
    if (p_.copies == 1) store(tile, sums);
  }

  void add_copies(int64_t tile) {
    A* sums = copy_of(tile);
    for (int64_t copy = 1; copy < p_.copies; ++copy) {
      const A* other = copy_of(copy * p_.tiles + tile);
      for (int64_t i = 0; i < 2 * tile_size_; ++i) sums[i] += other[i];
    }
    store(tile, sums);
  }

 private:
  void take() {
    tile_in_ = scratch_.take<A>(tile_size_);
    tile_out_ = scratch_.take<A>(tile_size_);
    sums_ = scratch_.take<A>(2 * tile_size_);
    places_ = scratch_.take<A>(ceil_div(p_.pixels, kNadeStride) * kRegisters);
    shares_ = scratch_.take<A>(kNadeStride * kRegisters);
  }
  A* copy_of(int64_t task) const { return static_cast<A*>(p_.sums) + task * 2 * tile_size_; }
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
      for (int r = 0; r < kRows; r += kEach) {
        V hidden[kEach];
        for (int k = 0; k < kEach; ++k) hidden[k] = rows[r + k];
        sigmoid_each<A>(hidden);
        for (int k = 0; k < kEach; ++k) {
          const V part = V(logit_grad[r + k]) * hidden[k];
          sum = sum + part;
          (at::vec::fnmadd(part, hidden[k], part) * weight_out).store(to + (r + k) * kLane);
          rows[r + k] = at::vec::fmadd(V(x[r + k]), weight_in, rows[r + k]);
        }
      }
      add(sum, grad_weight_out_ + d * kNadeUnits);
    }
  }

  static void add(const V& sum, A* to) { (V::loadu(to) + sum).store(to); }

  void store(int64_t tile, const A* sums) const {
    const int64_t first = tile * kNadeUnits, units = min_of(kNadeUnits, p_.hidden - first);
    tile_to_planes<T>(sums, kNadeUnits, p_.pixels, units,
                      static_cast<T*>(p_.grad_weight_in) + first * p_.pixels, p_.pixels);
    T* to = static_cast<T*>(p_.grad_weight_out) + first;
    for (int64_t d = 0; d < p_.pixels; ++d) {
      const A* row = sums + tile_size_ + d * kNadeUnits;
      for (int64_t lane = 0; lane < units; lane += kLane) {
        store_lanes<T>(V::loadu(row + lane), to + d * p_.hidden + lane,
                       min_of(kLane, units - lane));
      }
    }
  }

  const NadeBackwardParams& p_;
  const int64_t tile_size_;
  TileScratch scratch_;
  A *tile_in_, *tile_out_;  // (D, kNadeUnits)
  A* sums_;                 // (2, D, kNadeUnits): gradients of weight_in and weight_out
  A* places_;               // (stretches, rows, lanes): activations
  A* shares_;  // (kNadeStride, rows, lanes): what pixels give to the activations' gradients
  // Of some lanes of the task's tile, and of the group.
  const A *weight_in_, *weight_out_, *steps_;
  A *grad_weight_in_, *grad_weight_out_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(nade_backward)(const NadeBackwardParams& params, int64_t begin,
                                          int64_t end) {
  dispatch_floating("_nade_backward", params.dtype, [&](auto tag) {
    NadeBackward<typename decltype(tag)::type> worker(params);
    for (int64_t i = begin; i < end; ++i) worker.run(i);
  });
}

void TILEWRIGHT_ON_MACHINE(nade_add_copies)(const NadeBackwardParams& params, int64_t begin,
                                            int64_t end) {
  dispatch_floating("_nade_backward", params.dtype, [&](auto tag) {
    NadeBackward<typename decltype(tag)::type> worker(params);
    for (int64_t i = begin; i < end; ++i) worker.add_copies(i);
  });
}

void TILEWRIGHT_ON_MACHINE(nade_add_steps)(const NadeBackwardParams& params, int64_t begin,
                                           int64_t end) {
  const auto add_up = [&](auto zero) {
    using A = decltype(zero);
    auto* to = static_cast<A*>(params.grad_bias_out);
    for (int64_t d = begin; d < end; ++d) to[d] = A(0);
    for (int64_t group = 0; group < params.groups; ++group) {
      const auto* step =
          static_cast<const A*>(params.steps) + group * params.pixels * 2 * kNadeRows;
      for (int64_t d = begin; d < end; ++d) {
        A sum = 0;
        for (int64_t r = 0; r < kNadeRows; ++r) sum += step[d * 2 * kNadeRows + r];
        to[d] += sum;
      }
    }
  };
  params.dtype == c10::ScalarType::Double ? add_up(0.0) : add_up(0.f);
}

}  // namespace tilewright
