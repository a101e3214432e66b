// The steps around a head's predictions: proposals are sampled and compared, or become detections.
#include "tilewright/models/box_heads.h"

#include "tilewright/detection/box_coder.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/matcher.h"
#include "tilewright/detection/postprocess.h"
#include "tilewright/detection/sampler.h"
#include "tilewright/models/detection_losses.h"

namespace tilewright {

BoxHeadsImpl::Output BoxHeadsImpl::forward(const std::vector<torch::Tensor>& features,
                                           std::vector<torch::Tensor> proposals,
                                           const std::vector<ImageSize>& image_sizes,
                                           const std::vector<DetectionTarget>& targets) {
  Samples samples;
  if (is_training()) {
    samples = select_samples(proposals, targets);
    proposals = samples.boxes;
  }
  const auto [logits, deltas] = predict(features, boxes_to_rois(proposals));
  Output out;
  if (is_training()) {
    out.losses = losses(logits, deltas, samples);
  } else {
    out.detections = detect(logits, deltas, proposals, image_sizes);
  }
  return out;
}

BoxHeadsImpl::Samples BoxHeadsImpl::select_samples(const std::vector<torch::Tensor>& proposals,
                                                   const std::vector<DetectionTarget>& targets) {
  Samples samples;
  std::vector<torch::Tensor> labels, matched;
  for (size_t i = 0; i < proposals.size(); ++i) {
    const auto truth = targets[i].boxes.to(proposals[i].dtype());
    const auto boxes = torch::cat({proposals[i], truth});  // truths teach from the first step on
    const auto [label, match] =
        assign_targets(truth, targets[i].labels, boxes, options_.box_fg_iou_thresh(),
                       options_.box_bg_iou_thresh());
    const auto [positive, negative] =
        sample_balanced(label, sampling_noise(label), options_.box_batch_size_per_image(),
                        options_.box_positive_fraction());
    const auto sampled = positive.logical_or(negative).nonzero().squeeze(1);
    samples.boxes.push_back(boxes.index_select(0, sampled));
    labels.push_back(label.index_select(0, sampled));
    matched.push_back(match.index_select(0, sampled));
  }
  samples.labels = torch::cat(labels);
  samples.regression =
      encode_boxes(torch::cat(matched), torch::cat(samples.boxes), options_.bbox_reg_weights());
  return samples;
}

NamedLosses BoxHeadsImpl::losses(const torch::Tensor& logits, const torch::Tensor& deltas,
                                 const Samples& samples) {
  const int64_t count = samples.labels.size(0);
  const auto positive = (samples.labels > 0).nonzero().squeeze(1);
  // The row of a box's own class among all (box, class) pairs; where classes share deltas, of the
  // box.
  const auto own_class = deltas.size(1) == 4 ? positive
                                             : positive * options_.num_classes() +
                                                   samples.labels.index_select(0, positive);
  NamedLosses out;
  out.insert("loss_classifier", classification_loss(logits, samples.labels));
  out.insert("loss_box_reg",
             box_regression_loss(deltas.reshape({-1, 4}).index_select(0, own_class),
                                 samples.regression.index_select(0, positive), count));
  return out;
}

std::vector<Detection> BoxHeadsImpl::detect(const torch::Tensor& logits,
                                            const torch::Tensor& deltas,
                                            const std::vector<torch::Tensor>& proposals,
                                            const std::vector<ImageSize>& image_sizes) {
  auto boxes = decode_boxes(deltas, torch::cat(proposals), options_.bbox_reg_weights());
  if (boxes.size(1) == 4) boxes = boxes.repeat({1, options_.num_classes()});
  const auto scores = logits.to(boxes.dtype()).softmax(-1);
  std::vector<Detection> detections;
  int64_t start = 0;
  for (size_t i = 0; i < proposals.size(); ++i) {
    const int64_t count = proposals[i].size(0);
    auto [kept, score, label] = postprocess_detections(
        scores.narrow(0, start, count), boxes.narrow(0, start, count), image_sizes[i].height,
        image_sizes[i].width, options_.box_score_thresh(), options_.box_nms_thresh(),
        options_.box_detections_per_img());
    detections.push_back({kept, label, score});
    start += count;
  }
  return detections;
}

}  // namespace tilewright
