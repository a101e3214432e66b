// Opens the operator namespace; every front adds its schemas in a fragment of its own.
#include <torch/library.h>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/core/version.h"
#include "tilewright_version.h"

TORCH_LIBRARY(tilewright, m) { (void)m; }

namespace tilewright {
const char* version() { return TILEWRIGHT_VERSION; }
const char* built_torch_version() { return TILEWRIGHT_TORCH_VERSION; }
const char* built_cuda() { return TILEWRIGHT_CUDA_BUILD; }
std::string cpu_instruction_set() { return isa_name(current_isa()); }
}  // namespace tilewright
