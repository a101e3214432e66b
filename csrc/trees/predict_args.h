// The arrays of predict_trees, checked for shapes and dtypes on every machine.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

struct TreeArrays {
  const at::Tensor &feature, &threshold, &left, &right, &default_left, &value, &tree_ptr,
      &tree_output;
  int64_t num_outputs;
  const std::optional<at::Tensor>&category_ptr, &categories;
};

// `op`: the operator that errors name.
TILEWRIGHT_API void check_predict_trees(const at::Tensor& x, const TreeArrays& arrays,
                                        const char* op = "predict_trees");

}  // namespace tilewright
