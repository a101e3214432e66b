// SHAP values of rows, and of pairs of features.
#include "tilewright/core/dispatch.h"
#include "tilewright/trees/tree_shap_rows.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
void explain(const ShapParams& p, int64_t begin, int64_t end) {
  BlockOfRows<false> block(p);
  const int64_t columns = p.features + 1;
  for (int64_t first = begin; first < end; first += p.block_rows) {
    const int64_t count = min_of(p.block_rows, end - first);
    block.load(static_cast<const T*>(p.x), first, count);
    for (int64_t k = 0; k < p.outputs; ++k) {
      block.add_up(k);
      for (int64_t r = 0; r < count; ++r) {
        float* to = p.out + ((first + r) * p.outputs + k) * columns;
        for (int64_t u = 0; u < p.used_count; ++u) to[p.used[u]] = float(block.sum_of(u)[r]);
        to[p.features] = float(p.expected[k]);
      }
    }
  }
}

template <class T>
void explain_pairs(const ShapParams& p, int64_t begin, int64_t end) {
  BlockOfRows<true> block(p);
  const int64_t columns = p.features + 1;
  Buffer<double> own;  // (used features, block rows): what pairs leave of each feature's value
  own.resize(p.used_count * p.block_rows);
  for (int64_t first = begin; first < end; first += p.block_rows) {
    const int64_t count = min_of(p.block_rows, end - first);
    block.load(static_cast<const T*>(p.x), first, count);
    for (int64_t k = 0; k < p.outputs; ++k) {
      const auto table = [&](int64_t r) {
        return p.out + ((first + r) * p.outputs + k) * columns * columns;
      };
      block.add_up(k);
      for (int64_t u = 0; u < p.used_count; ++u) {
        for (int64_t r = 0; r < count; ++r) own[u * p.block_rows + r] = block.sum_of(u)[r];
      }
      for (int64_t u = 0; u < p.used_count; ++u) {
        block.add_up(k, int32_t(u));
        const int64_t i = p.used[u];
        for (int64_t v = 0; v < p.used_count; ++v) {
          const int64_t j = p.used[v];
          for (int64_t r = 0; r < count; ++r) {
            const double half = block.sum_of(v)[r] / 2;
            own[u * p.block_rows + r] -= half;
            // The same bits on both sides of the diagonal.
            if (u < v) table(r)[i * columns + j] = table(r)[j * columns + i] = float(half);
          }
        }
        for (int64_t r = 0; r < count; ++r) {
          table(r)[i * columns + i] = float(own[u * p.block_rows + r]);
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        table(r)[columns * columns - 1] = float(p.expected[k]);
      }
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(tree_shap_rows)(const ShapParams& params, int64_t begin, int64_t end) {
  dispatch_floating("tree_shap", params.dtype,
                    [&](auto tag) { explain<typename decltype(tag)::type>(params, begin, end); });
}

void TILEWRIGHT_ON_MACHINE(tree_shap_pair_rows)(const ShapParams& params, int64_t begin,
                                                int64_t end) {
  dispatch_floating("tree_shap_interactions", params.dtype, [&](auto tag) {
    explain_pairs<typename decltype(tag)::type>(params, begin, end);
  });
}

}  // namespace tilewright
