// Python's view of gradient boosting in C++.
#include <torch/extension.h>

#include <pybind11/functional.h>

#include "tilewright/python/bind.h"
#include "tilewright/trees/booster.h"

namespace tilewright {

namespace {

using trees::Booster;
using trees::BoosterOptions;

// A dict of options; what is unknown is an error.
BoosterOptions options_from(const py::dict& given) {
  BoosterOptions o;
  for (const auto& [key, value] : given) {
    const auto name = key.cast<std::string>();
    const auto set = [&](auto& field) {
      field = value.template cast<std::decay_t<decltype(field)>>();
      return true;
    };
    TreeRegularisation& rules = o.tree.rules;
    const bool known =
        (name == "objective" && set(o.objective)) || (name == "num_class" && set(o.num_class)) ||
        (name == "objective_param" && set(o.objective_param)) ||
        (name == "n_estimators" && set(o.n_estimators)) ||
        (name == "learning_rate" && set(o.learning_rate)) ||
        (name == "max_bin" && set(o.max_bin)) || (name == "max_depth" && set(o.tree.max_depth)) ||
        (name == "max_leaves" && set(o.tree.max_leaves)) ||
        (name == "loss_guided" && set(o.tree.loss_guided)) ||
        (name == "monotone" && set(o.tree.monotone)) ||
        (name == "categorical" && set(o.tree.categorical)) ||
        (name == "max_cat_to_onehot" && set(o.tree.max_cat_to_onehot)) ||
        (name == "max_cat_threshold" && set(o.tree.max_cat_threshold)) ||
        (name == "reg_lambda" && set(rules.lambda)) || (name == "reg_alpha" && set(rules.alpha)) ||
        (name == "gamma" && set(rules.gamma)) ||
        (name == "min_child_weight" && set(rules.min_child_weight)) ||
        (name == "max_delta_step" && set(rules.max_delta_step)) ||
        (name == "subsample" && set(o.subsample)) ||
        (name == "colsample_bytree" && set(o.tree.colsample_bytree)) ||
        (name == "colsample_bylevel" && set(o.tree.colsample_bylevel)) ||
        (name == "colsample_bynode" && set(o.tree.colsample_bynode)) ||
        (name == "early_stopping_rounds" && set(o.early_stopping_rounds)) ||
        (name == "seed" && set(o.seed));
    TORCH_CHECK(known, "Booster has no option ", name);
  }
  return o;
}

py::dict arrays_of(const Booster& booster) {
  const trees::EnsembleArrays& a = booster.arrays();
  py::dict out;
  out["feature"] = a.feature;
  out["threshold"] = a.threshold;
  out["left"] = a.left;
  out["right"] = a.right;
  out["default_left"] = a.default_left;
  out["value"] = a.value;
  out["tree_ptr"] = a.tree_ptr;
  out["tree_output"] = a.tree_output;
  out["gain"] = a.gain;
  out["cover"] = a.cover;
  if (a.categories.defined()) {
    out["category_ptr"] = a.category_ptr;
    out["categories"] = a.categories;
  }
  return out;
}

// A Python function as a loss; the booster calls it without the interpreter's lock.
trees::CustomObjective::Loss locked(const py::object& loss) {
  const std::shared_ptr<py::object> held(new py::object(loss), [](py::object* object) {
    const py::gil_scoped_acquire gil;
    delete object;
  });
  return [held](const at::Tensor& scores, const at::Tensor& labels) {
    const py::gil_scoped_acquire gil;
    return (*held)(scores, labels).cast<at::Tensor>();
  };
}

}  // namespace

void bind_trees(py::module_& m) {
  py::class_<Booster, std::shared_ptr<Booster>>(
      m, "Booster", "Gradient boosting in C++ (tilewright/trees/booster.h).")
      .def(py::init([](const py::dict& o, const py::object& loss, int64_t outputs, double bound) {
             std::shared_ptr<trees::Objective> objective;
             if (!loss.is_none()) {
               objective = std::make_shared<trees::CustomObjective>(locked(loss), outputs, bound);
             }
             return std::make_shared<Booster>(options_from(o), objective);
           }),
           py::arg("options"), py::arg("loss") = py::none(), py::arg("outputs") = 1,
           py::arg("hessian_bound") = 0.0)
      .def(
          "fit",
          [](Booster& self, const at::Tensor& x, const at::Tensor& y,
             const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& eval_x,
             const std::optional<at::Tensor>& eval_y, const trees::RoundCallback& after_round) {
            const auto undefined = [](const std::optional<at::Tensor>& t) {
              return t.value_or(at::Tensor());
            };
            trees::RoundCallback locked;
            if (after_round) {
              locked = [&](int64_t round, const at::Tensor& scores) {
                py::gil_scoped_acquire gil;
                return after_round(round, scores);
              };
            }
            py::gil_scoped_release no_gil;
            self.fit(x, y, undefined(weight), undefined(eval_x), undefined(eval_y), locked);
          },
          py::arg("x"), py::arg("y"), py::arg("weight") = py::none(),
          py::arg("eval_x") = py::none(), py::arg("eval_y") = py::none(),
          py::arg("after_round") = nullptr)
      .def("scores", &Booster::scores, py::call_guard<py::gil_scoped_release>())
      .def("predict", &Booster::predict, py::call_guard<py::gil_scoped_release>())
      .def("arrays", &arrays_of)
      .def_property_readonly("base_score", &Booster::base_score)
      .def_property_readonly("bin_counts", &Booster::bin_counts)
      .def_property_readonly("metrics", &Booster::metrics)
      .def_property_readonly("best_round", &Booster::best_round);
}

}  // namespace tilewright
