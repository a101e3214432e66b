// The best split of a node among a few features, by histograms whose cost follows the node's rows
// and not the bins.
#pragma once
#include <algorithm>
#include <cstring>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/trees/forest_stats.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

struct ForestSplit {
  double score = -HUGE_VAL;
  int32_t feature = -1, code = 0;
  bool default_left = false, missing = false;  // missing: some of the node's rows have no value
  int32_t next = -1;  // the first bin to the right that rows have, where `code` is not settled yet
};

// What a search looks at.
template <class Code>
struct ForestNodeView {
  const Code* codes;
  int64_t stride;
  ForestRows data;
  const int32_t* rows;
  int64_t count;
  const int64_t* total;  // (width,)
  bool distant;          // what it reads may lie beyond the near caches
};

// A threshold's place in the range of a feature, and where missing values go.
struct ForestChance {
  double place;
  bool missing_left;
};

// Bins of so many bytes are counted at once: with the rows they stay in the first-level cache.
inline constexpr int64_t kForestBinBytes = 24576;

// Rows of distant nodes are fetched so far ahead.
inline constexpr int64_t kForestPrefetch = 16;

template <class Code, class Stats>
class ForestSearch {
 public:
  // `counts`: whether histograms are wanted, and not drawn thresholds alone.
  void prepare(const ForestTable& table, const Stats& stats, const ForestLeast& least,
               bool counts) {
    table_ = &table;
    stats_ = &stats;
    least_ = least;
    const int64_t width = stats.width(), codes = table.num_codes;
    const int64_t bytes = counts ? codes * width * int64_t(sizeof(int64_t)) : 1;
    at_once_ = std::max<int64_t>(kForestBinBytes / bytes, 1);
    at_once_ = std::min<int64_t>(at_once_, std::min<int64_t>(kMostAtOnce, table.features));
    running_.resize(width);
    sums_.resize(8 * width);
    left_.resize(width);
    side_.assign((kMostAtOnce + kForestGroup) * width, 0);
    scores_.resize(codes + kForestGroup);
    if (!counts) return;
    bins_.assign(at_once_ * codes * width, 0);
    marks_.assign(at_once_ * kMarkWords, 0);
    any_marks_.assign(at_once_ * kSummaryWords, 0);
    cum_.assign((codes + kForestGroup) * width, 0);
    touched_.resize(codes + 1);
  }
  int64_t at_once() const { return at_once_; }
  void begin() { best_ = ForestSplit(); }
  const ForestSplit& best() const { return best_; }
  // The best split, its threshold in the middle between the values on both sides.
  ForestSplit settled() const {
    ForestSplit out = best_;
    if (out.next < 0) return out;
    const float* most = table_->most + out.feature * table_->max_bin;
    const double least = table_->least[out.feature * table_->max_bin + out.next];
    const double middle = (double(most[out.code]) + least) / 2;
    int32_t end = out.next - 1;  // the last bin at or below the middle lies in [code, end]
    while (out.code < end) {
      const int32_t half = out.code + (end - out.code + 1) / 2;
      double(most[half]) <= middle ? out.code = half : end = half - 1;
    }
    return out;
  }
  const int64_t* left() const { return left_.data(); }  // sums of the best split's left side

  // Offers the splits of at most at_once() features; constant[j] says that there is none.
  void offer(const ForestNodeView<Code>& node, const int32_t* features, int64_t count,
             bool* constant) {
    // Nodes of few rows note which bins they touch; others look at all of them.
    const bool marked = 4 * node.count < 3 * table_->num_codes;
    marked ? accumulate<true>(node, features, count) : accumulate<false>(node, features, count);
    for (int64_t j = 0; j < count; ++j) {
      const int64_t touched =
          marked ? collect_marked(j) : collect_all(j, table_->bins[features[j]]);
      constant[j] = !judge(node, features[j], touched);
    }
  }

  // The same with one threshold each: forest_thresholds.h.
  void offer_drawn(const ForestNodeView<Code>& node, const int32_t* features, int64_t count,
                   const ForestChance* chances, bool* constant);

 private:
  static constexpr int64_t kMostAtOnce = 16;
  static constexpr int64_t kMarkWords = sizeof(Code) == 1 ? 4 : 512;
  static constexpr int64_t kSummaryWords = sizeof(Code) == 1 ? 1 : 8;
  int64_t* bins_of(int64_t j) { return bins_.data() + j * table_->num_codes * stats_->width(); }

  // kCount: of features where it is known when compiled, or 0.
  template <bool kMarked, int kCount>
  void accumulate(const ForestNodeView<Code>& node, const int32_t* features, int64_t given) {
    const int64_t width = stats_->width(), step = table_->num_codes * width;
    const int64_t ahead = node.distant ? kForestPrefetch : 0, count = kCount > 0 ? kCount : given;
    int64_t* const all_bins = bins_.data();
    uint64_t *const marks = marks_.data(), *const any = any_marks_.data();
    for (int64_t i = 0; i < node.count; ++i) {
      const int64_t row = node.rows[i];
      if (ahead > 0) {
        const int64_t next = node.rows[min_of(i + ahead, node.count - 1)];
        __builtin_prefetch(node.codes + next * node.stride);
        __builtin_prefetch(node.data.words + next * stats_->row_width());
      }
      const Code* codes = node.codes + row * node.stride;
      for (int64_t j = 0; j < count; ++j) {
        const uint32_t code = codes[features[j]];
        stats_->add(node.data, row, all_bins + j * step + int64_t(code) * width);
        if constexpr (kMarked) {
          marks[j * kMarkWords + (code >> 6)] |= uint64_t(1) << (code & 63);
          if constexpr (sizeof(Code) > 1) {
            any[j * kSummaryWords + (code >> 12)] |= uint64_t(1) << ((code >> 6) & 63);
          }
        }
      }
    }
  }
  template <bool kMarked>
  void accumulate(const ForestNodeView<Code>& node, const int32_t* features, int64_t count) {
    if constexpr (Stats::kWidth == 1 && sizeof(Code) == 1) {
      switch (count) {
        case 1: return accumulate<kMarked, 1>(node, features, count);
        case 2: return accumulate<kMarked, 2>(node, features, count);
        case 3: return accumulate<kMarked, 3>(node, features, count);
        case 4: return accumulate<kMarked, 4>(node, features, count);
        case 5: return accumulate<kMarked, 5>(node, features, count);
        case 6: return accumulate<kMarked, 6>(node, features, count);
        case 7: return accumulate<kMarked, 7>(node, features, count);
        case 8: return accumulate<kMarked, 8>(node, features, count);
        default: break;
      }
    }
    accumulate<kMarked, 0>(node, features, count);
  }

  // Running sums: in registers where their number is known.
  class Running {
   public:
    explicit Running(ForestSearch& search) {
      if constexpr (Stats::kWidth > 0) {
        std::memset(known_, 0, sizeof known_);
      } else {
        any_ = search.running_.data();
        std::memset(any_, 0, size_t(search.stats_->width()) * sizeof(int64_t));
      }
    }
    int64_t& operator[](int64_t i) {
      if constexpr (Stats::kWidth > 0) return known_[i];
      return any_[i];
    }

   private:
    int64_t known_[Stats::kWidth > 0 ? Stats::kWidth : 1];
    int64_t* any_ = nullptr;
  };
  // Adds a bin to the running sums, and clears it.
  void take(int64_t* bin, int64_t code, int64_t place, Running& running) {
    const int64_t width = stats_->width();
    int64_t* now = cum_.data() + place * width;
    for (int64_t i = 0; i < width; ++i) {
      running[i] += bin[i];
      now[i] = running[i];
      bin[i] = 0;
    }
    touched_[place] = int32_t(code);
  }
  void take_missing(int64_t* bins) {
    const int64_t width = stats_->width();
    int64_t *bin = bins + table_->missing * width, *missing = sums_.data();
    for (int64_t i = 0; i < width; ++i) {
      missing[i] = bin[i];
      bin[i] = 0;
    }
  }
  int64_t take_word(uint64_t word, int64_t base, int64_t* bins, int64_t place, Running& running) {
    const int64_t width = stats_->width();
    for (; word != 0; word &= word - 1) {
      const int64_t code = base + __builtin_ctzll(word);
      take(bins + code * width, code, place++, running);
    }
    return place;
  }
  // The touched bins of feature j in order: their codes and running sums; returns how many.
  int64_t collect_marked(int64_t j) {
    int64_t* bins = bins_of(j);
    uint64_t* marks = marks_.data() + j * kMarkWords;
    const int64_t missing = table_->missing;
    take_missing(bins);
    marks[missing >> 6] &= ~(uint64_t(1) << (missing & 63));
    Running running(*this);
    int64_t place = 0;
    if constexpr (sizeof(Code) == 1) {
      for (int64_t w = 0; w < kMarkWords; ++w) {
        place = take_word(marks[w], w * 64, bins, place, running);
        marks[w] = 0;
      }
    } else {
      uint64_t* any = any_marks_.data() + j * kSummaryWords;
      for (int64_t s = 0; s < kSummaryWords; ++s) {
        for (; any[s] != 0; any[s] &= any[s] - 1) {
          const int64_t w = s * 64 + __builtin_ctzll(any[s]);
          place = take_word(marks[w], w * 64, bins, place, running);
          marks[w] = 0;
        }
      }
    }
    return place;
  }
  int64_t collect_all(int64_t j, int64_t used) {
    int64_t* bins = bins_of(j);
    const int64_t width = stats_->width();
    take_missing(bins);
    Running running(*this);
    int64_t place = 0;
    for (int64_t code = 0; code < used; ++code) {
      int64_t* bin = bins + code * width;
      const bool any = bin[width - 1] != 0;
      take(bin, code, place, running);
      place += any;
    }
    return place;
  }

  // False where the feature cannot split.
  bool judge(const ForestNodeView<Code>& node, int32_t feature, int64_t touched) {
    const int64_t width = stats_->width();
    const int64_t* missing = sums_.data();
    const bool any_missing = stats_->count(missing) != 0;
    if (touched + any_missing < 2) return false;
    int64_t *none = sums_.data() + width, *sides = sums_.data() + 2 * width;
    std::memset(none, 0, size_t(width) * sizeof(int64_t));
    const int64_t places = touched - !any_missing;
    stats_->scores(cum_.data(), places, none, node.total, least_, sides, scores_.data());
    keep_best(feature, places, touched, false, any_missing);
    if (any_missing) {
      stats_->scores(cum_.data(), touched - 1, missing, node.total, least_, sides, scores_.data());
      keep_best(feature, touched - 1, touched, true, true);
    }
    return true;
  }
  void keep_best(int32_t feature, int64_t places, int64_t touched, bool default_left,
                 bool any_missing) {
    int64_t found = -1;
    double best = best_.score;
    for (int64_t t = 0; t < places; ++t) {
      if (scores_[t] > best) {
        best = scores_[t];
        found = t;
      }
    }
    if (found < 0) return;
    const bool inner = found + 1 < touched;
    best_ = {best,         feature,     inner ? touched_[found] : table_->bins[feature] - 1,
             default_left, any_missing, inner ? touched_[found + 1] : -1};
    const int64_t width = stats_->width();
    for (int64_t i = 0; i < width; ++i) {
      left_[i] = cum_[found * width + i] + (default_left ? sums_[i] : 0);
    }
  }

  const ForestTable* table_ = nullptr;
  const Stats* stats_ = nullptr;
  ForestLeast least_{};
  int64_t at_once_ = 1;
  Buffer<int64_t> bins_;  // (at_once, codes, width): zeros between calls
  Buffer<uint64_t> marks_, any_marks_;
  Buffer<int64_t> cum_, sums_, left_, side_, running_;
  Buffer<double> scores_;
  Buffer<int32_t> touched_;
  ForestSplit best_;
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
