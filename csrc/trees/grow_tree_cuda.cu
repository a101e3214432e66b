// grow_tree on CUDA: a fixed row of launches, whose sizes follow from shapes, so that the host asks
// for nothing and a CUDA graph may hold them.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "tilewright/core/check.h"
#include "tilewright/trees/grow_tree_args.h"
#include "tilewright/trees/tree_histogram_cuda.h"
#include "tilewright/trees/tree_rows_kernel.cuh"
#include "tilewright/trees/tree_split_kernel.cuh"

namespace tilewright {
namespace {

constexpr int64_t kMostCounters = int64_t(1) << 29;  // 8 GiB
constexpr int kWarpsPerBlock = kSplitThreads / kLanes;

class Growth {
 public:
  explicit Growth(const GrowTreeArgs& args)
      : args_(args),
        codes_(args.codes.contiguous()),
        gradients_(tree_values(args.gradients)),
        hessians_(tree_values(args.hessians)),
        result_(empty_grow_tree(args)) {
    p_.wide = codes_.scalar_type() == at::kShort;
    p_.codes = codes_data(codes_);
    p_.rows = codes_.size(0);
    p_.features = codes_.size(1);
    p_.num_codes = args.num_codes;
    p_.rules = args.rules;
    p_.max_depth = args.max_depth;
    p_.pairs = tree_uses_pairs(p_.rows);
    const int64_t slots = int64_t(1) << (args.max_depth - 1);
    TILEWRIGHT_CHECK("grow_tree", slots * p_.features <= kMostCounters / p_.num_codes,
                     "a level of depth ", args.max_depth, " has ", slots, " histograms of ",
                     p_.features, " features and ", p_.num_codes, " codes, which are more than ",
                     kMostCounters, " bins; lower max_depth");
    const auto bytes = codes_.options(), ints = bytes.dtype(at::kInt),
               longs = bytes.dtype(at::kLong);
    keep_inputs();
    words_ = tree_words_of(gradients_, hessians_, p_.pairs);
    p_.words = const_data<int64_t>(words_.words);
    p_.scales = scales_data(words_.scales);
    nodes_ = at::zeros({(2 * slots * 2 - 1) * int64_t(sizeof(TreeNode) / sizeof(int64_t))}, longs);
    p_.nodes = reinterpret_cast<TreeNode*>(mutable_data<int64_t>(nodes_));
    histograms_ = at::zeros({slots * p_.features * p_.num_codes * 2}, longs);
    p_.histograms = counts_data(histograms_);
    candidates_ =
        at::empty({slots * p_.features * int64_t(sizeof(TreeCandidate) / sizeof(int64_t))}, longs);
    p_.candidates = reinterpret_cast<TreeCandidate*>(mutable_data<int64_t>(candidates_));
    positions_ = at::empty({5, p_.rows}, ints);
    int32_t** const arrays[] = {&p_.order, &p_.owner, &p_.next_order, &p_.next_owner, &p_.sides};
    for (int64_t i = 0; i < 5; ++i) *arrays[i] = mutable_data<int32_t>(positions_) + i * p_.rows;
  }

  GrowTreeResult run() {
    const LaunchConfig rows = linear_config(p_.rows, kRowThreads);
    LaunchConfig start = linear_config(ceil_div(p_.rows, 4), kRowThreads);
    start.shared_bytes = shared_bytes<TreeRowsParts>();
    if (mask_.defined()) add_up(mask_);
    launch<tree_start_kernel>(start, p_);
    launch<tree_root_kernel>(LaunchConfig{.grid = 1, .block = 1}, p_);
    const at::Tensor sides = positions_.select(0, 4);
    for (p_.level = 0; p_.level < p_.max_depth; ++p_.level) {
      count();
      search();
      launch<tree_sides_kernel>(rows, p_);
      add_up(sides);
      launch<tree_children_kernel>(linear_config(p_.level_nodes(), kRowThreads), p_);
      launch<tree_move_kernel>(rows, p_);
      std::swap(p_.order, p_.next_order);
      std::swap(p_.owner, p_.next_owner);
    }
    gradients_.scalar_type() == at::kDouble ? add_fine<double>() : add_fine<float>();
    const TreeOutputs out = outputs();
    launch<tree_answer_kernel>(LaunchConfig{.grid = 1, .block = kRowThreads}, p_, out);
    launch<tree_leaf_kernel>(rows, p_, out);
    return result_;
  }

 private:
  void keep_inputs() {
    bins_ = args_.bins.contiguous();
    p_.bins = const_data<int32_t>(bins_);
    if (args_.rows.has_value()) {
      mask_ = args_.rows->contiguous();
      p_.mask = const_data<bool>(mask_);
    }
    if (args_.columns.has_value()) {
      columns_ = args_.columns->contiguous();
      p_.columns = const_data<bool>(columns_);
    }
    if (!args_.monotone.has_value() || p_.features == 0) return;
    monotone_ = args_.monotone->contiguous();
    p_.monotone = const_data<int8_t>(monotone_);
    at::Tensor signs = monotone_ != 0;
    if (columns_.defined()) signs = signs.logical_and(columns_);
    constrained_ = signs.any();
    p_.constrained = const_data<bool>(constrained_);
  }

  void add_up(const at::Tensor& flags) {
    before_ = at::cumsum(flags, 0, at::kInt);
    p_.before = const_data<int32_t>(before_);
  }

  void count() const {
    TreeHistogramParams h{};
    h.codes = p_.codes;
    h.features = p_.features;
    h.num_codes = p_.num_codes;
    h.columns = p_.columns;
    h.words = p_.words;
    h.order = p_.order;
    h.owner = p_.owner;
    h.positions = p_.rows;
    h.end = &p_.nodes->end;
    h.slot = &p_.nodes->counted;
    h.stride = int64_t(sizeof(TreeNode) / sizeof(int32_t));
    h.first_owner = int32_t(p_.first_node());
    h.last_owner = int32_t(p_.first_node() + p_.level_nodes());
    h.histograms = p_.histograms;
    count_histograms(h, p_.wide, p_.pairs);
  }

  void search() const {
    const LaunchConfig by_feature{
        .grid = dim3(unsigned(ceil_div(p_.features, kWarpsPerBlock)), unsigned(p_.level_nodes())),
        .block = kSplitThreads};
    launch<tree_candidates_kernel>(by_feature, p_);
    const LaunchConfig by_node{.grid = dim3(unsigned(ceil_div(p_.level_nodes(), kWarpsPerBlock))),
                               .block = kSplitThreads};
    launch<tree_choose_kernel>(by_node, p_);
  }

  template <class T>
  void add_fine() const {
    const TreeFineParams<T> values{const_data<T>(gradients_), const_data<T>(hessians_)};
    launch<tree_fine_kernel<T>>(linear_config(ceil_div(p_.rows, 4), kRowThreads), p_, values);
  }

  TreeOutputs outputs() const {
    const auto& [feature, code, default_left, weight, gain, cover, leaf] = result_;
    return {mutable_data<int32_t>(feature),   mutable_data<int32_t>(code),
            mutable_data<bool>(default_left), mutable_data<double>(weight),
            mutable_data<double>(gain),       mutable_data<double>(cover),
            mutable_data<int32_t>(leaf)};
  }

  const GrowTreeArgs& args_;
  const at::Tensor codes_, gradients_, hessians_;
  GrowTreeResult result_;
  TreeGrowthParams p_{};
  at::Tensor bins_, mask_, columns_, monotone_, constrained_;
  TreeWords words_;
  at::Tensor nodes_, histograms_, candidates_, positions_, before_;
};

GrowTreeResult grow_tree_cuda(const at::Tensor& codes, const at::Tensor& bins,
                              const at::Tensor& gradients, const at::Tensor& hessians,
                              int64_t num_codes, int64_t max_depth, double reg_lambda,
                              double reg_alpha, double gamma, double min_child_weight,
                              double max_delta_step, const std::optional<at::Tensor>& rows,
                              const std::optional<at::Tensor>& columns,
                              const std::optional<at::Tensor>& monotone) {
  const GrowTreeArgs args{codes,
                          bins,
                          gradients,
                          hessians,
                          num_codes,
                          max_depth,
                          {reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step},
                          rows,
                          columns,
                          monotone};
  check_grow_tree(args);
  const DeviceGuard guard(codes);
  return Growth(args).run();
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("grow_tree", &grow_tree_cuda); }

}  // namespace tilewright
