// The fronts of feature_cuts and quantize_features: schemas, checks, shapes.
#include "tilewright/trees/feature_cuts.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "tilewright/core/operator_handle.h"
#include "tilewright/trees/feature_args.h"

namespace tilewright {
namespace {

std::tuple<at::Tensor, at::Tensor> feature_cuts_meta(const at::Tensor& x,
                                                     const std::optional<at::Tensor>& sample_weight,
                                                     int64_t max_bin) {
  check_feature_cuts(x, sample_weight, max_bin);
  return {at::empty_symint({x.sym_size(1), max_bin}, x.options().dtype(at::kFloat)),
          at::empty_symint({x.sym_size(1)}, x.options().dtype(at::kInt))};
}

at::Tensor quantize_features_meta(const at::Tensor& x, const at::Tensor& cuts,
                                  const at::Tensor& count) {
  check_quantize_features(x, cuts, count);
  return at::empty_symint({x.sym_size(0), x.sym_size(1)}, x.options().dtype(code_type(cuts)));
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> feature_cuts(const at::Tensor& x,
                                                const std::optional<at::Tensor>& sample_weight,
                                                int64_t max_bin) {
  static const auto op = operator_handle<decltype(feature_cuts)>("tilewright::feature_cuts");
  return op.call(x, sample_weight, max_bin);
}

at::Tensor quantize_features(const at::Tensor& x, const at::Tensor& cuts, const at::Tensor& count) {
  static const auto op =
      operator_handle<decltype(quantize_features)>("tilewright::quantize_features");
  return op.call(x, cuts, count);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "feature_cuts(Tensor x, Tensor? sample_weight=None, int max_bin=255) "
      "-> (Tensor cuts, Tensor count)",
      {at::Tag::pt2_compliant_tag});
  m.def("quantize_features(Tensor x, Tensor cuts, Tensor count) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("feature_cuts", &feature_cuts_meta);
  m.impl("quantize_features", &quantize_features_meta);
}

}  // namespace tilewright
