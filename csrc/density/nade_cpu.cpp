// nade on the CPU: weights to padded copies, raw pointers, groups of samples and tiles of units.
#include "tilewright/density/nade_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/core/math.h"
#include "tilewright/density/nade_args.h"

namespace tilewright {
namespace {

using at::Tensor;

int64_t padded(int64_t hidden) { return ceil_div(hidden, kNadeUnits) * kNadeUnits; }

// The last dimension, hidden units, in the type of sums and padded with zeros.
Tensor padded(const Tensor& units) {
  const Tensor wide = units.to(nade_sums_type(units.scalar_type()));
  const int64_t missing = padded(units.size(-1)) - units.size(-1);
  return missing == 0 ? wide.contiguous() : at::constant_pad_nd(wide, {0, missing}).contiguous();
}

// (tiles, D, kNadeUnits) of a matrix (D, H).
Tensor tiles_of(const Tensor& matrix) {
  return padded(matrix).view({matrix.size(0), -1, kNadeUnits}).transpose(0, 1).contiguous();
}

template <class Acc>
NadeForwardParams<Acc> forward_params(int64_t rows, const Tensor& in, const Tensor& bias_in,
                                      const Tensor& out, const Tensor& bias_out) {
  NadeForwardParams<Acc> params{};
  params.rows = rows;
  params.pixels = in.size(0);
  params.hidden = in.size(1);
  params.weight_in = in.const_data_ptr<Acc>();
  params.weight_out = out.const_data_ptr<Acc>();
  params.bias_in = bias_in.const_data_ptr<Acc>();
  params.bias_out = bias_out.const_data_ptr<Acc>();
  return params;
}

// Calls run(params) of the type of sums, with rows and weights filled in, and its tensors alive.
template <class Fill>
void run_forward(int64_t rows, const NadeWeights& w, const Fill& fill) {
  const Tensor in = padded(w.weight_in.t()), bias_in = padded(w.bias_in);
  const Tensor out = padded(w.weight_out);
  const Tensor bias_out = w.bias_out.to(in.scalar_type()).contiguous();
  const auto run = [&](auto zero, auto kernel) {
    auto params = forward_params<decltype(zero)>(rows, in, bias_in, out, bias_out);
    fill(params);
    at::parallel_for(0, ceil_div(rows, kNadeRows), 1,
                     [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
  };
  if (in.scalar_type() == at::kDouble) {
    run(0.0, [](const auto& p, int64_t begin, int64_t end) { nade_forward_double(p, begin, end); });
  } else {
    run(0.f, [](const auto& p, int64_t begin, int64_t end) { nade_forward_float(p, begin, end); });
  }
}

NadeOutput nade_cpu(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                    const Tensor& weight_out, const Tensor& bias_out) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade("nade", x, weights);
  check_binary("nade", "x", x);
  auto [log_prob, logits] = nade_output(x);
  if (x.size(0) == 0) return {log_prob, logits};
  const Tensor pixels = x.to(logits.scalar_type()).contiguous();
  run_forward(x.size(0), weights, [&](auto& params) {
    using Acc = std::remove_reference_t<decltype(*params.log_prob)>;
    params.x = pixels.const_data_ptr<Acc>();
    params.log_prob = log_prob.data_ptr<Acc>();
    params.logits = logits.data_ptr<Acc>();
  });
  return {log_prob, logits};
}

Tensor nade_sample_cpu(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                       const Tensor& weight_out, const Tensor& bias_out,
                       const std::optional<Tensor>& given, std::optional<at::Generator> generator) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_sample(n, weights, given);
  if (given) check_binary("nade_sample", "given", *given);
  const auto options = weight_in.options().dtype(nade_sums_type(weight_in.scalar_type()));
  const Tensor uniform = at::rand({n, weight_in.size(1)}, std::move(generator), options);
  const Tensor sample = at::empty(uniform.sizes(), options);
  const int64_t known = given ? given->size(1) : 0;
  if (known > 0) sample.narrow(1, 0, known).copy_(*given);
  run_forward(n, weights, [&](auto& params) {
    using Acc = std::remove_reference_t<decltype(*params.sample)>;
    params.uniform = uniform.const_data_ptr<Acc>();
    params.sample = sample.data_ptr<Acc>();
    params.given = known;
  });
  return sample.to(weight_in.scalar_type());
}

// Few tiles share their work by samples: then each part of the samples has gradients of its own.
// How many depends on sizes alone; together they have less than kEnough + 1 tiles.
int64_t copies_of(int64_t tiles, int64_t groups) {
  constexpr int64_t kEnough = 16, kLeastGroups = 4;
  return std::max(int64_t(1), std::min(kEnough / tiles, groups / kLeastGroups));
}

// In the order of samples.
template <class Acc>
void add_logit_grads(const NadeBackwardParams<Acc>& p) {
  constexpr int64_t kGrain = 64;
  at::parallel_for(0, p.pixels, kGrain, [&](int64_t begin, int64_t end) {
    std::fill(p.grad_bias_out + begin, p.grad_bias_out + end, Acc(0));
    for (int64_t group = 0; group < p.groups; ++group) {
      for (int64_t d = begin; d < end; ++d) {
        const Acc* step = p.steps + (group * p.pixels + d) * 2 * kNadeRows;
        Acc sum = 0;
        for (int64_t r = 0; r < kNadeRows; ++r) sum += step[r];
        p.grad_bias_out[d] += sum;
      }
    }
  });
}

NadeGrads nade_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                            const Tensor& bias_in, const Tensor& weight_out, const Tensor& bias_out,
                            const Tensor& logits) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_backward("_nade_backward", grad, x, weights, logits);
  const int64_t pixels = x.size(1), hidden = weight_in.size(0);
  const Tensor in = tiles_of(weight_in.t()), out = tiles_of(weight_out);
  const Tensor bias = padded(bias_in), steps = nade_steps(grad, x, logits, kNadeRows);
  const int64_t tiles = in.size(0), groups = steps.size(0), copies = copies_of(tiles, groups);
  const auto options = steps.options();
  const Tensor grad_in = at::empty({copies, tiles, pixels, kNadeUnits}, options);
  const Tensor grad_out = at::empty_like(grad_in);
  const Tensor grad_bias = at::empty({copies, tiles * kNadeUnits}, options);
  const Tensor grad_bias_out = at::empty({pixels}, options);
  const auto run = [&](auto zero, auto kernel) {
    using Acc = decltype(zero);
    const NadeBackwardParams<Acc> params{
        groups,
        pixels,
        tiles,
        copies,
        in.const_data_ptr<Acc>(),
        out.const_data_ptr<Acc>(),
        bias.const_data_ptr<Acc>(),
        steps.const_data_ptr<Acc>(),
        grad_in.data_ptr<Acc>(),
        grad_out.data_ptr<Acc>(),
        grad_bias.data_ptr<Acc>(),
        grad_bias_out.data_ptr<Acc>(),
    };
    at::parallel_for(0, copies * tiles, 1,
                     [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
    add_logit_grads(params);
  };
  if (options.dtype() == at::kDouble) {
    run(0.0,
        [](const auto& p, int64_t begin, int64_t end) { nade_backward_double(p, begin, end); });
  } else {
    run(0.f, [](const auto& p, int64_t begin, int64_t end) { nade_backward_float(p, begin, end); });
  }
  const auto whole = [](const Tensor& parts) {  // in the order of samples
    const Tensor sum = parts[0];
    for (int64_t i = 1; i < parts.size(0); ++i) sum.add_(parts[i]);
    return sum;
  };
  auto grads = nade_grads(weights);
  const auto matrix = [&](const Tensor& parts) {  // (D, H)
    return whole(parts).transpose(0, 1).reshape({pixels, tiles * kNadeUnits}).narrow(1, 0, hidden);
  };
  std::get<0>(grads).copy_(matrix(grad_in).t());
  std::get<1>(grads).copy_(whole(grad_bias).narrow(0, 0, hidden));
  std::get<2>(grads).copy_(matrix(grad_out));
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
