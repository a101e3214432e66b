// Python's view of gradient boosting in C++.
#include <torch/extension.h>

#include <pybind11/functional.h>

#include "tilewright/python/bind.h"
#include "tilewright/python/options.h"
#include "tilewright/trees/booster_options.h"
#include "tilewright/trees/linear_booster.h"

namespace tilewright {

namespace {

using trees::Booster;
using trees::BoosterOptions;

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
  if (a.category_ptr.defined()) {
    out["category_ptr"] = a.category_ptr;
    out["categories"] = a.categories;
  }
  return out;
}

// The arrays of a fitted or loaded estimator.
trees::StartingModel start_of(const py::dict& arrays, const at::Tensor& base_score) {
  const auto at = [&](const char* name) {
    return arrays.contains(name) ? arrays[name].cast<at::Tensor>() : at::Tensor();
  };
  trees::EnsembleArrays a{at("feature"),      at("threshold"), at("left"),     at("right"),
                          at("default_left"), at("value"),     at("tree_ptr"), at("tree_output")};
  a.gain = at("gain");
  a.cover = at("cover");
  a.num_outputs = base_score.numel();
  a.category_ptr = at("category_ptr");
  a.categories = at("categories");
  return {a, base_score};
}

using OptionalTensor = std::optional<at::Tensor>;
using GivenSet = std::tuple<at::Tensor, at::Tensor, OptionalTensor, OptionalTensor>;

trees::Dataset dataset_of(const GivenSet& set) {
  const auto& [x, y, weight, group] = set;
  return {x, y, weight.value_or(at::Tensor()), group.value_or(at::Tensor())};
}

// A Python function that is let go with the interpreter's lock.
std::shared_ptr<py::object> held(const py::object& function) {
  return {new py::object(function), [](py::object* object) {
            const py::gil_scoped_acquire gil;
            delete object;
          }};
}

// A Python function as a loss; the booster calls it without the interpreter's lock.
trees::CustomObjective::Loss locked(const py::object& loss) {
  return [call = held(loss)](const at::Tensor& scores, const at::Tensor& labels) {
    const py::gil_scoped_acquire gil;
    return (*call)(scores, labels).cast<at::Tensor>();
  };
}

// A name, or (name, function of labels and predictions, whether greater is better); of one column,
// of one output, they are (N,).
trees::Metric metric_of(const py::object& given, bool exp_gain) {
  if (py::isinstance<py::str>(given))
    return trees::make_metric(given.cast<std::string>(), exp_gain);
  const auto [name, function, greater] = given.cast<std::tuple<std::string, py::object, bool>>();
  const auto call = held(function);
  return {name, greater,
          [call](const at::Tensor&, const at::Tensor& predictions, const trees::Targets& targets) {
            const py::gil_scoped_acquire gil;
            const bool one = predictions.size(1) == 1;
            const at::Tensor labels = targets.labels;
            return (*call)(labels.dim() == 2 ? labels.t() : labels,
                           one ? predictions.squeeze(1) : predictions)
                .cast<double>();
          }};
}

trees::FitOptions fit_options(const std::vector<GivenSet>& evaluation, const py::list& metrics,
                              bool exp_gain, const py::object& start,
                              const trees::RoundCallback& after_round) {
  trees::FitOptions how;
  for (const GivenSet& set : evaluation) how.evaluation.push_back(dataset_of(set));
  for (const auto& metric : metrics) {
    how.metrics.push_back(metric_of(py::reinterpret_borrow<py::object>(metric), exp_gain));
  }
  if (!start.is_none()) {
    const auto [arrays, base_score] = start.cast<std::tuple<py::dict, at::Tensor>>();
    how.start = start_of(arrays, base_score);
  }
  how.after_round = [after_round](int64_t round, const at::Tensor& scores) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();  // Ctrl-C
    return after_round && after_round(round, scores);
  };
  return how;
}

// The constructor, fit and what it leaves: the same for trees and linear models.
template <class Model>
py::class_<Model, std::shared_ptr<Model>> bind_model(py::module_& m, const char* name,
                                                     const char* doc) {
  py::class_<Model, std::shared_ptr<Model>> model(m, name, doc);
  model
      .def(py::init([](const py::dict& o, const py::object& loss, int64_t outputs, double bound) {
             std::shared_ptr<trees::Objective> objective;
             if (!loss.is_none()) {
               objective = std::make_shared<trees::CustomObjective>(locked(loss), outputs, bound);
             }
             return std::make_shared<Model>(options_from<BoosterOptions>(o, "Booster"), objective);
           }),
           py::arg("options"), py::arg("loss") = py::none(), py::arg("outputs") = 1,
           py::arg("hessian_bound") = 0.0)
      .def(
          "fit",
          [](Model& self, const at::Tensor& x, const at::Tensor& y, const OptionalTensor& weight,
             const OptionalTensor& group, const std::vector<GivenSet>& evaluation,
             const py::list& metrics, const py::object& start,
             const trees::RoundCallback& after_round) {
            const trees::FitOptions how = fit_options(
                evaluation, metrics, self.options().ranking.exp_gain, start, after_round);
            const py::gil_scoped_release no_gil;
            self.fit(dataset_of({x, y, weight, group}), how);
          },
          py::arg("x"), py::arg("y"), py::arg("weight") = py::none(), py::arg("group") = py::none(),
          py::arg("evaluation") = std::vector<GivenSet>(), py::arg("metrics") = py::list(),
          py::arg("start") = py::none(), py::arg("after_round") = nullptr)
      .def("scores", &Model::scores, py::call_guard<py::gil_scoped_release>())
      .def("predict", &Model::predict, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("base_score", &Model::base_score)
      .def_property_readonly("history", &Model::history)
      .def_property_readonly("metric_names", &Model::metric_names)
      .def_property_readonly("best_round", &Model::best_round);
  return model;
}

}  // namespace

void bind_trees(py::module_& m) {
  bind_model<Booster>(m, "Booster", "Gradient boosting in C++ (tilewright/trees/booster.h).")
      .def_property_readonly("bin_counts", &Booster::bin_counts)
      .def("arrays", &arrays_of);
  bind_model<trees::LinearBooster>(
      m, "LinearBooster", "Boosted linear models in C++ (tilewright/trees/linear_booster.h).")
      .def_property_readonly("weight", &trees::LinearBooster::weight)
      .def_property_readonly("bias", &trees::LinearBooster::bias);
  m.def(
      "lambdarank_gradients",
      [](const at::Tensor& scores, const at::Tensor& labels, const at::Tensor& queries,
         int64_t truncation, bool exp_gain, bool normalize) {
        trees::LambdaRank objective({truncation, exp_gain, normalize});
        objective.set_queries(queries);
        return objective.gradients(scores.unsqueeze(0), labels, {});
      },
      py::arg("scores"), py::arg("labels"), py::arg("queries"), py::arg("truncation"),
      py::arg("exp_gain"), py::arg("normalize"),
      "Gradients and hessians, (1, N), of tilewright/trees/ranking.h.");
  m.def(
      "ndcg",
      [](const at::Tensor& scores, const at::Tensor& labels, const OptionalTensor& weight,
         const at::Tensor& queries, int64_t cut_off, bool exp_gain) {
        return trees::ndcg(scores, {labels, weight.value_or(at::Tensor()), queries}, cut_off,
                           exp_gain);
      },
      py::arg("scores"), py::arg("labels"), py::arg("weight"), py::arg("queries"),
      py::arg("cut_off"), py::arg("exp_gain"),
      "Mean NDCG over queries (tilewright/trees/ranking.h).");
}

}  // namespace tilewright
