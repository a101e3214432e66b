// The range of an argument of a scriptable model, looked at where that is free.
#include <torch/library.h>

#include <string>

#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"

namespace tilewright {
namespace {

// Returns what it was given: TorchScript drops operators without results.
at::Tensor checked_range(const at::Tensor& values, c10::string_view op, c10::string_view name,
                         double low, double high) {
  if (const auto range = range_at_hand(values)) {
    const auto [least, most] = *range;
    TILEWRIGHT_CHECK(std::string(op), least >= low && most < high, name, " must lie in [", low,
                     ", ", high, "), got ", least, " to ", most);
  }
  return values;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("_checked_range(Tensor(a) values, str op, str name, float low, float high) -> Tensor(a)",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("_checked_range", &checked_range);
}

}  // namespace tilewright
