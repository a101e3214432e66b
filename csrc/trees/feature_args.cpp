#include "tilewright/trees/feature_args.h"

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

void check_x(const char* op, const at::Tensor& x) {
  check_floating(op, "x", x);
  check_shape(op, "x", x, "(N, F)", 2);
}

}  // namespace

void check_feature_cuts(const at::Tensor& x, const std::optional<at::Tensor>& sample_weight,
                        int64_t max_bin) {
  constexpr const char* kOp = "feature_cuts";
  check_x(kOp, x);
  TILEWRIGHT_CHECK(kOp, max_bin >= 2 && max_bin <= kMostBins, "max_bin must lie in [2, ", kMostBins,
                   "], got ", max_bin);
  if (!sample_weight.has_value()) return;
  check_floating(kOp, "sample_weight", *sample_weight);
  check_same_device(kOp, "x", x, "sample_weight", *sample_weight);
  TILEWRIGHT_CHECK(kOp, sample_weight->dim() == 1 && sample_weight->sym_size(0) == x.sym_size(0),
                   "sample_weight must have shape (", x.sym_size(0), ",), got ",
                   shape_of(*sample_weight));
}

void check_quantize_features(const at::Tensor& x, const at::Tensor& cuts, const at::Tensor& count) {
  constexpr const char* kOp = "quantize_features";
  check_x(kOp, x);
  check_shape(kOp, "cuts", cuts, "(F, max_bin)", 2);
  check_shape(kOp, "count", count, "(F,)", 1);
  check_same_device(kOp, "x", x, "cuts", cuts);
  check_same_device(kOp, "x", x, "count", count);
  TILEWRIGHT_CHECK(kOp, cuts.scalar_type() == at::kFloat, "cuts must be float32, got ",
                   cuts.scalar_type());
  TILEWRIGHT_CHECK(kOp, count.scalar_type() == at::kInt, "count must be int32, got ",
                   count.scalar_type());
  TILEWRIGHT_CHECK(kOp, cuts.sym_size(0) == x.sym_size(1) && count.sym_size(0) == x.sym_size(1),
                   "x has ", x.sym_size(1), " features, but cuts are of ", cuts.sym_size(0),
                   " and count of ", count.sym_size(0));
  TILEWRIGHT_CHECK(kOp, cuts.sym_size(1) >= 1 && cuts.sym_size(1) <= kMostBins,
                   "cuts must have 1 to ", kMostBins, " columns, got ", cuts.sym_size(1));
}

}  // namespace tilewright
