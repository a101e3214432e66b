// What forests and AdaBoost demand of their arguments, and the rules they make of them.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/trees/forest.h"
#include "tilewright/trees/forest_cpu.h"
#include "tilewright/trees/input_table.h"

namespace tilewright::trees {

// num_class 0: y holds values.
void check_tree_options(const char* op, const ForestTreeOptions& options, int64_t num_class);
// Tables of forests and AdaBoost are read on the host.
void check_on_cpu(const char* op, const InputTable& x);
void check_training_set(const char* op, const InputTable& x, const at::Tensor& y,
                        int64_t num_class);
// Labels as int16 and values as float64 (N, O), contiguous.
at::Tensor labels_of(const char* op, const at::Tensor& y, int64_t num_class);
at::Tensor values_of(const char* op, const at::Tensor& y);
// (N,) float64 contiguous, or undefined.
at::Tensor weights_of(const char* op, const at::Tensor& weight, int64_t rows);

// All but what sums are kept in.
ForestRules rules_of(const ForestTreeOptions& options, int64_t features, int64_t seed);

}  // namespace tilewright::trees
