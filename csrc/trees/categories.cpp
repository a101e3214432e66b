#include "tilewright/trees/categories.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "tilewright/trees/names.h"
#include "tilewright/trees/refuse_rows.h"

namespace tilewright::trees {
namespace {

// The greatest value of a column of categories, that of feature f, or 0.
int64_t check_column(const at::Tensor& values, int64_t f, int64_t limit, const char* what) {
  const at::Tensor column = values.to(at::kDouble);
  const at::Tensor whole =
      column.ge(0).logical_and(column.lt(double(limit))).logical_and(column.eq(column.floor()));
  const at::Tensor bad = whole.logical_or(column.isnan()).logical_not();
  refuse_rows(kTrees,
              c10::str("column ", f, " holds categories, ", what, ": whole numbers from 0 to ",
                       limit - 1, ", or NaN"),
              bad, column);
  const at::Tensor known = column.nan_to_num(0.0);
  return known.numel() == 0 ? 0 : known.max().item<int64_t>();
}

}  // namespace

std::pair<at::Tensor, at::Tensor> category_cuts(const at::Tensor& x, const at::Tensor& cuts,
                                                const at::Tensor& count,
                                                const std::vector<uint8_t>& categorical) {
  at::Tensor new_cuts = cuts, new_count = count;
  for (size_t f = 0; f < categorical.size(); ++f) {
    if (!categorical[f]) continue;
    if (new_cuts.is_same(cuts)) new_cuts = cuts.clone(), new_count = count.clone();
    const int64_t last = check_column(x.select(1, int64_t(f)), int64_t(f), cuts.size(1),
                                      "as many as max_bin allows");
    at::Tensor row = new_cuts.select(0, int64_t(f));
    row.fill_(std::numeric_limits<float>::infinity());
    row.narrow(0, 0, last).copy_(at::arange(last, cuts.options()).add(0.5));
    new_count.select(0, int64_t(f)).fill_(last);
  }
  return {new_cuts, new_count};
}

void check_known_categories(const InputTable& table, const at::Tensor& count,
                            const std::vector<uint8_t>& categorical) {
  if (std::find(categorical.begin(), categorical.end(), 1) == categorical.end()) return;
  table.for_columns([&](int64_t first, const at::Tensor& x) {
    for (int64_t i = 0; i < x.size(1); ++i) {
      const int64_t f = first + i;
      if (!categorical[size_t(f)]) continue;
      check_column(x.select(1, i), f, count[f].item<int64_t>() + 1, "those of training");
    }
  });
}

}  // namespace tilewright::trees
