// The front of _draw_row_mask, and its kernel on the CPU.
#include "tilewright/trees/row_mask.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/trees/tree_row_draw.h"

namespace tilewright {
namespace {

constexpr int64_t kQuadGrain = 4096;

at::Tensor empty_mask(const at::Tensor& codes, double share, int64_t round) {
  check_draw_row_mask(codes, share, round);
  return at::empty_symint({codes.sym_size(0)}, codes.options().dtype(at::kBool));
}

at::Tensor draw_row_mask_meta(const at::Tensor& codes, double share, int64_t round, int64_t) {
  return empty_mask(codes, share, round);
}

at::Tensor draw_row_mask_cpu(const at::Tensor& codes, double share, int64_t round, int64_t seed) {
  at::Tensor mask = empty_mask(codes, share, round);
  const int64_t rows = mask.numel();
  auto* drawn = mask.mutable_data_ptr<bool>();
  at::parallel_for(0, ceil_div(rows, int64_t(4)), kQuadGrain, [&](int64_t first, int64_t last) {
    for (int64_t quad = first; quad < last; ++quad) {
      const Philox random = tree_row_words(quad, uint32_t(round), uint64_t(seed));
      for (int64_t row = 4 * quad; row < std::min(4 * quad + 4, rows); ++row) {
        drawn[row] = is_row_drawn(random.word[row % 4], share);
      }
    }
  });
  return mask;
}

}  // namespace

void check_draw_row_mask(const at::Tensor& codes, double share, int64_t round) {
  constexpr const char* kOp = "_draw_row_mask";
  check_given(kOp, "codes", codes);
  check_shape(kOp, "codes", codes, "(N, F)", 2);
  TILEWRIGHT_CHECK(kOp, share >= 0 && share <= 1, "share must lie in [0, 1], got ", share);
  TILEWRIGHT_CHECK(kOp, round >= 0 && round <= std::numeric_limits<uint32_t>::max(),
                   "round must lie in [0, 2^32), got ", round);
}

at::Tensor draw_row_mask(const at::Tensor& codes, double share, int64_t round, int64_t seed) {
  static const auto op = operator_handle<decltype(draw_row_mask)>("tilewright::_draw_row_mask");
  return op.call(codes, share, round, seed);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("_draw_row_mask(Tensor codes, float share, int round, int seed) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("_draw_row_mask", &draw_row_mask_meta); }
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("_draw_row_mask", &draw_row_mask_cpu); }

}  // namespace tilewright
