#include "tilewright/amp/loss_scaler.h"

#include <ATen/ATen.h>

#include <sstream>

#include "tilewright/amp/fused_optimizers.h"
#include "tilewright/amp/optimizer_grads.h"
#include "tilewright/amp/rollback.h"
#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using at::Tensor;
using torch::optim::Optimizer;
constexpr int64_t kOfOptimizer = int64_t(1) << 32;  // numbers of parameters: the optimizer's times
                                                    // this, and the place in it
constexpr double kClipEps = 1e-6;                   // torch::nn::utils::clip_grad_norm_'s

// Ends an optimizer's step from within its closure.
struct Overflow {};

// Of all parameters in turn, for errors: the optimizer may be gone by then.
std::vector<std::string> names_of(const Optimizer& optimizer) {
  std::vector<std::string> names;
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) {
    const auto& parameters = optimizer.param_groups()[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      std::ostringstream name;
      name << "parameter " << i << " of param_groups()[" << g << "], of shape "
           << shape_of(parameters[i]) << ",";
      names.push_back(name.str());
    }
  }
  return names;
}

const void* first_parameter(const Optimizer& optimizer) {
  for (const auto& group : optimizer.param_groups()) {
    if (!group.params().empty()) return group.params()[0].unsafeGetTensorImpl();
  }
  return nullptr;
}

// Tells a fused optimizer of its next step, and of none after that, whatever happens in it.
class AmpOfStep {
 public:
  AmpOfStep(FusedStep& step, const Tensor& found_inf, const Tensor& divisor) : step_(step) {
    step_.set_amp(found_inf, divisor);
  }
  ~AmpOfStep() { step_.set_amp({}, {}); }

 private:
  FusedStep& step_;
};

}  // namespace

LossScaler::LossScaler(const LossScaleOptions& options, Share share)
    : scale_(options), share_(std::move(share)) {}

std::vector<Tensor> LossScaler::scale(at::TensorList losses) {
  std::vector<Tensor> scaled;
  for (const Tensor& loss : losses) scaled.push_back(scale(loss));
  return scaled;
}

LossScaler::OfOptimizer& LossScaler::of(const Optimizer& optimizer) {
  const auto [found, is_new] =
      optimizers_.try_emplace(&optimizer, OfOptimizer{int64_t(optimizers_.size())});
  return found->second;
}

Tensor LossScaler::unscale(Optimizer& optimizer, bool norm, bool write) {
  OfOptimizer& state = of(optimizer);
  TILEWRIGHT_CHECK(kLossScaler, state.stage != Stage::kUnscaled,
                   "unscale_() has already been called on this optimizer since the last update()");
  TILEWRIGHT_CHECK(kLossScaler, state.stage != Stage::kStepped,
                   "unscale_() is being called after step()");
  Tensor inverse = scale_.inverse();
  // The optimizer divides by the scale, which may round up where a product rounds down.
  if (!write) inverse = inverse * (1 + 0x1p-20);
  const OptimizerGrads grads(optimizer);
  if (const void* first = first_parameter(optimizer);
      state.names.size() != grads.parameters() || state.named != first) {
    state.names = names_of(optimizer);
    state.named = first;
  }
  Tensor found_norm;
  state.found = grads.unscale(inverse, norm ? &found_norm : nullptr, write);
  state.stage = Stage::kUnscaled;
  return found_norm;
}

void LossScaler::unscale_(Optimizer& optimizer) {
  if (scale_.options().enabled) unscale(optimizer, false, true);
}

Tensor LossScaler::unscale_and_clip_(Optimizer& optimizer, double max_norm) {
  TILEWRIGHT_CHECK(kLossScaler, max_norm > 0, "max_norm must be positive, got ", max_norm);
  Tensor norm;
  const bool enabled = scale_.options().enabled;
  if (enabled) {
    norm = unscale(optimizer, true, true);
  } else {
    const auto& parameters = optimizer.parameters();
    const auto device = parameters.empty() ? c10::Device(c10::kCPU) : parameters[0].device();
    OptimizerGrads(optimizer).unscale(at::ones({1}, at::TensorOptions().device(device)), &norm,
                                      true);
  }
  const Tensor factor = (max_norm / (norm + kClipEps)).clamp_max(1);
  if (enabled) {  // a norm beyond its dtype counts as infinite gradients do
    const Tensor beyond = norm.isfinite().logical_not().to(at::kFloat).view({1});
    FoundInf& found = *of(optimizer).found;
    found.found = at::maximum(found.found, beyond);
  }
  if (enabled && dynamic_cast<FusedStep*>(&optimizer) != nullptr) {
    of(optimizer).divisor = factor.reciprocal().to(at::kFloat).view({1});
  } else {
    OptimizerGrads(optimizer).multiply(factor);
  }
  return norm;
}

void LossScaler::share(OfOptimizer& state) {
  if (share_ == nullptr || state.shared) return;
  share_(state.found->found);
  state.found->found = state.found->found.ne(0).to(at::kFloat);  // ATen's kernels ask for 1
  const Tensor& first = state.found->first;
  const Tensor elsewhere = state.found->found.gt(0).logical_and(first.eq(FoundInf::kNowhere));
  state.found->first = first.masked_fill(elsewhere, FoundInf::kElsewhere);
  state.shared = true;
}

Tensor LossScaler::step(Optimizer& optimizer, Optimizer::LossClosure closure) {
  if (!scale_.options().enabled) return optimizer.step(closure);
  OfOptimizer& state = of(optimizer);
  if (closure != nullptr) return step_by_closure(optimizer, state, closure);
  TILEWRIGHT_CHECK(kLossScaler, state.stage != Stage::kStepped,
                   "step() has already been called since the last update()");
  auto* const fused = dynamic_cast<FusedStep*>(&optimizer);
  if (state.stage == Stage::kReady) {
    // An optimizer that divides gradients anyway need not find them divided.
    unscale(optimizer, false, fused == nullptr);
    if (fused != nullptr) state.divisor = scale_.number();
  }
  share(state);
  Tensor returned;
  const bool left_out = fused == nullptr && state.found->found.item<float>() != 0;
  if (fused != nullptr) {
    const AmpOfStep amp(*fused, state.found->found, state.divisor);
    returned = optimizer.step();
  } else if (!left_out) {
    returned = optimizer.step();
  }
  state.stage = Stage::kStepped;  // not where the optimizer threw: its step may be tried again
  if (left_out) raise_where_stuck(&state);
  return returned;
}

Tensor LossScaler::step_by_closure(Optimizer& optimizer, OfOptimizer& state,
                                   const Optimizer::LossClosure& closure) {
  TILEWRIGHT_CHECK(kLossScaler, state.stage == Stage::kReady,
                   "step() with a closure comes once after update(), and unscales by itself");
  Rollback rollback(optimizer);
  const auto evaluated = [&] {
    const Tensor loss = [&] {
      const at::AutoGradMode grad(true);
      return closure();
    }();
    state.begin_again();
    unscale(optimizer, false, true);
    share(state);
    if (state.found->found.item<float>() != 0) throw Overflow();
    return loss;
  };
  Tensor returned;
  try {
    returned = optimizer.step(evaluated);
  } catch (const Overflow&) {
  } catch (...) {
    state.begin_again();
    throw;
  }
  state.stage = Stage::kStepped;
  // Asked again: the optimizer may have gone on after what its closure threw.
  if (!state.found || state.found->found.item<float>() == 0) return returned;
  rollback.undo();
  raise_where_stuck(&state);
  return {};
}

void LossScaler::update(std::optional<double> scale) {
  if (!scale_.options().enabled) return;
  if (scale) {
    scale_.set(*scale);
  } else {
    std::optional<FoundInf> all;
    for (auto& [optimizer, state] : optimizers_) {
      if (!state.found) continue;
      share(state);
      const Tensor& first = state.found->first;
      const FoundInf numbered(state.found->found, at::where(first.ge(FoundInf::kElsewhere), first,
                                                            first + state.number * kOfOptimizer));
      all ? all->join(numbered) : void(all = numbered);
    }
    TILEWRIGHT_CHECK(kLossScaler, all.has_value(),
                     "update() comes after step() or unscale_(): no gradient has been looked at "
                     "since the last update()");
    scale_.update(*all);
  }
  for (auto& [optimizer, state] : optimizers_) state.begin_again();
}

double LossScaler::get_scale() {
  raise_where_stuck(nullptr);
  return scale_.read();
}

void LossScaler::raise_where_stuck(OfOptimizer* state) {
  std::string name = "a parameter of another rank, or of all together,";
  const auto named = [&](const OfOptimizer& of_known, int64_t place) {
    if (place < int64_t(of_known.names.size())) name = of_known.names[size_t(place)];
  };
  if (state != nullptr) {
    if (!scale_.gives_up()) return;
    named(*state, state->found->first.item<int64_t>());
    state->found->first.fill_(FoundInf::kNowhere);  // what update() would say once more
  } else {
    const int64_t number = scale_.read_stuck();
    if (number == FoundInf::kNowhere) return;
    for (const auto& [known, of_known] : optimizers_) {
      if (of_known.number == number / kOfOptimizer) named(of_known, number % kOfOptimizer);
    }
  }
  std::ostringstream message;
  message << "tilewright::LossScaler: the loss scale is at its floor, "
          << scale_.options().min_scale << ", and the gradient of " << name
          << " is still inf or NaN: not the scale, but the loss, the input or the parameters make "
             "it so";
  throw LossScaleError(message.str());
}

void LossScaler::save(torch::serialize::OutputArchive& archive) const {
  const LossScaleState s = state();
  archive.write("scale", c10::IValue(s.scale));
  archive.write("growth_tracker", c10::IValue(s.growth_tracker));
  archive.write("hysteresis_left", c10::IValue(s.hysteresis_left));
}

void LossScaler::load(torch::serialize::InputArchive& archive) {
  c10::IValue scale, growth_tracker, hysteresis_left;
  archive.read("scale", scale);
  archive.read("growth_tracker", growth_tracker);
  archive.read("hysteresis_left", hysteresis_left);
  load({scale.toDouble(), growth_tracker.toInt(), hysteresis_left.toInt()});
}

}  // namespace tilewright
