// Which features a node looks at, drawn one after the other, without those known to be constant.
#pragma once
#include <cstring>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/philox.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

// Random numbers of one tree, in the order in which it asks for them.
class ForestDraws {
 public:
  ForestDraws(uint32_t tree, uint64_t seed) : tree_(tree), seed_(seed) {}
  uint32_t next() {
    if (used_ == 4) {
      block_ = philox(counter_++, 0, kForestNodes, tree_, seed_);
      used_ = 0;
    }
    return block_.word[used_++];
  }
  // In [0, limit).
  int32_t below(int32_t limit) { return int32_t((uint64_t(next()) * uint64_t(limit)) >> 32); }
  double share() { return double(next()) * 0x1p-32; }

 private:
  static constexpr uint32_t kForestNodes = 17;  // another than those of TreeDraw
  uint32_t tree_, counter_ = 0;
  uint64_t seed_;
  Philox block_{};
  int used_ = 4;
};

// The features in an order that says what a node knows of them: first those that are constant in
// it, found by it or above it. Below a node they stay in front, so they are never looked at again.
class ForestFeatures {
 public:
  explicit ForestFeatures(int64_t count) : count_(int32_t(count)) {
    order_.resize(count);
    constants_.resize(count);
    for (int32_t f = 0; f < count_; ++f) order_[f] = f;
  }

  // A node whose first `known` features are constant.
  void begin(int32_t known) {
    known_ = total_ = known;
    drawn_ = visited_ = found_ = 0;
    end_ = count_;
  }
  bool more() const { return end_ > total_; }
  // Whether each feature that was visited is constant: then another one is looked at.
  bool none_varies() const { return visited_ <= found_ + drawn_; }
  int64_t visited() const { return visited_; }

  // The next feature, or -1 where it is one of those known to be constant.
  int32_t draw(ForestDraws& draws) {
    ++visited_;
    int32_t at = drawn_ + draws.below(end_ - found_ - drawn_);
    if (at < known_) {
      swap(drawn_++, at);
      return -1;
    }
    at += found_;
    swap(--end_, at);
    return order_[end_];
  }
  // Of the last `count` features drawn, in that order, those marked move to the front.
  void note_constants(const bool* constant, int64_t count) {
    const int32_t first = end_;  // where the last one drawn stands
    for (int32_t at = first; at < first + count; ++at) {
      if (!constant[count - 1 - (at - first)]) continue;
      swap(at, end_);
      swap(end_++, total_++);
      ++found_;
    }
  }
  // Returns how many features are constant in the node.
  int32_t finish() {
    std::memcpy(order_.data(), constants_.data(), size_t(known_) * sizeof(int32_t));
    std::memcpy(constants_.data() + known_, order_.data() + known_,
                size_t(found_) * sizeof(int32_t));
    return total_;
  }

 private:
  void swap(int32_t a, int32_t b) {
    const int32_t held = order_[a];
    order_[a] = order_[b];
    order_[b] = held;
  }
  Buffer<int32_t> order_, constants_;
  int32_t count_, known_ = 0, total_ = 0, drawn_ = 0, visited_ = 0, found_ = 0, end_ = 0;
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
