// nade's device code. Forward: a block for each sample, whose threads share the hidden units; some
// pixels at a time, so that a barrier serves several sums. Backward: hidden units have nothing to
// do with each other once the logits are known, so a thread walks one unit over all pixels for a
// few samples at a time, without barriers, and owns what it adds to.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/density/nade_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kNadeThreads = 256;  // of a sample, at most
inline constexpr int kNadeSteps = 8;      // pixels between barriers

// Both weights have rows of hidden units, so that neighbouring threads read neighbours.
template <class T>
struct NadeParams {
  using Acc = accumulate_t<T>;
  int64_t pixels, hidden;           // D, H
  const T *weight_in, *weight_out;  // (D, H) both
  const T *bias_in, *bias_out;      // (H,), (D,)
  const T* x;                       // (N, D)
  Acc *log_prob, *logits;           // (N,), (N, D)
  Acc* activations;                 // (N, H), or null where shared memory holds a sample's
  // Sampling: x holds `given` pixels of each row, (N, given).
  const Acc* uniform;  // (N, D)
  T* sample;           // (N, D)
  int64_t given;
};

template <class Acc>
struct NadeParts {
  Acc* sums;         // (2, kNadeSteps, warps): of turns by turns, so that one barrier is enough
  Acc* activations;  // (hidden,)
  TILEWRIGHT_HD NadeParts(SharedMemory& shared, int64_t hidden)
      : sums(shared.take<Acc>(2 * kNadeSteps * kLanes)), activations(shared.take<Acc>(hidden)) {}
};

// A block's sample: its activations, and sums over all hidden units.
template <class T>
class NadeSample {
  using Acc = accumulate_t<T>;

 public:
  TILEWRIGHT_DEVICE NadeSample(const NadeParams<T>& params, int64_t row)
      : p_(params),
        parts_(shared_, params.activations == nullptr ? params.hidden : 0),
        activations_(params.activations == nullptr ? parts_.activations
                                                   : params.activations + row * params.hidden) {
    for (int64_t h = threadIdx.x; h < p_.hidden; h += blockDim.x) {
      activations_[h] = to_accumulate(ldg(p_.bias_in + h));
    }
  }

  // Every thread gets the logit of pixel d.
  TILEWRIGHT_DEVICE Acc logit(int64_t d) {
    Acc sum = Acc(0);
    for (int64_t h = threadIdx.x; h < p_.hidden; h += blockDim.x) {
      sum += to_accumulate(ldg(p_.weight_out + d * p_.hidden + h)) * nade_sigmoid(activations_[h]);
    }
    return block_reduce(sum, Sum(), Acc(0), parts_.sums) + to_accumulate(ldg(p_.bias_out + d));
  }
  TILEWRIGHT_DEVICE void set(int64_t d) {
    for (int64_t h = threadIdx.x; h < p_.hidden; h += blockDim.x) {
      activations_[h] += to_accumulate(ldg(p_.weight_in + d * p_.hidden + h));
    }
  }

  // Thread k < steps gets the logit of pixel d + k, of a sample whose pixels are known.
  TILEWRIGHT_DEVICE Acc logits(int64_t d, int steps, const T* x) {
    Acc sums[kNadeSteps], pixels[kNadeSteps];
#pragma unroll
    for (int k = 0; k < kNadeSteps; ++k) {
      sums[k] = Acc(0);
      pixels[k] = k < steps ? to_accumulate(ldg(x + d + k)) : Acc(0);
    }
    for (int64_t h = threadIdx.x; h < p_.hidden; h += blockDim.x) {
      Acc activation = activations_[h];
#pragma unroll
      for (int k = 0; k < kNadeSteps; ++k) {
        if (k >= steps) break;
        const int64_t at = (d + k) * p_.hidden + h;
        sums[k] += to_accumulate(ldg(p_.weight_out + at)) * nade_sigmoid(activation);
        activation += pixels[k] * to_accumulate(ldg(p_.weight_in + at));
      }
      activations_[h] = activation;
    }
    const int lane = int(threadIdx.x) % kLanes, warp = int(threadIdx.x) / kLanes;
    const int warps = int(blockDim.x) / kLanes;
    Acc* turn = parts_.sums + odd_ * kNadeSteps * kLanes;
    odd_ = 1 - odd_;
#pragma unroll
    for (int k = 0; k < kNadeSteps; ++k) {
      const Acc sum = warp_reduce(sums[k], Sum());
      if (lane == 0) turn[k * kLanes + warp] = sum;
    }
    __syncthreads();
    if (int(threadIdx.x) >= steps) return Acc(0);
    Acc sum = to_accumulate(ldg(p_.bias_out + d + threadIdx.x));
    for (int w = 0; w < warps; ++w) sum += turn[threadIdx.x * kLanes + w];
    return sum;
  }

 private:
  const NadeParams<T>& p_;
  SharedMemory shared_;
  NadeParts<Acc> parts_;
  Acc* activations_;  // each thread reads and writes its own
  int odd_ = 0;
};

template <class T>
__global__ void nade_forward_kernel(NadeParams<T> p) {
  using Acc = accumulate_t<T>;
  const int64_t row = blockIdx.x;
  NadeSample<T> sample(p, row);
  const T* x = p.x + row * p.pixels;
  Acc log_prob = Acc(0);
  for (int64_t d = 0; d < p.pixels; d += kNadeSteps) {
    const int steps = int(min_of(int64_t(kNadeSteps), p.pixels - d));
    const Acc logit = sample.logits(d, steps, x);
    if (int(threadIdx.x) >= steps) continue;
    p.logits[row * p.pixels + d + threadIdx.x] = logit;
    log_prob += nade_log_prob(logit, to_accumulate(ldg(x + d + threadIdx.x)));
  }
  if (threadIdx.x >= kLanes) return;
  log_prob = warp_reduce(log_prob, Sum());
  if (threadIdx.x == 0) p.log_prob[row] = log_prob;
}

template <class T>
__global__ void nade_sample_kernel(NadeParams<T> p) {
  using Acc = accumulate_t<T>;
  const int64_t row = blockIdx.x;
  NadeSample<T> sample(p, row);
  for (int64_t d = 0; d < p.pixels; ++d) {
    const int64_t at = row * p.pixels + d;
    Acc pixel;  // the same in all threads
    if (d < p.given) {
      pixel = to_accumulate(ldg(p.x + row * p.given + d));
    } else {
      pixel = ldg(p.uniform + at) < nade_sigmoid(sample.logit(d)) ? Acc(1) : Acc(0);
    }
    if (threadIdx.x == 0) p.sample[at] = from_accumulate<T>(pixel);
    if (pixel != Acc(0)) sample.set(d);
  }
}

inline constexpr int kNadeUnitThreads = 64;  // of a block of the backward: hidden units
inline constexpr int kNadeRowsTogether = 4;  // samples that a thread walks with
inline constexpr int64_t kNadeStretch = 16;  // pixels between kept activations

template <class T>
struct NadeBackwardKernelParams {
  using Acc = accumulate_t<T>;
  int64_t groups, pixels, hidden;   // groups of kNadeRowsTogether samples, D, H
  const T *weight_in, *weight_out;  // (D, H) both
  const T* bias_in;                 // (H,)
  const Acc* steps;                 // nade_steps of kNadeRowsTogether
  Acc* places;                      // (copies, stretches, kNadeRowsTogether, H): activations
  // (copies, D, H) both, zeros at first; (copies, H). Each copy is of a share of the groups.
  Acc *grad_weight_in, *grad_weight_out, *grad_bias_in;
};

template <class Acc>
struct NadeBackwardParts {
  Acc* shares;  // (kNadeStretch, kNadeRowsTogether, kNadeUnitThreads)
  TILEWRIGHT_HD explicit NadeBackwardParts(SharedMemory& shared)
      : shares(shared.take<Acc>(kNadeStretch * kNadeRowsTogether * kNadeUnitThreads)) {}
};

template <class T>
__global__ void nade_backward_kernel(NadeBackwardKernelParams<T> p) {
  using Acc = accumulate_t<T>;
  constexpr int kRows = kNadeRowsTogether;
  SharedMemory shared;
  Acc* const shares = NadeBackwardParts<Acc>(shared).shares + threadIdx.x;
  const int64_t unit = blockIdx.x * int64_t(kNadeUnitThreads) + threadIdx.x, copy = blockIdx.y;
  if (unit >= p.hidden) return;
  const int64_t share = ceil_div(p.groups, int64_t(gridDim.y)), begin = copy * share;
  const int64_t end = min_of(p.groups, begin + share);
  const int64_t stretches = ceil_div(p.pixels, kNadeStretch);
  Acc* const places = p.places + copy * stretches * kRows * p.hidden + unit;
  Acc* const grad_in = p.grad_weight_in + copy * p.pixels * p.hidden + unit;
  Acc* const grad_out = p.grad_weight_out + copy * p.pixels * p.hidden + unit;
  const T *weight_in = p.weight_in + unit, *weight_out = p.weight_out + unit;
  const Acc bias = to_accumulate(ldg(p.bias_in + unit));
  Acc grad_bias = Acc(0);
  for (int64_t group = begin; group < end; ++group) {
    const Acc* steps = p.steps + group * p.pixels * 2 * kRows;
    Acc rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) rows[r] = bias;
    for (int64_t d = 0; d < p.pixels; ++d) {  // upward, keeping activations
      if (d % kNadeStretch == 0) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          places[(d / kNadeStretch * kRows + r) * p.hidden] = rows[r];
        }
      }
      const Acc weight = to_accumulate(ldg(weight_in + d * p.hidden));
#pragma unroll
      for (int r = 0; r < kRows; ++r) rows[r] += ldg(steps + (2 * d + 1) * kRows + r) * weight;
    }
    Acc above[kRows];  // gradients of the activations, of the pixels above
#pragma unroll
    for (int r = 0; r < kRows; ++r) above[r] = Acc(0);
    for (int64_t i = stretches - 1; i >= 0; --i) {
      const int64_t first = i * kNadeStretch, last = min_of(first + kNadeStretch, p.pixels);
#pragma unroll
      for (int r = 0; r < kRows; ++r) rows[r] = places[(i * kRows + r) * p.hidden];
      for (int64_t d = first; d < last; ++d) {  // upward once more: what each pixel gives
        const Acc in = to_accumulate(ldg(weight_in + d * p.hidden));
        const Acc out = to_accumulate(ldg(weight_out + d * p.hidden));
        Acc sum = Acc(0);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const Acc hidden = nade_sigmoid(rows[r]);
          const Acc part = ldg(steps + 2 * d * kRows + r) * hidden;
          sum += part;
          shares[((d - first) * kRows + r) * kNadeUnitThreads] = (part - part * hidden) * out;
          rows[r] += ldg(steps + (2 * d + 1) * kRows + r) * in;
        }
        grad_out[d * p.hidden] += sum;
      }
      for (int64_t d = last - 1; d >= first; --d) {  // downward: sums of those above
        Acc sum = Acc(0);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sum += ldg(steps + (2 * d + 1) * kRows + r) * above[r];
          above[r] += shares[((d - first) * kRows + r) * kNadeUnitThreads];
        }
        grad_in[d * p.hidden] += sum;
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) grad_bias += above[r];
  }
  p.grad_bias_in[copy * p.hidden + unit] = grad_bias;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
