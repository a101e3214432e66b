// stochastic_round_: schema, checks, versions, Meta; and the CPU's split.
#include "tilewright/amp/stochastic_round.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/library.h>

#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/stochastic_round_args.h"
#include "tilewright/amp/stochastic_round_cpu.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;
constexpr const char* kRoundName = "stochastic_round_";
constexpr int64_t kRoundGrain = 1 << 11;  // blocks of 8 that a thread should have

void round_cpu(at::TensorList outputs, at::TensorList inputs, const Tensor& rng_state) {
  check_stochastic_round(outputs, inputs, rng_state);
  const RoundedPairs pairs = rounded_pairs(outputs, inputs);
  const Tensor state = rng_state.contiguous();
  const auto* words = state.const_data_ptr<int64_t>();
  for (size_t t = 0; t < pairs.outputs.size(); ++t) {
    const int64_t count = pairs.outputs[t].numel();
    const StochasticRoundParams params{pairs.inputs[t].const_data_ptr<float>(),
                                       pairs.outputs[t].mutable_data_ptr<at::BFloat16>(),
                                       count,
                                       uint32_t(t),
                                       uint64_t(words[0]),
                                       uint64_t(words[1])};
    at::parallel_for(0, (count + 7) / 8, kRoundGrain,
                     [&](int64_t begin, int64_t end) { stochastic_blocks(params, begin, end); });
  }
  store_rounded(outputs, pairs);
}

void round_autograd(at::TensorList outputs, at::TensorList inputs, const Tensor& rng_state) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    check_no_grad(kRoundName, place_in("outputs", i), outputs[i]);
  }
  at::AutoDispatchBelowAutograd guard;
  stochastic_round_(outputs, inputs, rng_state);
}

void round_bumping_versions(at::TensorList outputs, at::TensorList inputs,
                            const Tensor& rng_state) {
  for (const Tensor& output : outputs) check_changeable(kRoundName, output);
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    stochastic_round_(outputs, inputs, rng_state);
  }
  for (const Tensor& output : outputs) torch::autograd::increment_version(output);
}

}  // namespace

void check_stochastic_round(at::TensorList outputs, at::TensorList inputs,
                            const Tensor& rng_state) {
  check_given(kRoundName, "rng_state", rng_state);
  TILEWRIGHT_CHECK(
      kRoundName,
      rng_state.scalar_type() == at::kLong && rng_state.dim() == 1 && rng_state.sym_size(0) == 2,
      "rng_state must be int64 of shape (2,), got ", rng_state.scalar_type(), " of ",
      shape_of(rng_state));
  TILEWRIGHT_CHECK(kRoundName, outputs.size() == inputs.size(), "as many outputs as inputs, got ",
                   outputs.size(), " and ", inputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto check = [&](const std::string& name, const Tensor& tensor, at::ScalarType dtype) {
      check_given(kRoundName, name.c_str(), tensor);
      TILEWRIGHT_CHECK(kRoundName, tensor.scalar_type() == dtype, name, " must be of ", dtype,
                       ", got ", tensor.scalar_type());
      TILEWRIGHT_CHECK(kRoundName, tensor.device() == rng_state.device(), name,
                       " must be on the device of rng_state (", rng_state.device(), "), got ",
                       tensor.device());
    };
    check(place_in("outputs", i), outputs[i], at::kBFloat16);
    check(place_in("inputs", i), inputs[i], at::kFloat);
    TILEWRIGHT_CHECK(kRoundName, outputs[i].sym_sizes().equals(inputs[i].sym_sizes()),
                     place_in("outputs", i), " must have the shape of ", place_in("inputs", i),
                     ", ", shape_of(inputs[i]), ", got ", shape_of(outputs[i]));
  }
}

RoundedPairs rounded_pairs(at::TensorList outputs, at::TensorList inputs) {
  check_apart(kRoundName, "outputs", outputs);
  RoundedPairs pairs;
  for (size_t i = 0; i < outputs.size(); ++i) {
    pairs.inputs.push_back(inputs[i].contiguous());
    pairs.outputs.push_back(outputs[i].is_contiguous()
                                ? outputs[i]
                                : at::empty(outputs[i].sizes(), outputs[i].options()));
  }
  return pairs;
}

void store_rounded(at::TensorList outputs, const RoundedPairs& pairs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].is_same(pairs.outputs[i])) outputs[i].copy_(pairs.outputs[i]);
  }
}

void stochastic_round_(at::TensorList outputs, at::TensorList inputs, const Tensor& rng_state) {
  static const auto op =
      operator_handle<decltype(stochastic_round_)>("tilewright::stochastic_round_");
  op.call(outputs, inputs, rng_state);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("stochastic_round_(Tensor(a!)[] outputs, Tensor[] inputs, Tensor rng_state) -> ()",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) { m.impl("stochastic_round_", &round_autograd); }
TORCH_LIBRARY_IMPL(tilewright, ADInplaceOrView, m) {
  m.impl("stochastic_round_", &round_bumping_versions);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("stochastic_round_", &check_stochastic_round); }
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("stochastic_round_", &round_cpu); }

}  // namespace tilewright
