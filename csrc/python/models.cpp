// Python's view of the C++ models: construction by keywords, lists and dicts in and out.
#include <torch/extension.h>

#include "tilewright/core/check.h"
#include "tilewright/models/checkpoint.h"
#include "tilewright/models/faster_rcnn.h"
#include "tilewright/models/layout.h"
#include "tilewright/models/state.h"
#include "tilewright/python/bind.h"

namespace tilewright {
namespace {

namespace py = pybind11;

// Each option of FasterRCNNOptions that a keyword sets: name, reader, writer.
template <class Visit>
void visit_options(FasterRCNNOptions& options, Visit&& visit) {
  visit("min_size", options.min_size());
  visit("max_size", options.max_size());
  visit("image_mean", options.image_mean());
  visit("image_std", options.image_std());
  visit("resnet_depth", options.resnet_depth());
  visit("frozen_batch_norm", options.frozen_batch_norm());
  visit("batch_norm_eps", options.batch_norm_eps());
  visit("trainable_backbone_layers", options.trainable_backbone_layers());
  visit("feature_level", options.feature_level());
  visit("fpn_channels", options.fpn_channels());
  visit("representation_size", options.representation_size());
  visit("anchor_sizes", options.anchor_sizes());
  visit("aspect_ratios", options.aspect_ratios());
  visit("rpn_pre_nms_top_n_train", options.rpn_pre_nms_top_n_train());
  visit("rpn_pre_nms_top_n_test", options.rpn_pre_nms_top_n_test());
  visit("rpn_post_nms_top_n_train", options.rpn_post_nms_top_n_train());
  visit("rpn_post_nms_top_n_test", options.rpn_post_nms_top_n_test());
  visit("rpn_nms_thresh", options.rpn_nms_thresh());
  visit("rpn_fg_iou_thresh", options.rpn_fg_iou_thresh());
  visit("rpn_bg_iou_thresh", options.rpn_bg_iou_thresh());
  visit("rpn_batch_size_per_image", options.rpn_batch_size_per_image());
  visit("rpn_positive_fraction", options.rpn_positive_fraction());
  visit("rpn_score_thresh", options.rpn_score_thresh());
  visit("box_score_thresh", options.box_score_thresh());
  visit("box_nms_thresh", options.box_nms_thresh());
  visit("box_detections_per_img", options.box_detections_per_img());
  visit("box_fg_iou_thresh", options.box_fg_iou_thresh());
  visit("box_bg_iou_thresh", options.box_bg_iou_thresh());
  visit("box_batch_size_per_image", options.box_batch_size_per_image());
  visit("box_positive_fraction", options.box_positive_fraction());
  visit("bbox_reg_weights", options.bbox_reg_weights());
}

FasterRCNNOptions options_from(int64_t num_classes, const py::kwargs& keywords) {
  FasterRCNNOptions options(num_classes);
  size_t used = 0;
  visit_options(options, [&](const char* name, auto& value) {
    if (!keywords.contains(name)) return;
    try {
      value = keywords[name].template cast<std::decay_t<decltype(value)>>();
    } catch (const py::cast_error&) {
      throw py::type_error(std::string("tilewright::FasterRCNN: ") + name +
                           " has the wrong type: " + py::repr(keywords[name]).cast<std::string>());
    }
    ++used;
  });
  if (used == keywords.size()) return options;
  py::set unknown(keywords);
  visit_options(options, [&](const char* name, auto&) { unknown.attr("discard")(name); });
  throw py::type_error("tilewright::FasterRCNN: unknown options " +
                       py::repr(unknown).cast<std::string>());
}

py::dict options_of(const FasterRCNNImpl& model) {
  auto options = model.options();
  py::dict out;
  out["num_classes"] = options.num_classes();
  visit_options(options, [&](const char* name, auto& value) { out[name] = value; });
  return out;
}

std::optional<std::vector<DetectionTarget>> targets_from(
    const std::optional<std::vector<py::dict>>& dicts) {
  if (!dicts) return std::nullopt;
  std::vector<DetectionTarget> targets;
  for (size_t i = 0; i < dicts->size(); ++i) {
    const auto tensor = [&](const char* key) {
      const py::dict& dict = (*dicts)[i];  // it may hold more, of any type
      TILEWRIGHT_CHECK("FasterRCNN", dict.contains(key), "targets[", i,
                       "] must have boxes and labels");
      const py::object value = dict[key];
      TORCH_CHECK_TYPE(THPVariable_Check(value.ptr()), "tilewright::FasterRCNN: targets[", i, "][",
                       key, "] must be a tensor, got ", std::string(py::str(py::type::of(value))));
      return value.cast<torch::Tensor>();
    };
    targets.push_back({tensor("boxes"), tensor("labels")});
  }
  return targets;
}

py::dict dict_of(const torch::OrderedDict<std::string, torch::Tensor>& named) {
  py::dict out;
  for (const auto& item : named) out[py::str(item.key())] = item.value();
  return out;
}

py::tuple forward(FasterRCNNImpl& model, const std::vector<torch::Tensor>& images,
                  const std::optional<std::vector<py::dict>>& targets) {
  DetectionOutput output;
  {
    const auto given = targets_from(targets);
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

StateDict state_from(const py::dict& tensors) {
  StateDict state;
  for (const auto& [key, value] : tensors) {
    const auto name = py::str(key).cast<std::string>();
    TORCH_CHECK_TYPE(THPVariable_Check(value.ptr()), "tilewright::load_state_dict: entry ", name,
                     " must be a tensor, got ", std::string(py::str(py::type::of(value))),
                     " (of a checkpoint with more than weights, take the dict of weights)");
    state.insert(name, value.cast<torch::Tensor>());
  }
  return state;
}

torch::Device device_from(const py::object& device) {
  return py::isinstance<py::str>(device) ? torch::Device(device.cast<std::string>())
                                         : device.cast<torch::Device>();
}

at::ScalarType dtype_from(const py::object& dtype) {
  TORCH_CHECK_TYPE(THPDtype_Check(dtype.ptr()), "dtype must be a torch.dtype, got ",
                   std::string(py::str(py::type::of(dtype))));
  return reinterpret_cast<THPDtype*>(dtype.ptr())->scalar_type;
}

at::MemoryFormat format_from(const py::object& format) {
  TORCH_CHECK_TYPE(THPMemoryFormat_Check(format.ptr()),
                   "memory_format must be a torch.memory_format, got ",
                   std::string(py::str(py::type::of(format))));
  return reinterpret_cast<THPMemoryFormat*>(format.ptr())->memory_format;
}

// Module::to would turn the integer buffers of batch norm into floating ones.
void convert_floating(FasterRCNNImpl& model, torch::ScalarType dtype) {
  const auto convert = [dtype](torch::Tensor tensor) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(dtype));
  };
  for (const auto& parameter : model.parameters()) convert(parameter);
  for (const auto& buffer : model.buffers()) convert(buffer);
}

void bind_module_interface(py::class_<FasterRCNNImpl, std::shared_ptr<FasterRCNNImpl>>& model) {
  using Model = FasterRCNNImpl;
  model.def("parameters", [](const Model& m) { return m.parameters(); })
      .def("named_parameters", [](const Model& m) { return m.named_parameters().pairs(); })
      .def("named_buffers", [](const Model& m) { return m.named_buffers().pairs(); })
      .def(
          "state_dict", [](const Model& m) { return dict_of(state_dict(m)); },
          "Parameters and buffers under torchvision's names, detached; they share memory with the "
          "model.")
      .def(
          "load_state_dict",
          [](Model& m, const py::dict& tensors) { load_state_dict(m, state_from(tensors)); },
          py::arg("state_dict"), "Copies the values in; every key and shape must match.")
      .def(
          "save", [](const Model& m, const std::string& path) { save_module(m, path); },
          py::arg("path"), "Writes a torch archive, which tilewright::load_module reads in C++.")
      .def(
          "load",
          [](std::shared_ptr<Model> m, const py::object& path) {
            // Python's reader knows one format more: an OrderedDict that torch.save wrote.
            const auto tensors = py::module_::import("tilewright.models.checkpoint")
                                     .attr("read_checkpoint")(path, "load_module")
                                     .cast<py::dict>();
            load_state_dict(*m, state_from(tensors), py::str(path));
            return m;
          },
          py::arg("path"),
          "Loads what save, torch.jit.save or torch.save(state_dict) wrote; an error names the "
          "file and the keys, and nothing was written then.")
      .def(
          "train",
          [](std::shared_ptr<Model> m, bool mode) {
            m->train(mode);
            return m;
          },
          py::arg("mode") = true)
      .def("eval",
           [](std::shared_ptr<Model> m) {
             m->eval();
             return m;
           })
      .def("zero_grad", [](Model& m) { m.zero_grad(); })
      .def_property_readonly("training", [](const Model& m) { return m.is_training(); })
      .def(
          "to",
          [](std::shared_ptr<Model> m, const py::object& device, const py::object& dtype,
             const py::object& memory_format) {
            // As torch.nn.Module.to: a dtype may come first.
            const bool only_dtype = THPDtype_Check(device.ptr());
            if (!device.is_none() && !only_dtype) m->to(device_from(device));
            if (only_dtype) convert_floating(*m, dtype_from(device));
            if (!dtype.is_none()) convert_floating(*m, dtype_from(dtype));
            if (!memory_format.is_none()) set_memory_format(*m, format_from(memory_format));
            return m;
          },
          py::arg("device") = py::none(), py::arg("dtype") = py::none(),
          py::arg("memory_format") = py::none(),
          "Moves all parameters and buffers to `device` (a string will do), converts the floating "
          "ones to `dtype`, and lays out weights as `memory_format`; to(dtype) alone works too.")
      .def(
          "fold_batch_norm",
          [](std::shared_ptr<Model> m) {
            m->fold_batch_norm();
            return m;
          },
          "For inference, in evaluation mode: writes batch norms into the convolutions before "
          "them. The model cannot train afterwards.");
}

}  // namespace

void bind_models(py::module_& m) {
  py::class_<FasterRCNNImpl, std::shared_ptr<FasterRCNNImpl>> model(
      m, "FasterRCNN",
      "Faster R-CNN with a ResNet, implemented in C++.\n\n"
      "FasterRCNN(num_classes, **options): num_classes counts the background. The options are "
      "those of torchvision's FasterRCNN, described in tilewright/models/faster_rcnn_options.h; "
      "the attribute `options` shows their values.");
  model
      .def(py::init([](int64_t num_classes, const py::kwargs& keywords) {
             return std::make_shared<FasterRCNNImpl>(options_from(num_classes, keywords));
           }),
           py::arg("num_classes"))
      .def(
          "forward", &forward, py::arg("images"), py::arg("targets") = py::none(),
          "(losses, detections): a dict of scalars in training mode, a list of dicts with boxes, "
          "labels and scores in evaluation mode. images: a list of (3, H, W) in [0, 1]; targets: a "
          "list of dicts with boxes (G, 4) and labels (G,), needed in training mode.")
      .def("__call__", &forward, py::arg("images"), py::arg("targets") = py::none())
      .def_property_readonly("options", &options_of);
  bind_module_interface(model);
  m.def(
      "check_detector_options",
      [](int64_t num_classes, const py::kwargs& keywords) {
        check_options(options_from(num_classes, keywords));
      },
      py::arg("num_classes"),
      "Raises where an option of FasterRCNN is of the wrong type or value, and names it.");
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
