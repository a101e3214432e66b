// Grows one tree of a forest: nodes depth first, or the best leaf first.
#pragma once
#include <algorithm>

#include "tilewright/trees/forest_draws.h"
#include "tilewright/trees/forest_open.h"
#include "tilewright/trees/forest_thresholds.h"
#include "tilewright/trees/forest_views.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

// Additions from which on a node's features are worth spreading over threads.
inline constexpr int64_t kForestParallelAdds = 65536;

template <class Code, class Stats>
class ForestGrower {
 public:
  ForestGrower(const ForestTable& table, const ForestRules& rules, const ForestSample& sample,
               const ForestNodes& out)
      : table_(table),
        rules_(rules),
        sample_(sample),
        out_(out),
        stats_(table, rules),
        least_{rules.min_leaf, rules.min_weight},
        draws_(sample.tree, rules.seed),
        features_(table.features),
        views_(table, rules, sample, stats_.row_width()) {
    const int64_t tasks = sample.parallel == nullptr ? 1 : max_of<int64_t>(sample.tasks, 1);
    searches_ = new ForestSearch<Code, Stats>[size_t(tasks)];
    for (int64_t t = 0; t < tasks; ++t)
      searches_[t].prepare(table, stats_, least_, !rules.random_thresholds);
    tasks_ = tasks;
    sums_.resize(8 * stats_.width());
  }
  ~ForestGrower() { delete[] searches_; }
  ForestGrower(const ForestGrower&) = delete;

  int64_t grow() {
    ForestOpen root{0, sample_.count, 0, 0, 0, 0, 0, {}, 0};
    int64_t* sums = sums_at(0);
    std::memset(sums, 0, size_t(stats_.width()) * sizeof(int64_t));
    const ForestRows& data = views_.at(0).data;
    for (int64_t i = 0; i < sample_.count; ++i) stats_.add(data, sample_.rows[i], sums);
    make_node(-1, false);
    rules_.max_leaves > 0 ? best_first(root) : depth_first(root);
    return nodes_;
  }

 private:
  int64_t* sums_at(int64_t slot) { return sums_.data() + slot * stats_.width(); }
  void reserve_slots(int64_t slots) {
    if (sums_.size() < slots * stats_.width()) sums_.resize(2 * slots * stats_.width());
  }

  int32_t make_node(int32_t parent, bool is_left) {
    const auto node = int32_t(nodes_++);
    if (parent >= 0) (is_left ? out_.left : out_.right)[parent] = node;
    out_.feature[node] = out_.left[node] = out_.right[node] = -1;
    out_.code[node] = 0;
    out_.default_left[node] = 0;
    out_.gain[node] = 0;
    return node;
  }

  // The slots of the stack are its places.
  void depth_first(const ForestOpen& root) {
    Buffer<ForestOpen> stack;
    stack.push_back(root);
    while (!stack.empty()) {
      ForestOpen open = stack[stack.size() - 1];
      open.slot = int32_t(stack.size() - 1);
      open.level = views_.gather(open.level, sample_.rows + open.begin, open.end - open.begin);
      stack.resize(stack.size() - 1);
      if (!may_split(open) || !find(open)) {
        finish_leaf(open);
        continue;
      }
      reserve_slots(open.slot + 2);
      const auto [left, right] = split(open, open.slot + 1, open.slot);
      stack.push_back(right);
      stack.push_back(left);
    }
  }

  void best_first(const ForestOpen& root) {
    Buffer<ForestOpen> heap;
    int32_t slots = 1;
    const auto offer = [&](ForestOpen open) {
      open.constants = 0;
      if (!may_split(open) || !find(open)) return finish_leaf(open);
      heap.push_back(open);
      std::push_heap(heap.begin(), heap.end(), ForestLesserGain());
    };
    offer(root);
    for (int64_t leaves = 1; !heap.empty(); ++leaves) {
      std::pop_heap(heap.begin(), heap.end(), ForestLesserGain());
      const ForestOpen open = heap[heap.size() - 1];
      heap.resize(heap.size() - 1);
      if (leaves >= rules_.max_leaves) {
        finish_leaf(open);
        --leaves;
        continue;
      }
      reserve_slots(slots + 1);
      recount_left(open);
      const auto [left, right] = split(open, slots++, open.slot);
      offer(left);
      offer(right);
    }
  }

  const ForestNodeView<Code>& view(const ForestOpen& open) {
    view_ = views_.at(open.level);
    view_.rows = sample_.rows + open.begin;
    view_.count = open.end - open.begin;
    view_.total = sums_at(open.slot);
    return view_;
  }

  bool may_split(const ForestOpen& open) {
    const int64_t* sums = sums_at(open.slot);
    const int64_t rows = open.end - open.begin;
    out_.cover[open.node] = float(stats_.weight(sums) * table_.weight_unit);
    if (rules_.max_depth > 0 && open.depth >= rules_.max_depth) return false;
    if (rows < rules_.min_split || rows < 2 * rules_.min_leaf) return false;
    if (stats_.weight(sums) < 2 * rules_.min_weight) return false;
    const ForestNodeView<Code>& node = view(open);
    return !stats_.pure(node.data, node.rows, node.count, sums);
  }

  // The node's best split, by the rule that features are drawn until one varies.
  bool find(ForestOpen& open) {
    const ForestNodeView<Code>& node = view(open);
    features_.begin(open.constants);
    for (int64_t t = 0; t < tasks_; ++t) searches_[t].begin();
    best_search_ = 0;
    drawn_.clear();
    while (features_.more() && features_.visited() < rules_.features_per_node) draw_one();
    offer(node);
    while (features_.more() && features_.none_varies()) {
      drawn_.clear();
      draw_one();
      offer(node);
    }
    open.constants = features_.finish();
    if (searches_[best_search_].best().feature < 0) return false;
    open.split = searches_[best_search_].settled();
    open.gain = (open.split.score - stats_.score(node.total)) * gain_scale();
    return open.gain + 2.220446049250313e-16 >= rules_.min_gain;
  }
  void draw_one() {
    const int32_t feature = features_.draw(draws_);
    if (feature >= 0) drawn_.push_back(feature);
  }
  double gain_scale() const {
    double scale = 1;
    if (rules_.stats == ForestStats::kValues) {
      const double unit = table_.value_unit / table_.weight_unit;
      scale = unit * unit / double(table_.outputs);
    } else if (rules_.criterion == ForestCriterion::kEntropy) {
      scale = 1.4426950408889634;  // 1 / log 2
    }
    return scale / sample_.total;
  }

  void offer(const ForestNodeView<Code>& node) {
    const int64_t count = drawn_.size(), step = searches_[0].at_once();
    if (count == 0) return;
    constant_.resize(count);
    if (rules_.random_thresholds) {
      chances_.resize(count);
      for (int64_t j = 0; j < count; ++j) {
        chances_[j] = {draws_.share(), (draws_.next() & 1) != 0};
      }
    }
    const int64_t pieces = ceil_div(count, step);
    const int64_t tasks =
        node.count * count < kForestParallelAdds ? 1 : min_of<int64_t>(tasks_, pieces);
    const auto body = [&](int64_t task) {
      const int64_t first = pieces * task / tasks, last = pieces * (task + 1) / tasks;
      for (int64_t p = first; p < last; ++p) offer_piece(searches_[task], node, p * step, step);
    };
    using Body = decltype(body);
    if (tasks == 1) {
      body(0);
    } else {
      sample_.parallel(
          tasks, [](void* given, int64_t task) { (*static_cast<Body*>(given))(task); },
          const_cast<void*>(static_cast<const void*>(&body)));
      // Tasks hold features in the order drawn, so the first of equal splits is still the first.
      for (int64_t t = 1; t < tasks; ++t) {
        if (searches_[t].best().score > searches_[best_search_].best().score) best_search_ = t;
      }
    }
    features_.note_constants(constant_.data(), count);
  }
  void offer_piece(ForestSearch<Code, Stats>& search, const ForestNodeView<Code>& node,
                   int64_t begin, int64_t step) {
    const int64_t count = min_of(step, drawn_.size() - begin);
    if (rules_.random_thresholds) {
      search.offer_drawn(node, drawn_.data() + begin, count, chances_.data() + begin,
                         constant_.data() + begin);
    } else {
      search.offer(node, drawn_.data() + begin, count, constant_.data() + begin);
    }
  }

  // A split that waited: the sums of its left side are those of the rows that go there.
  void recount_left(const ForestOpen& open) {
    const ForestNodeView<Code>& node = view(open);
    recounted_.assign(stats_.width(), 0);
    const int32_t missing = table_.missing;
    for (int64_t i = 0; i < node.count; ++i) {
      const int32_t row = node.rows[i], code = node.codes[row * node.stride + open.split.feature];
      const bool left = code == missing ? open.split.default_left : code <= open.split.code;
      stats_.add_if(node.data, row, left, recounted_.data());
    }
  }

  struct Children {
    ForestOpen left, right;
  };
  // The children's sums go to two slots, one of which may be the parent's.
  Children split(const ForestOpen& open, int32_t left_slot, int32_t right_slot) {
    const ForestNodeView<Code>& node = view(open);
    const ForestSplit& chosen = open.split;
    const int64_t width = stats_.width();
    const int64_t* found =
        rules_.max_leaves > 0 ? recounted_.data() : searches_[best_search_].left();
    int64_t *left_sums = sums_at(left_slot), *right_sums = sums_at(right_slot);
    for (int64_t i = 0; i < width; ++i) {
      const int64_t whole = node.total[i], part = found[i];
      left_sums[i] = part;
      right_sums[i] = whole - part;
    }
    const int64_t middle = open.begin + part_rows(node, chosen, uint32_t(table_.missing),
                                                  sample_.rows + open.begin, sample_.scratch);
    const int32_t at = open.node;
    out_.feature[at] = chosen.feature;
    out_.code[at] = chosen.code;
    out_.gain[at] = float(open.gain);
    std::memset(out_.value + at * table_.outputs, 0, size_t(table_.outputs) * sizeof(float));
    // What a node has not seen goes to the child of more rows.
    out_.default_left[at] =
        chosen.missing ? chosen.default_left : middle - open.begin > open.end - middle;
    const int32_t left = make_node(at, true), right = make_node(at, false);
    const ForestSplit none;
    return {
        {open.begin, middle, left, open.depth + 1, open.constants, left_slot, open.level, none, 0},
        {middle, open.end, right, open.depth + 1, open.constants, right_slot, open.level, none, 0}};
  }

  void finish_leaf(const ForestOpen& open) {
    stats_.value(sums_at(open.slot), out_.value + int64_t(open.node) * table_.outputs);
    if (!sample_.keep_rows) return;
    out_.begin[open.node] = open.begin;
    out_.end[open.node] = open.end;
  }

  const ForestTable& table_;
  const ForestRules& rules_;
  const ForestSample& sample_;
  const ForestNodes& out_;
  Stats stats_;
  ForestLeast least_;
  ForestDraws draws_;
  ForestFeatures features_;
  ForestViews<Code> views_;
  ForestSearch<Code, Stats>* searches_ = nullptr;
  int64_t tasks_ = 1, best_search_ = 0, nodes_ = 0;
  ForestNodeView<Code> view_{};
  Buffer<int64_t> sums_, recounted_;
  Buffer<int32_t> drawn_;
  Buffer<bool> constant_;
  Buffer<ForestChance> chances_;
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
