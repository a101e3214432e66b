// The error about values of rows: the first row that is not as it must be.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace tilewright::trees {

// "<rule>; that of row 7 is -1", or "of row 7, column 2", where any is marked. bad: (N,) or (N, K)
// bool; values: of its shape.
void refuse_rows(const char* op, const std::string& rule, const at::Tensor& bad,
                 const at::Tensor& values);

}  // namespace tilewright::trees
