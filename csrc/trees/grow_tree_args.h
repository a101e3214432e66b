// The arguments of tree_histogram and grow_tree, checked for shapes and dtypes on every machine,
// and the tensors that grow_tree returns.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/trees/tree_math.h"

namespace tilewright {

inline constexpr int64_t kMostTreeDepth = 16;

TILEWRIGHT_API void check_tree_histogram(const at::Tensor& codes, const at::Tensor& gradients,
                                         const at::Tensor& hessians,
                                         const std::optional<at::Tensor>& node, int64_t num_nodes,
                                         int64_t num_codes);

struct GrowTreeArgs {
  const at::Tensor &codes, &bins, &gradients, &hessians;
  int64_t num_codes, max_depth;
  TreeRegularisation rules;
  const std::optional<at::Tensor>&rows, &columns, &monotone;
};
TILEWRIGHT_API void check_grow_tree(const GrowTreeArgs& args);

// On the CPU: int16 codes must exist. (uint8 has no others.)
void check_codes_exist(const char* op, const at::Tensor& codes, int64_t num_codes);

// Whether gradients and hessians get an integer each, by TreeGrower's rule.
TILEWRIGHT_API bool tree_uses_pairs(int64_t rows);

// float64 stays, everything else is read as float32; contiguous.
TILEWRIGHT_API at::Tensor tree_values(const at::Tensor& values);

using GrowTreeResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// Memory for it, with nothing in it.
TILEWRIGHT_API GrowTreeResult empty_grow_tree(const GrowTreeArgs& args);

}  // namespace tilewright
