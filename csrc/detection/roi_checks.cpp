// The checks that the RoI pooling operators share: one wording for one mistake.
#include "tilewright/detection/roi_checks.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/huge_pages.h"
#include "tilewright/detection/roi_align_math.h"

namespace tilewright {
namespace {

template <class T>
void check_indices(const char* op, const at::Tensor& rois, int64_t batch) {
  const T* data = rois.const_data_ptr<T>();
  for (int64_t k = 0; k < rois.size(0); ++k) {
    TILEWRIGHT_CHECK(op, roi_batch(data[k * rois.size(1)], batch) >= 0, "the image index of rois[",
                     k, "] must lie in [0, ", batch, "), got ", data[k * rois.size(1)]);
  }
}

}  // namespace

void check_pooled_size(const char* op, int64_t pooled_height, int64_t pooled_width) {
  TILEWRIGHT_CHECK(op, pooled_height > 0 && pooled_width > 0,
                   "pooled_height and pooled_width must be positive, got ", pooled_height, " and ",
                   pooled_width);
}

void check_spatial_scale(const char* op, double spatial_scale) {
  TILEWRIGHT_CHECK(op, std::isfinite(spatial_scale) && spatial_scale > 0,
                   "spatial_scale must be positive and finite, got ", spatial_scale);
}

void check_sampling_ratio(const char* op, int64_t sampling_ratio, const char* name) {
  TILEWRIGHT_CHECK(op, sampling_ratio <= kMaxSamplingRatio, name, " must be at most ",
                   kMaxSamplingRatio, ", got ", sampling_ratio);
}

void check_rois(const char* op, const at::Tensor& features, const at::Tensor& rois, bool rotated) {
  check_shape(op, "rois", rois, rotated ? "(K, 6)" : "(K, 5)", 2, rotated ? 6 : 5);
  const auto type = rois.scalar_type();
  TILEWRIGHT_CHECK(op, type == at::kFloat || type == features.scalar_type(),
                   "rois must be float32 or of input's dtype (", features.scalar_type(), "), got ",
                   type);
  check_same_device(op, "input", features, "rois", rois);
}

void check_pooled_grad(const char* op, const at::Tensor& grad, const at::Tensor& rois,
                       const c10::SymInt& channels, int64_t pooled_height, int64_t pooled_width,
                       bool rotated) {
  check_shape(op, "grad", grad, "(K, C, pooled_height, pooled_width)", 4);
  check_floating(op, "grad", grad);
  check_rois(op, grad, rois, rotated);
  TILEWRIGHT_CHECK(op,
                   grad.sym_size(0) == rois.sym_size(0) && grad.sym_size(1) == channels &&
                       grad.sym_size(2) == pooled_height && grad.sym_size(3) == pooled_width,
                   "grad must have shape (", rois.sym_size(0), ", ", channels, ", ", pooled_height,
                   ", ", pooled_width, "), got ", shape_of(grad));
}

at::Tensor empty_grad_input(const at::Tensor& grad, const c10::SymInt& batch,
                            const c10::SymInt& channels, const c10::SymInt& height,
                            const c10::SymInt& width) {
  return prefer_huge_pages(at::empty_symint({batch, channels, height, width}, grad.options(),
                                            grad.suggest_memory_format()));
}

at::Tensor accumulate_type_rois(const at::Tensor& rois, at::ScalarType features) {
  const auto type = features == at::kDouble ? at::kDouble : at::kFloat;
  // Asking first costs less than the dispatcher, which a few boxes on a small map would notice.
  return (rois.scalar_type() == type ? rois : rois.to(type)).contiguous();
}

void check_image_indices(const char* op, const at::Tensor& rois, int64_t batch) {
  if (rois.scalar_type() == at::kDouble) {
    check_indices<double>(op, rois, batch);
  } else {
    check_indices<float>(op, rois, batch);
  }
}

}  // namespace tilewright
