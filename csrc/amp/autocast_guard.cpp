#include "tilewright/amp/autocast_guard.h"

#include <ATen/autocast_mode.h>

#include "tilewright/core/check.h"

namespace tilewright {

AutocastGuard::AutocastGuard(c10::DeviceType device, at::ScalarType dtype, bool enabled, bool cache)
    : device_(device),
      enabled_before_(at::autocast::is_autocast_enabled(device)),
      cache_before_(at::autocast::is_autocast_cache_enabled()),
      dtype_before_(at::autocast::get_autocast_dtype(device)) {
  TILEWRIGHT_CHECK("AutocastGuard", dtype == at::kBFloat16 || dtype == at::kHalf,
                   "dtype must be bfloat16 or float16, got ", dtype);
  at::autocast::set_autocast_enabled(device, enabled);
  at::autocast::set_autocast_dtype(device, dtype);
  at::autocast::set_autocast_cache_enabled(cache);
  at::autocast::increment_nesting();
}

AutocastGuard::~AutocastGuard() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, enabled_before_);
  at::autocast::set_autocast_dtype(device_, dtype_before_);
  at::autocast::set_autocast_cache_enabled(cache_before_);
}

}  // namespace tilewright
