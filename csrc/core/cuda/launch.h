// Starts kernels, on a GPU or on the emulated device, in place of <<<>>>. No torch in here; an
// operator's host side includes core/cuda/host.h, which adds the guard, tensors and registration.
//
//   DeviceGuard guard(input);                                          // host.h
//   ScaleParams<T> params{...};
//   launch<scale_kernel<T>>(linear_config(params.numel), params);
//
//   launch<tile_kernel<T>>(parts_config<TileParts<T>>(tiles, 128), params);
//
// A grid without blocks launches nothing.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <typeinfo>

#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright {

namespace runtime {
// On the current stream of the current device; throws what the runtime reports (launch_cuda.cpp).
void launch_on_gpu(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                   bool large_shared, void** arguments);
}  // namespace runtime

inline namespace TILEWRIGHT_MACHINE {

struct LaunchConfig {
  dim3 grid = 1;
  dim3 block = 1;
  size_t shared_bytes = 0;
  // Whether more than 48 KB are meant: such a kernel gets one or two blocks per multiprocessor, and
  // 163 KB are the most on sm_80.
  bool large_shared = false;
};

// One thread per element, for kernels that loop with grid_stride().
inline LaunchConfig linear_config(int64_t n, int threads = 256) {
  constexpr int64_t kMaxGridX = 0x7fffffff;
  LaunchConfig config;
  config.grid = dim3(unsigned(std::min(ceil_div(n, threads), kMaxGridX)));
  config.block = dim3(unsigned(threads));
  return config;
}

// Blocks that hold `Parts` in shared memory; more than there can be are an error of launch().
template <class Parts>
LaunchConfig parts_config(int64_t blocks, int threads, bool large_shared = false) {
  constexpr int64_t kMostUnsigned = 0xffffffff;
  LaunchConfig config;
  config.grid = dim3(unsigned(std::min(blocks, kMostUnsigned)));
  config.block = dim3(unsigned(threads));
  config.shared_bytes = shared_bytes<Parts>();
  config.large_shared = large_shared;
  return config;
}

namespace detail {

#ifdef TILEWRIGHT_SIMT
// Its type name holds the demangled name of the kernel.
template <auto Kernel>
struct KernelTag {};
#endif

// Takes the kernel's own parameter types from its pointer, so that arguments convert as in a call.
template <auto Kernel, class Pointer = decltype(Kernel)>
struct Launcher;
template <auto Kernel, class... Params>
struct Launcher<Kernel, void (*)(Params...)> {
  static_assert((std::is_trivially_copyable_v<Params> && ...));
  static void start(const LaunchConfig& config, Params... params) {
#ifdef TILEWRIGHT_SIMT
    static simt::KernelRecord& record =
        simt::kernel_record(typeid(KernelTag<Kernel>), typeid(void(Params...)));
    const std::tuple<Params...> arguments(params...);
    simt::launch(
        record, {config.grid, config.block, config.shared_bytes, config.large_shared},
        [](const void* values) {
          std::apply(Kernel, *static_cast<const std::tuple<Params...>*>(values));
        },
        &arguments, sizeof arguments);
#else
    void* arguments[sizeof...(Params) + 1] = {&params...};
    runtime::launch_on_gpu(reinterpret_cast<const void*>(Kernel), config.grid, config.block,
                           config.shared_bytes, config.large_shared, arguments);
#endif
  }
};

}  // namespace detail

// Runs Kernel(arguments...) on the current stream of the current device.
template <auto Kernel, class... Arguments>
void launch(const LaunchConfig& config, Arguments&&... arguments) {
  if (config.grid.x == 0 || config.grid.y == 0 || config.grid.z == 0) return;
  detail::Launcher<Kernel>::start(config, arguments...);
}

}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
