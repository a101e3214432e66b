// Says which build this is, so that a program can tell what it runs.
#pragma once
#include <string>

#include "tilewright/core/export.h"

namespace tilewright {
TILEWRIGHT_API const char* version();              // "0.1.0"
TILEWRIGHT_API const char* built_torch_version();  // "2.11.0": one binary serves one torch minor
TILEWRIGHT_API const char* built_cuda();  // "13.0, architectures 8.0;9.0+PTX", or "" for CPU only
TILEWRIGHT_API std::string cpu_instruction_set();  // "baseline", "avx2" or "avx512": what runs here
}  // namespace tilewright
