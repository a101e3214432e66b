// Python's view of the C++ models: construction by keywords, lists and dicts in and out.
#include <torch/extension.h>

#include "tilewright/core/check.h"
#include "tilewright/models/checkpoint.h"
#include "tilewright/models/faster_rcnn.h"
#include "tilewright/python/bind.h"
#include "tilewright/python/module_interface.h"

namespace tilewright {
namespace {

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
  model.def(
      "fold_batch_norm",
      [](std::shared_ptr<FasterRCNNImpl> m) {
        m->fold_batch_norm();
        return m;
      },
      "For inference, in evaluation mode: writes batch norms into the convolutions before "
      "them. The model cannot train afterwards.");
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
