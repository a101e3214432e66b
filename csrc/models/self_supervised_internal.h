// Checks that models which learn without labels share; not part of the public C++ API.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "tilewright/core/check.h"

namespace tilewright::self_supervised_internal {

inline void check_positive(const char* model, const char* name, int64_t value) {
  TILEWRIGHT_CHECK(model, value > 0, name, " must be positive, got ", value);
}

inline void check_positive(const char* model, const char* name,
                           const std::vector<int64_t>& values) {
  bool fits = !values.empty();
  for (const int64_t value : values) fits = fits && value > 0;
  TILEWRIGHT_CHECK(model, fits, name, " must hold positive numbers, at least one, got ",
                   at::ArrayRef<int64_t>(values));
}

inline void check_temperature(const char* model, double temperature) {
  TILEWRIGHT_CHECK(model, std::isfinite(temperature) && temperature > 0,
                   "temperature must be positive and finite, got ", temperature);
}

// `shape` is the wording of the expected shape; the channels are dimension 1.
inline void check_channels(const char* model, const char* name, const at::Tensor& x,
                           const char* shape, int64_t dim, int64_t channels) {
  check_floating(model, name, x);
  check_shape(model, name, x, shape, dim);
  TILEWRIGHT_CHECK(model, x.size(1) == channels, name, " must have ", channels, " channels, got ",
                   shape_of(x));
}

}  // namespace tilewright::self_supervised_internal
