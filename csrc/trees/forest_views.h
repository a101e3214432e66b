// Where a tree reads its rows: from the whole table, or from copies of a node's rows in a nearer
// cache.
#pragma once
#include "tilewright/trees/forest_search.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

// Below nodes whose rows fit into so many bytes, the rows' codes and words are copied together:
// into the second-level cache, then into the first.
inline constexpr int32_t kForestLevels = 3;
inline constexpr int64_t kForestCopyLeast = 8;
inline constexpr int64_t kForestCopyBytes[kForestLevels] = {0, 1 << 19, 28672};

template <class Code>
class ForestViews {
 public:
  ForestViews(const ForestTable& table, const ForestRules& rules, const ForestSample& sample,
              int64_t words)
      : features_(table.features),
        words_(words),
        values_(rules.stats == ForestStats::kValues ? table.outputs : 0),
        labels_(rules.stats == ForestStats::kClasses) {
    views_[0] = {static_cast<const Code*>(table.codes),
                 table.stride,
                 {sample.words, table.labels, table.values},
                 nullptr,
                 0,
                 nullptr,
                 true};
    const int64_t bytes =
        int64_t(sizeof(Code)) * features_ + int64_t(sizeof(int64_t)) * (words_ + values_ + labels_);
    // Rows that the caller asks for keep their numbers, and open leaves are of all parts.
    const bool copies = !sample.keep_rows && rules.max_leaves == 0;
    for (int32_t level = 1; level < kForestLevels; ++level) {
      most_rows_[level] = copies ? kForestCopyBytes[level] / bytes : 0;
    }
  }
  const ForestNodeView<Code>& at(int32_t level) const { return views_[level]; }

  // Copies the rows of a node of `level` together where they fit into a nearer cache: all below it
  // then lies there. Rows count in the copy afterwards. Returns the level. Nodes are grown depth
  // first, so one copy of each level is enough.
  int32_t gather(int32_t level, int32_t* rows, int64_t count) {
    int32_t nearer = kForestLevels - 1;
    while (nearer > level && count > most_rows_[nearer]) --nearer;
    if (nearer <= level || count < kForestCopyLeast) return level;
    const ForestNodeView<Code>& from = views_[level];
    Copy& to = copies_[nearer];
    to.codes.resize(count * features_);
    to.words.resize(count * words_);
    to.values.resize(count * values_);
    if (labels_) to.labels.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = rows[i];
      std::memcpy(to.codes.data() + i * features_, from.codes + row * from.stride,
                  size_t(features_) * sizeof(Code));
      for (int64_t w = 0; w < words_; ++w) {
        to.words[i * words_ + w] = from.data.words[row * words_ + w];
      }
      for (int64_t o = 0; o < values_; ++o) {
        to.values[i * values_ + o] = from.data.values[row * values_ + o];
      }
      if (labels_) to.labels[i] = from.data.labels[row];
      rows[i] = int32_t(i);
    }
    views_[nearer] = {to.codes.data(),
                      features_,
                      {to.words.data(), to.labels.data(), to.values.data()},
                      nullptr,
                      0,
                      nullptr,
                      nearer + 1 < kForestLevels};
    return nearer;
  }

 private:
  struct Copy {
    Buffer<Code> codes;
    Buffer<int64_t> words;
    Buffer<double> values;
    Buffer<ForestLabel> labels;
  };
  int64_t features_, words_, values_;  // of a row
  bool labels_;
  int64_t most_rows_[kForestLevels] = {};
  ForestNodeView<Code> views_[kForestLevels] = {};
  Copy copies_[kForestLevels];
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
