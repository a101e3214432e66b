// What Python's shape functions share with the kernels: their checks.
#include "tilewright/detection/nms_sort.h"
#include "tilewright/detection/soft_nms_data.h"
#include "tilewright/python/bind.h"

namespace tilewright {

void bind_detection(pybind11::module_& m) {
  m.def("check_nms", [](const std::string& op, const at::Tensor& boxes, const at::Tensor& scores,
                        const std::optional<at::Tensor>& idxs, double iou_threshold,
                        int64_t max_output, int64_t columns) {
    check_nms(op.c_str(), boxes, scores, idxs, iou_threshold, max_output, columns);
  });
  m.def("check_soft_nms",
        [](const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold, double sigma,
           double min_score, const std::string& method) {
          check_soft_nms("soft_nms", boxes, scores, {iou_threshold, sigma, min_score, method});
        });
}

}  // namespace tilewright
