// Python's view of the C++ models that learn without labels, and of their options.
#include <torch/extension.h>

#include <string>

#include "tilewright/models/augmentation_options.h"
#include "tilewright/models/cpc.h"
#include "tilewright/models/simclr.h"
#include "tilewright/python/bind.h"
#include "tilewright/python/keyword_options.h"
#include "tilewright/python/module_interface.h"

namespace tilewright {
namespace {

using torch::Tensor;

AugmentationOptions augmentation(const std::string& recipe, const py::kwargs& keywords) {
  AugmentationOptions options(recipe);
  set_options(options, keywords);
  return options;
}

// The class, with what both models have, and the function by which its twin checks options.
template <class Model, class Options>
py::class_<Model, std::shared_ptr<Model>> bind_one(py::module_& m, const char* name,
                                                   const char* doc, const char* options_name) {
  const auto options_of = [](const py::kwargs& keywords) {
    Options options;
    set_options(options, keywords);
    return options;
  };
  py::class_<Model, std::shared_ptr<Model>> model(m, name, doc);
  model
      .def(py::init([options_of](const py::kwargs& keywords) {
        return std::make_shared<Model>(options_of(keywords));
      }))
      .def("represent", &Model::represent, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("options",
                             [](const Model& self) { return dict_of_options(self.options()); });
  bind_module_interface(model);
  m.def(
      options_name,
      [options_of](const py::kwargs& keywords) {
        const auto options = options_of(keywords);
        check_options(options);
        return dict_of_options(options);
      },
      "All options of the model, as a dict; raises where one is of the wrong type or value, and "
      "names it.");
  return model;
}

}  // namespace

void bind_self_supervised(py::module_& m) {
  const auto free = py::call_guard<py::gil_scoped_release>();
  auto simclr = bind_one<SimCLRImpl, SimCLROptions>(
      m, "SimCLR",
      "SimCLR(**options) implemented in C++ (tilewright/models/simclr.h): called with two views of "
      "images, the loss. The options are described in tilewright/models/simclr_options.h.",
      "simclr_options");
  simclr.def("project", &SimCLRImpl::project, free);
  auto cpc = bind_one<CPCImpl, CPCOptions>(
      m, "CPC",
      "CPC(**options) implemented in C++ (tilewright/models/cpc.h): called with images or "
      "sequences, the loss. The options are described in tilewright/models/cpc_options.h.",
      "cpc_options");
  cpc.def("encode", &CPCImpl::encode, free).def("contexts", &CPCImpl::contexts, free);
  for (const char* name : {"forward", "__call__"}) {
    simclr.def(name, &SimCLRImpl::forward, py::arg("first"), py::arg("second"), free);
    cpc.def(name, &CPCImpl::forward, py::arg("x"), free);
  }
  m.def(
      "augmentation_options",
      [](const std::string& recipe, const py::kwargs& keywords) {
        const auto options = augmentation(recipe, keywords);
        check_options(options);
        return dict_of_options(options);
      },
      py::arg("recipe") = "digits",
      "All options of a recipe of augmentations, as a dict; raises where one is of the wrong type "
      "or value, and names it.");
  m.def(
      "augment",
      [](const Tensor& images, const std::string& recipe, const py::kwargs& keywords) {
        const auto options = augmentation(recipe, keywords);
        const py::gil_scoped_release no_gil;
        return augment(images, options);
      },
      py::arg("images"), py::arg("recipe") = "digits",
      "What tilewright::augment makes of images (tilewright/models/augmentation_options.h).");
}

}  // namespace tilewright
