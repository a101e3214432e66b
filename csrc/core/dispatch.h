// Turns a dtype known at run time into a template argument; every switch ends in an error.
#pragma once
#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "tilewright/core/cuda/machine.h"
#include "tilewright/core/export.h"

namespace tilewright {
[[noreturn]] TILEWRIGHT_API void no_kernel_for_dtype(const char* op, c10::ScalarType dtype);
}

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>()) with T one of double, float, c10::Half, c10::BFloat16.
template <class Body>
inline auto dispatch_floating(const char* op, c10::ScalarType dtype, Body&& body) {
  switch (dtype) {
    case c10::ScalarType::Double: return body(TypeTag<double>());
    case c10::ScalarType::Float: return body(TypeTag<float>());
    case c10::ScalarType::Half: return body(TypeTag<c10::Half>());
    case c10::ScalarType::BFloat16: return body(TypeTag<c10::BFloat16>());
    default: no_kernel_for_dtype(op, dtype);
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
