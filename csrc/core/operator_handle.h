// How a C++ function enters the dispatcher: found once, called without boxing.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

namespace tilewright {

// The operator of that name ("tilewright::nms"), typed as the C++ function that fronts it:
//   static const auto op = operator_handle<decltype(nms)>("tilewright::nms");
template <class Function>
c10::TypedOperatorHandle<Function> operator_handle(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace tilewright
