#include "tilewright/trees/refuse_rows.h"

#include <ATen/ATen.h>

#include "tilewright/core/check.h"

namespace tilewright::trees {

void refuse_rows(const char* op, const std::string& rule, const at::Tensor& bad,
                 const at::Tensor& values) {
  if (!bad.any().item<bool>()) return;
  const at::Tensor place = bad.nonzero()[0];
  const auto row = place[0].item<int64_t>();
  if (bad.dim() == 1) {
    TILEWRIGHT_CHECK(op, false, rule, "; that of row ", row, " is ", values[row].item<double>());
  }
  const auto column = place[1].item<int64_t>();
  TILEWRIGHT_CHECK(op, false, rule, "; that of row ", row, ", column ", column, " is ",
                   values[row][column].item<double>());
}

}  // namespace tilewright::trees
