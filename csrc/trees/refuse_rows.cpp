#include "tilewright/trees/refuse_rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/core/check.h"

namespace tilewright::trees {

void refuse_rows(const char* op, const std::string& rule, const at::Tensor& bad,
                 const at::Tensor& values) {
  if (!bad.any().item<bool>()) return;
  const int64_t at = bad.reshape(-1).nonzero()[0].item<int64_t>();
  const int64_t row = at / std::max<int64_t>(bad.numel() / bad.size(0), 1);
  TILEWRIGHT_CHECK(op, false, rule, "; that of row ", row, " is ",
                   values.reshape(-1)[at].item<double>());
}

}  // namespace tilewright::trees
