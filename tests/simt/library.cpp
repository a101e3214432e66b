// What the emulated device shows to torch: operators for tests, and the registration of device
// kernels over the CPU's.
#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include "simt/simt_internal.h"
#include "tilewright/core/cuda/host.h"

namespace tilewright::runtime {
namespace {
// torch warns when a kernel replaces another; here every one does, and is meant to.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};
}  // namespace

DeviceImpl::DeviceImpl(void (*registers)(torch::Library&), const char* file, uint32_t line) {
  Silence silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  library_ = std::make_unique<torch::Library>(torch::Library::IMPL, "tilewright",
                                              c10::DispatchKey::CPU, file, line);
  registers(*library_);
}

bool deterministic_algorithms() { return at::globalContext().deterministicAlgorithms(); }

}  // namespace tilewright::runtime

TORCH_LIBRARY(tilewright_simt, m) {
  m.def("launch_count() -> int", [] { return tilewright::simt::launch_count(); });
  m.def("launched_kernels() -> str[]", [] { return tilewright::simt::launched_kernels(); });
  m.def("reset() -> ()", [] { tilewright::simt::reset_counts(); });
  m.def("set_order(int seed) -> ()", [](int64_t seed) { tilewright::simt::set_order(int(seed)); });
}
