#include "tilewright/dropin/original_kernels.h"

#include <c10/util/Exception.h>

namespace tilewright {

OriginalKernels& OriginalKernels::instance() {
  static OriginalKernels* kernels = new OriginalKernels();  // outlives static destructors
  return *kernels;
}

void OriginalKernels::keep(const std::string& op, c10::DispatchKey key) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(op.c_str(), "");
  const std::lock_guard<std::mutex> guard(mutex_);
  kernels_.try_emplace({op, key}, handle.getComputedKernelForDispatchKey(key));
}

void OriginalKernels::run(const std::string& op, c10::DispatchKey key,
                          torch::jit::Stack& stack) const {
  const c10::SafeKernelFunction* kernel;
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    kernel = &kernels_.at({op, key});
  }
  kernel->callBoxed(kernel->opHandle(), c10::DispatchKeySet(key), &stack);
}

}  // namespace tilewright
