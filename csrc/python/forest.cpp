// Python's view of forests and AdaBoost in C++.
#include <torch/extension.h>

#include "tilewright/python/bind.h"
#include "tilewright/python/options.h"
#include "tilewright/trees/forest_options.h"

namespace tilewright {

namespace {

using trees::AdaBoost;
using trees::AdaBoostOptions;
using trees::EnsembleArrays;
using trees::Forest;
using trees::ForestOptions;

py::dict dict_of_arrays(const EnsembleArrays& a) {
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
  return out;
}

EnsembleArrays arrays_from(const py::dict& d) {
  EnsembleArrays a;
  a.feature = d["feature"].cast<at::Tensor>();
  a.threshold = d["threshold"].cast<at::Tensor>();
  a.left = d["left"].cast<at::Tensor>();
  a.right = d["right"].cast<at::Tensor>();
  a.default_left = d["default_left"].cast<at::Tensor>();
  a.value = d["value"].cast<at::Tensor>();
  a.tree_ptr = d["tree_ptr"].cast<at::Tensor>();
  a.tree_output = d["tree_output"].cast<at::Tensor>();
  a.gain = d["gain"].cast<at::Tensor>();
  a.cover = d["cover"].cast<at::Tensor>();
  a.num_outputs = a.value.dim() == 1 ? 1 : a.value.size(1);
  return a;
}

at::Tensor given_or_none(const std::optional<at::Tensor>& tensor) {
  return tensor.value_or(at::Tensor());
}

// What runs after each tree, without the interpreter's lock: a look for Ctrl-C, and a Python
// function where there is one.
trees::TreeCallback locked(const py::object& function) {
  return [&function](int64_t done) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!function.is_none()) function(done);
  };
}

}  // namespace

void bind_forest(py::module_& m) {
  py::class_<Forest, std::shared_ptr<Forest>>(m, "Forest",
                                              "Random forests in C++ (tilewright/trees/forest.h).")
      .def(py::init([](const py::dict& o) {
             return std::make_shared<Forest>(options_from<ForestOptions>(o, "Forest"));
           }),
           py::arg("options"))
      .def(
          "fit",
          [](Forest& self, const at::Tensor& x, const at::Tensor& y,
             const std::optional<at::Tensor>& weight, const py::object& after_tree,
             const std::optional<py::dict>& earlier) {
            EnsembleArrays kept;
            if (earlier.has_value()) kept = arrays_from(*earlier);
            const trees::TreeCallback callback = locked(after_tree);
            const py::gil_scoped_release no_gil;
            self.fit(x, y, given_or_none(weight), callback, earlier.has_value() ? &kept : nullptr);
          },
          py::arg("x"), py::arg("y"), py::arg("weight") = py::none(),
          py::arg("after_tree") = py::none(), py::arg("earlier") = py::none())
      .def(
          "out_of_bag",
          [](const Forest& self, const at::Tensor& x, const std::optional<at::Tensor>& weight) {
            return self.out_of_bag(x, given_or_none(weight));
          },
          py::arg("x"), py::arg("weight") = py::none(), py::call_guard<py::gil_scoped_release>())
      .def("arrays", [](const Forest& self) { return dict_of_arrays(self.arrays()); });
  py::class_<AdaBoost, std::shared_ptr<AdaBoost>>(
      m, "AdaBoost", "AdaBoost over trees in C++ (tilewright/trees/adaboost.h).")
      .def(py::init([](const py::dict& o) {
             return std::make_shared<AdaBoost>(options_from<AdaBoostOptions>(o, "AdaBoost"));
           }),
           py::arg("options"))
      .def(
          "fit",
          [](AdaBoost& self, const at::Tensor& x, const at::Tensor& y,
             const std::optional<at::Tensor>& weight, const py::object& after_tree) {
            const trees::TreeCallback callback = locked(after_tree);
            const py::gil_scoped_release no_gil;
            self.fit(x, y, given_or_none(weight), callback);
          },
          py::arg("x"), py::arg("y"), py::arg("weight") = py::none(),
          py::arg("after_tree") = py::none())
      .def("arrays", [](const AdaBoost& self) { return dict_of_arrays(self.arrays()); })
      .def_property_readonly("base_score", &AdaBoost::base_score)
      .def_property_readonly("overflowed", &AdaBoost::overflowed)
      .def_property_readonly("estimator_weights", &AdaBoost::estimator_weights)
      .def_property_readonly("estimator_errors", &AdaBoost::estimator_errors);
}

}  // namespace tilewright
