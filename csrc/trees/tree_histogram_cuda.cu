// tree_histogram on CUDA, and the steps of it that grow_tree takes too.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "tilewright/trees/grow_tree_args.h"
#include "tilewright/trees/tree_histogram_cuda.h"

namespace tilewright {
namespace {

// Rows of a block where gradients and hessians have an integer each: fewer, since such tables are
// small and there would be too few blocks.
constexpr int64_t kPairTile = 1024;
constexpr int64_t kCounterBytes = 48 * 1024;
constexpr int64_t kMostGroups = 65535;

template <class T>
void fill_words(const at::Tensor& gradients, const at::Tensor& hessians, bool pairs,
                const TreeWords& to) {
  TreeWordsKernelParams<T> params{};
  params.gradients = const_data<T>(gradients);
  params.hessians = const_data<T>(hessians);
  params.rows = gradients.numel();
  params.pairs = pairs;
  params.parts = int(std::min<int64_t>(ceil_div(params.rows, 4 * kWordThreads), kMostExtremes));
  const at::Tensor extremes = at::empty({2 * params.parts}, to.scales.options());
  params.extremes = mutable_data<double>(extremes);
  params.words = mutable_data<int64_t>(to.words);
  params.scales = scales_data(to.scales);
  LaunchConfig config;
  config.grid = dim3(unsigned(params.parts));
  config.block = kWordThreads;
  config.shared_bytes = shared_bytes<TreeWordsParts>();
  launch<tree_extremes_kernel<T>>(config, params);
  // One block where there is no row: it says what the scales are.
  config.grid = linear_config(std::max<int64_t>(params.rows, 1), kWordThreads).grid;
  launch<tree_words_kernel<T>>(config, params);
}

template <class Code, bool kPairs>
void launch_histogram(TreeHistogramParams params) {
  params.tile = kPairs ? kPairTile : kTreeWordRows;
  const int64_t counter = 2 * sizeof(uint32_t) * (kPairs ? 2 : 1);
  const int64_t most = kCounterBytes / (counter * params.num_codes);
  params.groups = ceil_div(params.features, std::max<int64_t>(most, 1));
  params.width = most == 0 || params.groups == 0 ? 0 : ceil_div(params.features, params.groups);
  LaunchConfig config;
  config.grid = dim3(unsigned(ceil_div(params.positions, params.tile)),
                     unsigned(std::min(params.groups, kMostGroups)));
  config.block = kHistogramThreads;
  config.shared_bytes = shared_bytes<TreeCounters<kPairs>>(params.width * params.num_codes);
  launch<tree_histogram_kernel<Code, kPairs>>(config, params);
}

}  // namespace

inline namespace TILEWRIGHT_MACHINE {

TreeWords tree_words_of(const at::Tensor& gradients, const at::Tensor& hessians, bool pairs) {
  const auto options = gradients.options();
  const TreeWords out{
      at::empty({gradients.numel() * (pairs ? 2 : 1)}, options.dtype(at::kLong)),
      at::empty({int64_t(sizeof(TreeScales) / sizeof(double))}, options.dtype(at::kDouble))};
  gradients.scalar_type() == at::kDouble ? fill_words<double>(gradients, hessians, pairs, out)
                                         : fill_words<float>(gradients, hessians, pairs, out);
  return out;
}

void count_histograms(TreeHistogramParams params, bool wide, bool pairs) {
  if (wide) {
    pairs ? launch_histogram<uint16_t, true>(params) : launch_histogram<uint16_t, false>(params);
  } else {
    pairs ? launch_histogram<uint8_t, true>(params) : launch_histogram<uint8_t, false>(params);
  }
}

}  // namespace TILEWRIGHT_MACHINE

namespace {

std::tuple<at::Tensor, at::Tensor> tree_histogram_cuda(const at::Tensor& codes,
                                                       const at::Tensor& gradients,
                                                       const at::Tensor& hessians,
                                                       const std::optional<at::Tensor>& node,
                                                       int64_t num_nodes, int64_t num_codes) {
  check_tree_histogram(codes, gradients, hessians, node, num_nodes, num_codes);
  const DeviceGuard guard(codes);
  const auto ints = codes.options().dtype(at::kInt);
  const int64_t rows = codes.size(0), features = codes.size(1);
  const at::Tensor table = codes.contiguous();
  const TreeWords words =
      tree_words_of(tree_values(gradients), tree_values(hessians), /*pairs=*/true);
  at::Tensor sums = at::zeros({num_nodes, features, num_codes, 2}, ints.dtype(at::kLong));
  // Rows by node; those of no node come last.
  at::Tensor order, owner = at::zeros({rows}, ints), end = at::full({1}, rows, ints);
  const at::Tensor slot = at::arange(num_nodes, ints);
  if (node.has_value()) {
    const at::Tensor lost = (*node < 0).logical_or(*node >= num_nodes);
    const auto [sorted, index] = at::sort(node->masked_fill(lost, num_nodes),
                                          std::optional<bool>(true) /*stable*/, /*dim=*/0);
    order = index.to(at::kInt);
    end = at::searchsorted(sorted, slot, /*out_int32=*/true, /*right=*/true);
    owner = sorted.masked_fill(sorted == num_nodes, -1);
  }
  TreeHistogramParams params{};
  params.codes = codes_data(table);
  params.features = features;
  params.num_codes = num_codes;
  params.words = const_data<int64_t>(words.words);
  if (order.defined()) params.order = const_data<int32_t>(order);
  params.owner = const_data<int32_t>(owner);
  params.positions = rows;
  params.end = const_data<int32_t>(end);
  params.slot = const_data<int32_t>(slot);
  params.stride = 1;
  params.last_owner = int32_t(num_nodes);
  params.histograms = counts_data(sums);
  count_histograms(params, codes.scalar_type() == at::kShort, /*pairs=*/true);
  return {sums, words.scales.narrow(0, 0, 2).clone()};
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("tree_histogram", &tree_histogram_cuda); }

}  // namespace tilewright
