// Reads which instruction set this process runs with.
#include "tilewright/core/cpu/isa.h"

#include <ATen/Version.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace tilewright {
namespace {

Isa best_isa() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return Isa::kAvx512;
  if (capability == "AVX2") return Isa::kAvx2;
  return Isa::kBaseline;
}

Isa read_isa() {
  const Isa best = best_isa();
  const char* asked = std::getenv("TILEWRIGHT_ISA");
  if (asked == nullptr || *asked == '\0') return best;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(asked) != isa_name(isa)) continue;
    TORCH_CHECK(isa <= best, "tilewright: TILEWRIGHT_ISA=", asked,
                " is more than this machine has: ", isa_name(best));
    return isa;
  }
  TORCH_CHECK(false, "tilewright: TILEWRIGHT_ISA must be baseline, avx2 or avx512, got ", asked);
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline: return "baseline";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "unknown";
}

Isa current_isa() {
  static const Isa isa = read_isa();
  return isa;
}

}  // namespace tilewright
