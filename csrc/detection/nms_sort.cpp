// NMS around its kernel, in ATen.
#include "tilewright/detection/nms_sort.h"

#include <ATen/ATen.h>

#include "tilewright/core/check.h"

namespace tilewright {

void check_nms(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
               const std::optional<at::Tensor>& idxs, double iou_threshold, int64_t max_output,
               int64_t columns) {
  check_shape(op, "boxes", boxes, columns == 5 ? "(N, 5)" : "(N, 4)", 2, columns);
  check_floating(op, "boxes", boxes);
  check_shape(op, "scores", scores, "(N,)", 1);
  check_floating(op, "scores", scores);
  check_same_device(op, "boxes", boxes, "scores", scores);
  TILEWRIGHT_CHECK(op, boxes.sym_size(0) == scores.sym_size(0), "expected one score per box (",
                   boxes.sym_size(0), "), got ", scores.sym_size(0));
  if (idxs.has_value()) {
    check_shape(op, "idxs", *idxs, "(N,)", 1);
    TILEWRIGHT_CHECK(op, at::isIntegralType(idxs->scalar_type(), /*includeBool=*/false),
                     "idxs must be of an integer dtype, got ", idxs->scalar_type());
    check_same_device(op, "boxes", boxes, "idxs", *idxs);
    TILEWRIGHT_CHECK(op, boxes.sym_size(0) == idxs->sym_size(0), "expected one class per box (",
                     boxes.sym_size(0), "), got ", idxs->sym_size(0));
  }
  TILEWRIGHT_CHECK(op, iou_threshold >= 0 && iou_threshold <= 1,
                   "iou_threshold must lie in [0, 1], got ", iou_threshold);
  TILEWRIGHT_CHECK(op, max_output >= -1, "max_output must be -1 (all) or a count, got ",
                   max_output);
}

NmsSorted nms_sort(const at::Tensor& boxes, const at::Tensor& scores,
                   const std::optional<at::Tensor>& idxs) {
  NmsSorted sorted;
  const at::Tensor wide =
      boxes.detach().to(boxes.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  // Detectors mark what they do not want by NaN: such boxes go before the sort, not after.
  const at::Tensor usable =
      wide.isfinite().all(1).logical_and_(scores.detach().isnan().logical_not_());
  at::Tensor order = usable.nonzero().squeeze(1);
  order = order.index_select(
      0, std::get<1>(scores.detach().index_select(0, order).sort(/*stable=*/true, /*dim=*/0,
                                                                 /*descending=*/true)));
  if (idxs.has_value()) {
    // Stable: descending scores stay so within a class.
    auto [classes, by_class] =
        idxs->to(at::kLong).index_select(0, order).sort(/*stable=*/true, 0, /*descending=*/false);
    sorted.classes = classes;
    sorted.rank = by_class;
    order = order.index_select(0, by_class);
  }
  sorted.order = order;
  sorted.boxes = wide.index_select(0, order);
  return sorted;
}

at::Tensor nms_kept(const NmsSorted& sorted, const at::Tensor& keep, int64_t max_output) {
  at::Tensor chosen = keep.nonzero().squeeze(1);
  if (sorted.rank.defined()) {
    // Back from the order by class to the order by score.
    const at::Tensor rank = sorted.rank.index_select(0, chosen);
    chosen = chosen.index_select(0, rank.argsort());
  }
  if (max_output >= 0 && chosen.numel() > max_output) chosen = chosen.narrow(0, 0, max_output);
  return sorted.order.index_select(0, chosen);
}

}  // namespace tilewright
