// Autocast's rule for geometry: boxes keep their precision, whatever the features are cast to.
#pragma once
#include <ATen/core/Tensor.h>

namespace tilewright {

// Boxes that go with features of the given dtype: 16-bit boxes beside features of another dtype
// become float32, which every operator takes.
inline at::Tensor boxes_beside(const at::Tensor& boxes, at::ScalarType features) {
  const auto type = boxes.scalar_type();
  const bool half = type == at::kHalf || type == at::kBFloat16;
  return half && type != features ? boxes.to(at::kFloat) : boxes;
}

}  // namespace tilewright
