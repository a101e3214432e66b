// From the arrays that a fit leaves to the object that predicts, and back.
#pragma once
#include <string>

#include "tilewright/trees/tree_arrays.h"
#include "tilewright/trees/tree_ensemble.h"

namespace tilewright::trees {

// base_score: (K,) float32. Arrays that are no trees over so many features are an error.
c10::intrusive_ptr<TreeEnsemble> ensemble_of(const EnsembleArrays& arrays,
                                             const at::Tensor& base_score, const std::string& link,
                                             int64_t features);
// Without gains and covers, which an ensemble does not have.
EnsembleArrays arrays_of(const TreeEnsemble& ensemble);

}  // namespace tilewright::trees
