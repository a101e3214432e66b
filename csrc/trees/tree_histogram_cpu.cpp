// tree_histogram on the CPU: each thread adds all rows to the histograms of some features.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/grow_tree_args.h"
#include "tilewright/trees/names.h"

namespace tilewright {
namespace {

constexpr int64_t kHistogramGrain = 16384;
constexpr int64_t kFeatureBlock = 8;  // a cache line of codes, or part of one

struct Scales {
  double gradient, hessian;
};

template <class T>
std::vector<TreeCount> pairs_of(const T* gradients, const T* hessians, int64_t rows,
                                Scales& scales) {
  double most_gradient = 0, most_hessian = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double g = double(gradients[i]), h = double(hessians[i]);
    TILEWRIGHT_CHECK(kTreeHistogram, std::isfinite(g) && h >= 0 && h < HUGE_VAL,
                     "gradients must be finite and hessians finite and not negative; those of row ",
                     i, " are not");
    most_gradient = max_of(most_gradient, std::fabs(g));
    most_hessian = max_of(most_hessian, h);
  }
  const int bits = tree_fine_bits(rows);
  scales = {tree_scale(most_gradient, bits), tree_scale(most_hessian, bits)};
  std::vector<TreeCount> pairs(static_cast<size_t>(rows));
  at::parallel_for(0, rows, kHistogramGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pairs[size_t(i)] =
          tree_pair(double(gradients[i]), double(hessians[i]), scales.gradient, scales.hessian);
    }
  });
  return pairs;
}

template <class Code>
void add_rows(const at::Tensor& codes, const std::vector<TreeCount>& pairs, const int32_t* node,
              int64_t num_codes, int64_t* sums) {
  const auto* table = static_cast<const Code*>(codes.const_data_ptr());
  const int64_t rows = codes.size(0), features = codes.size(1);
  const int64_t row_stride = codes.stride(0), column_stride = codes.stride(1);
  at::parallel_for(0, ceil_div(features, kFeatureBlock), 1,
                   [&](int64_t first_block, int64_t last_block) {
                     for (int64_t block = first_block; block < last_block; ++block) {
                       const int64_t first = block * kFeatureBlock;
                       const int64_t last = min_of(first + kFeatureBlock, features);
                       for (int64_t i = 0; i < rows; ++i) {
                         const int64_t id = node == nullptr ? 0 : node[i];
                         if (id < 0) continue;
                         const TreeCount pair = pairs[size_t(i)];
                         for (int64_t f = first; f < last; ++f) {
                           const int64_t code = table[i * row_stride + f * column_stride];
                           int64_t* const sum = sums + 2 * ((id * features + f) * num_codes + code);
                           sum[0] += pair.gradient;
                           sum[1] += pair.hessian;
                         }
                       }
                     }
                   });
}

std::tuple<at::Tensor, at::Tensor> tree_histogram_cpu(const at::Tensor& codes,
                                                      const at::Tensor& gradients,
                                                      const at::Tensor& hessians,
                                                      const std::optional<at::Tensor>& node,
                                                      int64_t num_nodes, int64_t num_codes) {
  check_tree_histogram(codes, gradients, hessians, node, num_nodes, num_codes);
  check_codes_exist(kTreeHistogram, codes, num_codes);
  const int64_t rows = codes.size(0);
  at::Tensor nodes;
  if (node.has_value()) {
    nodes = node->contiguous();
    const auto* ids = nodes.const_data_ptr<int32_t>();
    for (int64_t i = 0; i < rows; ++i) {
      TILEWRIGHT_CHECK(kTreeHistogram, ids[i] >= -1 && ids[i] < num_nodes, "node must lie in [0, ",
                       num_nodes, ") or be -1, that of row ", i, " is ", ids[i]);
    }
  }
  const at::Tensor g = tree_values(gradients), h = tree_values(hessians);
  Scales scales{1, 1};
  const std::vector<TreeCount> pairs =
      g.scalar_type() == at::kDouble
          ? pairs_of(g.const_data_ptr<double>(), h.const_data_ptr<double>(), rows, scales)
          : pairs_of(g.const_data_ptr<float>(), h.const_data_ptr<float>(), rows, scales);
  at::Tensor sums =
      at::zeros({num_nodes, codes.size(1), num_codes, 2}, codes.options().dtype(at::kLong));
  const auto* ids = nodes.defined() ? nodes.const_data_ptr<int32_t>() : nullptr;
  auto* const out = sums.mutable_data_ptr<int64_t>();
  codes.scalar_type() == at::kByte ? add_rows<uint8_t>(codes, pairs, ids, num_codes, out)
                                   : add_rows<int16_t>(codes, pairs, ids, num_codes, out);
  at::Tensor units = at::empty({2}, codes.options().dtype(at::kDouble));
  units.mutable_data_ptr<double>()[0] = 1 / scales.gradient;
  units.mutable_data_ptr<double>()[1] = 1 / scales.hessian;
  return {sums, units};
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("tree_histogram", &tree_histogram_cpu); }

}  // namespace tilewright
