// nade on the CPU: packed weights, raw pointers, groups of samples and tiles of units.
#include "tilewright/density/nade_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/core/log2.h"
#include "tilewright/core/math.h"
#include "tilewright/density/nade_args.h"

namespace tilewright {
namespace {

using at::Tensor;

int64_t tiles_of(const Tensor& weight_in) { return ceil_div(weight_in.size(0), kNadeUnits); }

// Of whole tiles, in the type of sums, multiplied as the weights are.
Tensor powers_of(const Tensor& bias_in, at::ScalarType sums) {
  const int64_t missing = ceil_div(bias_in.size(0), kNadeUnits) * kNadeUnits - bias_in.size(0);
  return at::constant_pad_nd(bias_in.to(sums) * -kLog2E, {0, missing}).contiguous();
}

// Rows and weights filled in, and their tensors alive.
struct NadeForwardCall {
  NadeForwardCall(int64_t rows, const NadeWeights& w)
      : sums(nade_sums_type(w.bias_in.scalar_type())) {
    const Tensor weight_in = w.weight_in.contiguous(), weight_out = w.weight_out.contiguous();
    const int64_t pixels = weight_in.size(1), tiles = tiles_of(weight_in);
    const auto options = weight_in.options().dtype(sums);
    in = at::empty({pixels, tiles * kNadeUnits}, options);
    out = at::empty({pixels, tiles * kNadeUnits}, options);
    const NadePackParams pack{weight_in.scalar_type(),
                              pixels,
                              weight_in.size(0),
                              tiles * kNadeUnits,
                              weight_in.const_data_ptr(),
                              weight_out.const_data_ptr(),
                              in.data_ptr(),
                              out.data_ptr()};
    at::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) { nade_pack(pack, begin, end); });
    bias_in = powers_of(w.bias_in, sums);
    bias_out = w.bias_out.to(sums).contiguous();
    params.wide = sums == at::kDouble;
    params.rows = rows;
    // An even number, so that two threads have the same to do.
    params.groups = rows <= kNadeRows ? 1 : ceil_div(rows, 2 * kNadeRows) * 2;
    params.pixels = pixels;
    params.padded = in.size(1);
    params.weight_in = in.const_data_ptr();
    params.weight_out = out.const_data_ptr();
    params.bias_in = bias_in.const_data_ptr();
    params.bias_out = bias_out.const_data_ptr();
  }
  void run() const {
    if (params.rows == 0) return;
    at::parallel_for(0, params.groups, 1,
                     [&](int64_t begin, int64_t end) { nade_forward(params, begin, end); });
  }

  at::ScalarType sums;
  Tensor in, out, bias_in, bias_out;
  NadeForwardParams params{};
};

NadeOutput nade_cpu(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                    const Tensor& weight_out, const Tensor& bias_out) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade("nade", x, weights);
  check_binary("nade", "x", x);
  auto [log_prob, logits] = nade_output(x);
  if (x.size(0) == 0) return {log_prob, logits};
  const Tensor pixels = x.to(logits.scalar_type()).contiguous();
  NadeForwardCall call(x.size(0), weights);
  call.params.x = pixels.const_data_ptr();
  call.params.log_prob = log_prob.data_ptr();
  call.params.logits = logits.data_ptr();
  call.run();
  return {log_prob, logits};
}

Tensor nade_sample_cpu(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                       const Tensor& weight_out, const Tensor& bias_out,
                       const std::optional<Tensor>& given, std::optional<at::Generator> generator) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_sample(n, weights, given);
  if (given) check_binary("nade_sample", "given", *given);
  NadeForwardCall call(n, weights);
  const auto options = weight_in.options().dtype(call.sums);
  const Tensor uniform = at::rand({n, weight_in.size(1)}, std::move(generator), options);
  const Tensor sample = at::empty(uniform.sizes(), options);
  const int64_t known = given ? given->size(1) : 0;
  if (known > 0) sample.narrow(1, 0, known).copy_(*given);
  call.params.uniform = uniform.const_data_ptr();
  call.params.sample = sample.data_ptr();
  call.params.given = known;
  call.run();
  return sample.to(weight_in.scalar_type());
}

// Few tiles share their work by samples: then each part of the samples has gradients of its own.
// How many depends on sizes alone; all copies together have kEnough tiles at most.
int64_t copies_of(int64_t tiles, int64_t groups) {
  constexpr int64_t kEnough = 16, kLeastGroups = 4;
  return std::max(int64_t(1), std::min(kEnough / tiles, groups / kLeastGroups));
}

NadeGrads nade_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                            const Tensor& bias_in, const Tensor& weight_out, const Tensor& bias_out,
                            const Tensor& logits) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_backward("_nade_backward", grad, x, weights, logits);
  const Tensor in = weight_in.contiguous(), out = weight_out.contiguous();
  const Tensor steps = nade_steps(grad, x, logits, kNadeRows);
  const Tensor bias = powers_of(bias_in, steps.scalar_type());
  const int64_t pixels = x.size(1), hidden = weight_in.size(0), tiles = tiles_of(in);
  const int64_t groups = steps.size(0), copies = copies_of(tiles, groups);
  const Tensor grad_bias = at::empty({copies, tiles * kNadeUnits}, steps.options());
  const Tensor grad_bias_out = at::empty({pixels}, steps.options());
  const Tensor sums =
      at::empty({copies > 1 ? copies : 0, tiles, 2, pixels, kNadeUnits}, steps.options());
  auto grads = nade_grads(weights);
  const NadeBackwardParams params{x.scalar_type(),
                                  groups,
                                  pixels,
                                  hidden,
                                  tiles,
                                  copies,
                                  in.const_data_ptr(),
                                  out.const_data_ptr(),
                                  bias.const_data_ptr(),
                                  steps.const_data_ptr(),
                                  std::get<0>(grads).data_ptr(),
                                  std::get<2>(grads).data_ptr(),
                                  grad_bias.data_ptr(),
                                  grad_bias_out.data_ptr(),
                                  sums.data_ptr()};
  at::parallel_for(0, copies * tiles, 1,
                   [&](int64_t begin, int64_t end) { nade_backward(params, begin, end); });
  if (copies > 1) {
    at::parallel_for(0, tiles, 1,
                     [&](int64_t begin, int64_t end) { nade_add_copies(params, begin, end); });
  }
  at::parallel_for(0, pixels, 256,
                   [&](int64_t begin, int64_t end) { nade_add_steps(params, begin, end); });
  const Tensor whole = grad_bias[0];
  for (int64_t i = 1; i < copies; ++i) whole.add_(grad_bias[i]);
  std::get<1>(grads).copy_(whole.narrow(0, 0, hidden));
  std::get<3>(grads).copy_(grad_bias_out);
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("_nade", &nade_cpu);
  m.impl("_nade_backward", &nade_backward_cpu);
  m.impl("nade_sample", &nade_sample_cpu);
}

}  // namespace tilewright
