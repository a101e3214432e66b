// Features that are categories: which bins their values are.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "tilewright/trees/input_table.h"

namespace tilewright::trees {

// Cuts and counts as feature_cuts gives them, with those of categorical features replaced: value c
// is bin c. `categorical`: (F,), or empty. Values of such features are whole numbers from 0 up to
// max_bin - 1, or missing; an error names the column and the row of another.
std::pair<at::Tensor, at::Tensor> category_cuts(const at::Tensor& x, const at::Tensor& cuts,
                                                const at::Tensor& count,
                                                const std::vector<uint8_t>& categorical);

// What prediction may meet: an error names column and row of a category that is not below the
// number of those that were there in training, `count` + 1.
void check_known_categories(const InputTable& table, const at::Tensor& count,
                            const std::vector<uint8_t>& categorical);

}  // namespace tilewright::trees
