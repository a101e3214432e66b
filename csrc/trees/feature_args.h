// What feature_cuts and quantize_features demand of their arguments, on every machine.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

inline constexpr int64_t kMostNarrowBins = 255, kMostBins = 32767;
// Quantiles are those of so many rows at most.
inline constexpr int64_t kSampledRows = int64_t(1) << 18;

TILEWRIGHT_API void check_feature_cuts(const at::Tensor& x,
                                       const std::optional<at::Tensor>& sample_weight,
                                       int64_t max_bin);
TILEWRIGHT_API void check_quantize_features(const at::Tensor& x, const at::Tensor& cuts,
                                            const at::Tensor& count);

// Codes are narrow where 255 is left for missing.
inline at::ScalarType code_type(const at::Tensor& cuts) {
  return cuts.sym_size(1) <= kMostNarrowBins ? at::kByte : at::kShort;
}
// The codes that a feature may have, missing included: the last.
inline int64_t codes_of(int64_t max_bin) {
  return max_bin <= kMostNarrowBins ? kMostNarrowBins + 1 : max_bin + 1;
}

}  // namespace tilewright
