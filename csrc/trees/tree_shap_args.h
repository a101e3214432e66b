// The arrays of tree_shap and tree_shap_interactions, checked for shapes and dtypes on every
// machine.
#pragma once
#include "tilewright/trees/predict_args.h"

namespace tilewright {

void check_tree_shap(const char* op, const at::Tensor& x, const TreeArrays& arrays,
                     const at::Tensor& cover);

}  // namespace tilewright
