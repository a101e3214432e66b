// What a grower keeps from tree to tree: codes, words, lists of rows, histograms.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/huge_pages.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright {

// Runs body(task, thread) for all tasks, by the threads at hand, as they become free: what tasks
// produce must not depend on their order.
template <class Body>
void run_tree_tasks(int64_t count, const Body& body) {
  std::atomic<int64_t> taken{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      for (int64_t task; (task = taken.fetch_add(1, std::memory_order_relaxed)) < count;) {
        try {
          body(task, thread);
        } catch (...) {
          taken = count;  // the other threads begin no more
          throw;
        }
      }
    }
  });
}

// The rows of one leaf, or of two that flags tell apart.
struct LeafRows {
  TreeRows rows;
  const uint8_t* flags;  // null where they are of one
};

// Histograms of (F, codes), handed out and taken back.
class HistogramPool {
 public:
  explicit HistogramPool(int64_t size) : size_(size) {}
  int32_t take() {
    if (free_.empty()) {
      TILEWRIGHT_CHECK("grow_tree", int64_t(all_.size() + 1) * size_ <= kMostCounters,
                       "more nodes are open at once than histograms of ", kMostCounters,
                       " bins in all hold; limit max_depth or the number of leaves");
      all_.push_back(std::make_unique<TreeCount[]>(size_t(size_)));
      return int32_t(all_.size() - 1);
    }
    const int32_t slot = free_.back();
    free_.pop_back();
    std::fill_n(all_[size_t(slot)].get(), size_, TreeCount{0, 0});
    return slot;
  }
  void give_back(int32_t slot) {
    if (slot >= 0) free_.push_back(slot);
  }
  TreeCount* at(int32_t slot) { return all_[size_t(slot)].get(); }

 private:
  static constexpr int64_t kMostCounters = int64_t(1) << 29;  // 8 GiB
  int64_t size_;
  std::vector<std::unique_ptr<TreeCount[]>> all_;
  std::vector<int32_t> free_;
};

struct TreeGrower::Workspace {
  at::Tensor bins;
  HugeBuffer row_codes, column_codes;
  // Rows by node and, where they are many, their words in the same order: a level divides those of
  // one side into the other.
  HugeBuffer rows[2], words[2];
  HugeBuffer pairs;  // by row, where rows are few; of vector leaves (outputs, rows)
  // Of vector leaves, whose rows are divided without their words: how many entries a leaf has (0:
  // leaves are numbers), words (outputs, rows) where rows are many, what integers count.
  int64_t outputs = 0;
  HugeBuffer output_words;
  std::vector<TreeSum> units;
  HugeBuffer flags;  // of the rows of the nodes that are divided, by place
  TreeCodes codes{};
  int64_t active = 0;  // rows that take part
  std::unique_ptr<HistogramPool> histograms;
  std::vector<std::vector<int64_t>> packed;  // of each thread
  std::vector<std::vector<TreeCount>> sums;  // the same
  double gradient_unit = 1, hessian_unit = 1;
  bool few_rows = false;

  // From a place on; the root's are a range where all rows take part.
  TreeRows rows_at(int side, int64_t place) const {
    return {side < 0 ? nullptr : rows[side].as<int32_t>() + place, place};
  }
  LeafRows leaf_rows(const GrownTree::Rows& part) const {
    return {rows_at(part.side, part.begin),
            part.other < 0 ? nullptr : flags.as<uint8_t>() + part.begin};
  }
  int64_t* words_at(int side, int64_t place) {
    if (few_rows || outputs > 0) return nullptr;
    return words[std::max(side, 0)].as<int64_t>() + place;
  }
  int64_t histograms_of_node() const { return std::max<int64_t>(outputs, 1); }
  // The words of `count` rows in their order, as histograms take them; `gathered` may hold them.
  const int64_t* words_of(int64_t output, int side, int64_t place, int64_t count,
                          int64_t* gathered) {
    if (outputs == 0) return words_at(side, place);
    const int64_t* from = output_words.as<int64_t>() + output * codes.count;
    if (side < 0) return from + place;
    const int32_t* list = rows[side].as<int32_t>() + place;
    for (int64_t i = 0; i < count; ++i) gathered[i] = from[list[i]];
    return gathered;
  }
  // Of vector leaves: a row's integers.
  TreeCount count_at(int64_t output, int64_t row) const {
    const int64_t at = output * codes.count + row;
    return few_rows ? pairs.as<TreeCount>()[at] : count_of(output_words.as<int64_t>()[at]);
  }
};

}  // namespace tilewright
