// torch.classes.tilewright.LossScaler: the loss scaler in TorchScript, whose methods cannot take an
// optimizer: they take gradients.
#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include "tilewright/amp/loss_scale.h"
#include "tilewright/amp/unscale.h"
#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using at::Tensor;
using ScriptNumbers = std::vector<double>;
using ScriptState = std::tuple<int64_t, ScriptNumbers, std::optional<double>>;

class LossScalerScript : public torch::CustomClassHolder {
 public:
  explicit LossScalerScript(const LossScaleOptions& options) : scale_(options) {}

  Tensor scale(const Tensor& loss) { return scale_.scaled(loss); }
  void unscale(const std::vector<Tensor>& grads) {
    if (!scale_.options().enabled) return;
    const Tensor inverse = scale_.inverse();
    const FoundInf& so_far = found();
    unscale_(grads, so_far.found, inverse, so_far.first);
  }
  Tensor unscale_and_norm(const std::vector<Tensor>& grads) {
    if (!scale_.options().enabled) {
      const auto device = grads.empty() ? c10::Device(c10::kCPU) : grads[0].device();
      const Tensor one = at::ones({1}, at::TensorOptions().device(device));
      return unscale_and_norm_(grads, at::zeros_like(one), one);
    }
    const Tensor inverse = scale_.inverse();
    const FoundInf& so_far = found();
    return unscale_and_norm_(grads, so_far.found, inverse, so_far.first);
  }
  Tensor found_inf() { return scale_.options().enabled ? found().found : at::zeros({1}); }
  bool should_step() { return !found_ || found_->found.item<float>() == 0; }
  void update() {
    if (!scale_.options().enabled) return;
    TILEWRIGHT_CHECK("LossScaler", found_.has_value(),
                     "update() comes after unscale_(): no gradient has been looked at since the "
                     "last update()");
    scale_.update(*found_);
    found_.reset();
  }
  double get_scale() {
    const int64_t place = scale_.read_stuck();
    TILEWRIGHT_CHECK("LossScaler", place == FoundInf::kNowhere, "the loss scale is at its floor, ",
                     scale_.options().min_scale, ", and grads[", place,
                     "] of unscale_() is still inf or NaN: not the scale, but the loss, the input "
                     "or the parameters make it so");
    return scale_.read();
  }

  c10::Dict<std::string, double> state() const {
    const LossScaleState s = scale_.state();
    c10::Dict<std::string, double> out;
    out.insert("scale", s.scale);
    out.insert("_growth_tracker", double(s.growth_tracker));
    out.insert("_hysteresis_left", double(s.hysteresis_left));
    return out;
  }
  void load_state(const c10::Dict<std::string, double>& state) {
    for (const char* key : {"scale", "_growth_tracker", "_hysteresis_left"}) {
      TILEWRIGHT_CHECK("LossScaler", state.contains(key), "the state lacks '", key, "'");
    }
    scale_.load({state.at("scale"), int64_t(state.at("_growth_tracker")),
                 int64_t(state.at("_hysteresis_left"))});
  }

  // Versioned: 1 and the numbers below, in this order.
  ScriptState pickled() const {
    const LossScaleOptions& o = scale_.options();
    const LossScaleState s = scale_.state();
    return {1,
            {o.init_scale, o.growth_factor, o.backoff_factor, double(o.growth_interval),
             double(o.enabled), double(o.dynamic), o.min_scale, double(o.hysteresis), s.scale,
             double(s.growth_tracker), double(s.hysteresis_left)},
            o.max_scale};
  }
  static c10::intrusive_ptr<LossScalerScript> unpickled(const ScriptState& state) {
    const auto& [version, n, max_scale] = state;
    TILEWRIGHT_CHECK("LossScaler", version == 1 && n.size() == 11,
                     "a pickle of version 1 with 11 numbers is read, got version ", version,
                     " with ", n.size());
    auto scaler = c10::make_intrusive<LossScalerScript>(LossScaleOptions{
        n[0], n[1], n[2], int64_t(n[3]), n[4] != 0, n[5] != 0, n[6], max_scale, int64_t(n[7])});
    scaler->scale_.load({n[8], int64_t(n[9]), int64_t(n[10])});
    return scaler;
  }

 private:
  FoundInf& found() {
    if (!found_) {
      TILEWRIGHT_CHECK("LossScaler", scale_.begun(),
                       "gradients come after a scaled loss: scale(loss)");
      found_.emplace(scale_.device());
    }
    return *found_;
  }

  LossScale scale_;
  std::optional<FoundInf> found_;
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.class_<LossScalerScript>("LossScaler")
      .def(torch::init([](double init_scale, double growth_factor, double backoff_factor,
                          int64_t growth_interval, bool enabled, bool dynamic, double min_scale,
                          std::optional<double> max_scale, int64_t hysteresis) {
             return c10::make_intrusive<LossScalerScript>(
                 LossScaleOptions{init_scale, growth_factor, backoff_factor, growth_interval,
                                  enabled, dynamic, min_scale, max_scale, hysteresis});
           }),
           "",
           {torch::arg("init_scale") = 65536.0, torch::arg("growth_factor") = 2.0,
            torch::arg("backoff_factor") = 0.5, torch::arg("growth_interval") = 2000,
            torch::arg("enabled") = true, torch::arg("dynamic") = true,
            torch::arg("min_scale") = 0x1p-126, torch::arg("max_scale") = c10::IValue(),
            torch::arg("hysteresis") = 1})
      .def("scale", &LossScalerScript::scale)
      .def("unscale_", &LossScalerScript::unscale)
      .def("unscale_and_norm_", &LossScalerScript::unscale_and_norm)
      .def("found_inf", &LossScalerScript::found_inf)
      .def("should_step", &LossScalerScript::should_step)
      .def("update", &LossScalerScript::update)
      .def("get_scale", &LossScalerScript::get_scale)
      .def("state", &LossScalerScript::state)
      .def("load_state", &LossScalerScript::load_state)
      .def_pickle([](const c10::intrusive_ptr<LossScalerScript>& self) { return self->pickled(); },
                  [](const ScriptState& state) { return LossScalerScript::unpickled(state); });
}

}  // namespace tilewright
