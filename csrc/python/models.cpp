// Python's view of the C++ models: construction by keywords, lists and dicts in and out.
#include <torch/extension.h>

#include "tilewright/core/check.h"
#include "tilewright/models/checkpoint.h"
#include "tilewright/models/faster_rcnn.h"
#include "tilewright/models/rfcn.h"
#include "tilewright/python/bind.h"
#include "tilewright/python/keyword_options.h"
#include "tilewright/python/module_interface.h"

namespace tilewright {
namespace {

template <class Options>
Options options_from(int64_t num_classes, const py::kwargs& keywords) {
  Options options(num_classes);
  set_options(options, keywords);
  return options;
}

template <class Options>
py::dict dict_with_classes(const Options& options) {
  py::dict out = dict_of_options(options);
  out["num_classes"] = options.num_classes();
  return out;
}

std::optional<std::vector<DetectionTarget>> targets_from(
    const char* model, const std::optional<std::vector<py::dict>>& dicts) {
  if (!dicts) return std::nullopt;
  std::vector<DetectionTarget> targets;
  for (size_t i = 0; i < dicts->size(); ++i) {
    const auto tensor = [&](const char* key) {
      const py::dict& dict = (*dicts)[i];  // it may hold more, of any type
      TILEWRIGHT_CHECK(model, dict.contains(key), "targets[", i, "] must have boxes and labels");
      const py::object value = dict[key];
      TORCH_CHECK_TYPE(THPVariable_Check(value.ptr()), "tilewright::", model, ": targets[", i, "][",
                       key, "] must be a tensor, got ", std::string(py::str(py::type::of(value))));
      return value.cast<torch::Tensor>();
    };
    targets.push_back({tensor("boxes"), tensor("labels")});
  }
  return targets;
}

template <class Model>
py::tuple detect(Model& model, const std::vector<torch::Tensor>& images,
                 const std::optional<std::vector<py::dict>>& targets) {
  DetectionOutput output;
  {
    const auto given = targets_from(model.options().model(), targets);
    py::gil_scoped_release no_gil;
    output = model.forward(images, given);
  }
  py::list detections;
  for (const auto& detection : output.detections) {
    py::dict one;
    one["boxes"] = detection.boxes;
    one["labels"] = detection.labels;
    one["scores"] = detection.scores;
    detections.append(one);
  }
  return py::make_tuple(dict_of(output.losses), detections);
}

// The class of a detector, and the function by which its twin checks and completes options.
template <class Model, class Options>
void bind_detector(py::module_& m, const char* name, const char* doc, const char* options_name) {
  py::class_<Model, std::shared_ptr<Model>> model(m, name, doc);
  model
      .def(py::init([](int64_t num_classes, const py::kwargs& keywords) {
             return std::make_shared<Model>(options_from<Options>(num_classes, keywords));
           }),
           py::arg("num_classes"))
      .def(
          "forward", &detect<Model>, py::arg("images"), py::arg("targets") = py::none(),
          "(losses, detections): a dict of scalars in training mode, a list of dicts with boxes, "
          "labels and scores in evaluation mode. images: a list of (3, H, W) in [0, 1]; targets: a "
          "list of dicts with boxes (G, 4) and labels (G,), needed in training mode.")
      .def("__call__", &detect<Model>, py::arg("images"), py::arg("targets") = py::none())
      .def_property_readonly(
          "options", [](const Model& self) { return dict_with_classes<Options>(self.options()); });
  bind_module_interface(model);
  model.def(
      "fold_batch_norm",
      [](std::shared_ptr<Model> self) {
        self->fold_batch_norm();
        return self;
      },
      "For inference, in evaluation mode: writes batch norms into the convolutions before "
      "them. The model cannot train afterwards.");
  m.def(
      options_name,
      [](int64_t num_classes, const py::kwargs& keywords) {
        const auto options = options_from<Options>(num_classes, keywords);
        check_options(options);
        return dict_with_classes<Options>(options);
      },
      py::arg("num_classes"),
      "All options of the model, as a dict; raises where one is of the wrong type or value, and "
      "names it.");
}

}  // namespace

void bind_models(py::module_& m) {
  bind_detector<FasterRCNNImpl, FasterRCNNOptions>(
      m, "FasterRCNN",
      "Faster R-CNN with a ResNet, implemented in C++.\n\n"
      "FasterRCNN(num_classes, **options): num_classes counts the background. The options are "
      "those of torchvision's FasterRCNN, described in tilewright/models/faster_rcnn_options.h; "
      "the attribute `options` shows their values.",
      "faster_rcnn_options");
  bind_detector<RFCNImpl, RFCNOptions>(
      m, "RFCN",
      "R-FCN with a ResNet, implemented in C++.\n\n"
      "RFCN(num_classes, **options): num_classes counts the background. The options are described "
      "in tilewright/models/rfcn_options.h; the attribute `options` shows their values.",
      "rfcn_options");
  m.def(
      "read_checkpoint",
      [](const std::string& path, const std::string& caller) {
        return dict_of(read_checkpoint(path, caller.c_str()));
      },
      py::arg("path"), py::arg("caller"),
      "The named tensors of a file of weights (tilewright/models/checkpoint.h).");
  m.def(
      "check_state_dict",
      [](const py::dict& own, const py::dict& state, const std::string& source, bool strict) {
        check_state_dict(state_from(own), state_from(state), source, strict);
      },
      py::arg("own"), py::arg("state"), py::arg("source"), py::arg("strict"),
      "Raises where state does not fit own (tilewright/models/state.h).");
}

}  // namespace tilewright
