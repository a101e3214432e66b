// What the emulated device shows to torch: operators for tests, and the registration of device
// kernels over the CPU's.
#include <ATen/Context.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/Exception.h>

#include <sstream>

#include "simt/checker.h"
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/on_device.h"

namespace tilewright::runtime {
namespace {
int capability = 80;
[[maybe_unused]] const bool emulated = (emulate_device(), true);

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

void lend(const at::Tensor& tensor, const void* data, bool writable) {
  if (!simt::checks_are_on() || !simt::in_memory_scope() || tensor.numel() == 0) return;
  int64_t elements = 1;  // from the first to the last
  for (int64_t d = 0; d < tensor.dim(); ++d) elements += (tensor.size(d) - 1) * tensor.stride(d);
  std::ostringstream name;
  name << "a " << tensor.scalar_type() << " tensor " << tensor.sizes();
  const c10::weak_intrusive_ptr<c10::StorageImpl> storage(tensor.storage().getWeakStorageImpl());
  simt::lend({data, size_t(elements) * tensor.element_size(), size_t(tensor.element_size()),
              writable, name.str(), [storage] { return !storage.expired(); }});
}

// As if it had few, so that tests of a few blocks meet both sides of decisions by their number.
int multiprocessors() { return 16; }

int compute_capability() { return capability; }

bool tf32_products() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
         at::Float32Precision::TF32;
}
bool deterministic_algorithms() { return at::globalContext().deterministicAlgorithms(); }

}  // namespace tilewright::runtime

TORCH_LIBRARY(tilewright_simt, m) {
  m.def("launch_count() -> int", [] { return tilewright::simt::launch_count(); });
  m.def("launched_kernels() -> str[]", [] { return tilewright::simt::launched_kernels(); });
  m.def("reset() -> ()", [] { tilewright::simt::reset_counts(); });
  // Checks of every access of device code; on from the start with TILEWRIGHT_SIMT_CHECKED=1.
  m.def("set_checked(bool on) -> ()", [](bool on) { tilewright::simt::set_checks(on); });
  m.def("is_checked() -> bool", [] { return tilewright::simt::checks_are_on(); });
  // While on, checked launches add to the memory report, which starts empty: by kernel, the threads
  // and the shared bytes of a block; requests to global memory, their sectors and the fewest;
  // requests to shared memory, their wavefronts and the fewest.
  m.def("set_tracing(bool on) -> ()", [](bool on) { tilewright::simt::set_tracing(on); });
  m.def("memory_report() -> Dict(str, int[])", [] {
    c10::Dict<std::string, std::vector<int64_t>> report;
    for (auto& [kernel, figures] : tilewright::simt::memory_report())
      report.insert(kernel, figures);
    return report;
  });
  // Of the GPU that host code takes it for: 80, 86, 90, ... Launches obey the limits of 80 always.
  m.def("set_capability(int capability) -> ()",
        [](int64_t capability) { tilewright::runtime::capability = int(capability); });
  m.def("set_order(int seed) -> ()", [](int64_t seed) { tilewright::simt::set_order(int(seed)); });
}
