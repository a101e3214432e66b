#include "tilewright/core/on_device.h"

#include <atomic>

namespace tilewright {
namespace {
std::atomic<bool> is_emulated{false};
}  // namespace

bool is_on_device(const at::Tensor& tensor) {
  return !tensor.is_cpu() || is_emulated.load(std::memory_order_relaxed);
}

void emulate_device() { is_emulated.store(true, std::memory_order_relaxed); }

}  // namespace tilewright
