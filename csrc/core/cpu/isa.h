// Chooses, at load time, which of the builds of a CPU kernel runs: each *_cpu_kernel.cpp is
// compiled once per instruction set and defines functions whose names end in that set's name.
#pragma once

// In a *_cpu.h:
//   TILEWRIGHT_CPU_KERNEL(roi_align_forward, void(const Params&, int64_t, int64_t))
// In *_cpu_kernel.cpp:
//   void TILEWRIGHT_ON_MACHINE(roi_align_forward)(const Params& params, ...) { ... }
// In *_cpu.cpp:
//   roi_align_forward(params, begin, end);
#define TILEWRIGHT_JOIN_INNER(name, machine) name##_##machine
#define TILEWRIGHT_JOIN(name, machine) TILEWRIGHT_JOIN_INNER(name, machine)
#define TILEWRIGHT_ON_MACHINE(name) TILEWRIGHT_JOIN(name, TILEWRIGHT_MACHINE)

namespace tilewright {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best that at::get_cpu_capability() allows, or what TILEWRIGHT_ISA (baseline, avx2, avx512)
// asks for, read once; asking for more than the machine has, or for an unknown name, is an error.
Isa current_isa();
const char* isa_name(Isa isa);

#if defined(__x86_64__)
#define TILEWRIGHT_CPU_KERNEL(name, ...)                                \
  using name##_function = __VA_ARGS__;                                  \
  name##_function name##_on_baseline, name##_on_avx2, name##_on_avx512; \
  template <class... Args>                                              \
  inline auto name(Args&&... args) {                                    \
    switch (current_isa()) {                                            \
      case Isa::kAvx512: return name##_on_avx512(args...);              \
      case Isa::kAvx2: return name##_on_avx2(args...);                  \
      default: return name##_on_baseline(args...);                      \
    }                                                                   \
  }
#else
#define TILEWRIGHT_CPU_KERNEL(name, ...) \
  using name##_function = __VA_ARGS__;   \
  name##_function name##_on_baseline;    \
  template <class... Args>               \
  inline auto name(Args&&... args) {     \
    return name##_on_baseline(args...);  \
  }
#endif

}  // namespace tilewright
