// Whether a function composed of operators may look at a tensor's data.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

#include "tilewright/core/export.h"

namespace tilewright {

// Whether sizes must not depend on data: a program is being traced, by torch.export or
// torch.compile, or some other dispatch mode looks on.
TILEWRIGHT_API bool is_traced(const at::Tensor& tensor);

// Whether a look is free: data on the CPU, on which no device's kernels run, and nothing is traced.
TILEWRIGHT_API bool has_data_at_hand(const at::Tensor& tensor);

// The least and the largest value, NaN where there is one; nothing where a look is not free or
// there are no values.
TILEWRIGHT_API std::optional<std::pair<double, double>> range_at_hand(const at::Tensor& tensor);

}  // namespace tilewright
