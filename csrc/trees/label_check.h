// Labels, weights: an error that names the first wrong one.
#pragma once
#include <ATen/ATen.h>

#include <string>

#include "tilewright/core/check.h"

namespace tilewright::trees {

// values: (N,), or labels of several columns, (K, N); `wrong` of the same shape.
inline void refuse(const std::string& name, const at::Tensor& values, const at::Tensor& wrong,
                   const char* what) {
  if (!wrong.any().item<bool>()) return;
  const at::Tensor place = wrong.t().nonzero()[0];  // row, column
  const auto row = place[0].item<int64_t>();
  if (values.dim() == 1) {
    TILEWRIGHT_CHECK("trees", false, name, " ", what, "; that of row ", row, " is ",
                     values[row].item<double>());
  }
  const auto column = place[1].item<int64_t>();
  TILEWRIGHT_CHECK("trees", false, name, " ", what, "; that of row ", row, ", column ", column,
                   " is ", values[column][row].item<double>());
}

}  // namespace tilewright::trees
