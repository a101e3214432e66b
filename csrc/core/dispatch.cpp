// The error of a dtype that has no kernel; out of line, so that kernel files stay free of messages.
#include "tilewright/core/dispatch.h"

#include <c10/util/Exception.h>

namespace tilewright {
void no_kernel_for_dtype(const char* op, c10::ScalarType dtype) {
  TORCH_CHECK(false, "tilewright::", op, ": no kernel for dtype ", c10::toString(dtype),
              "; it takes float64, float32, float16 and bfloat16");
}
}  // namespace tilewright
