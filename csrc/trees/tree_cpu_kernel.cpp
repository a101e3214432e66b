// The loops that grow trees on the CPU: words, histograms, splits, partitions.
#include <cmath>

#include "tilewright/trees/tree_accumulate.h"
#include "tilewright/trees/tree_divide.h"
#include "tilewright/trees/tree_split_scan.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class Body>
auto with_gradients(const TreeWordsParams& params, Body body) {
  if (params.is_double) {
    return body(static_cast<const double*>(params.gradients),
                static_cast<const double*>(params.hessians));
  }
  return body(static_cast<const float*>(params.gradients),
              static_cast<const float*>(params.hessians));
}

// Rows as a list or as a range, so that loops over a range have no list to read.
template <class Body>
auto with_rows(TreeRows rows, Body body) {
  if (rows.list != nullptr) return body([list = rows.list](int64_t i) { return int64_t(list[i]); });
  return body([first = rows.first](int64_t i) { return first + i; });
}
template <class Body>
auto with_codes(const TreeCodes& codes, Body body) {
  return codes.wide ? body(uint16_t{}) : body(uint8_t{});
}

template <class Code, class Row>
void accumulate_pairs(const TreeCodes& codes, const TreeCount* pairs, Row row_at, int64_t count,
                      int64_t first, int64_t last, TreeCount* sums) {
  const Code* table = static_cast<const Code*>(codes.rows);
  for (int64_t i = 0; i < count; ++i) {
    const Code* row = table + row_at(i) * codes.row_stride;
    const TreeCount pair = pairs[row_at(i)];
    for (int64_t f = first; f < last; ++f) {
      add_to(sums[f * codes.codes + row[f]], pair);
    }
  }
}

template <class T>
TreeCount fine_count(const TreeWordsParams& params, const T* gradients, const T* hessians,
                     int64_t row) {
  return tree_pair(double(gradients[row]), double(hessians[row]), params.gradient_scale,
                   params.hessian_scale);
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

TreeExtremes TILEWRIGHT_ON_MACHINE(tree_extremes)(const TreeWordsParams& params, int64_t begin,
                                                  int64_t end) {
  return with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    TreeExtremes out{0, 0, -1};
    for (int64_t i = begin; i < end; ++i) {
      const double g = std::fabs(double(gradients[i])), h = double(hessians[i]);
      if (!(g < HUGE_VAL) || !(h >= 0 && h < HUGE_VAL)) {
        out.bad = i;
        return out;
      }
      out.gradient = max_of(out.gradient, g);
      out.hessian = max_of(out.hessian, h);
    }
    return out;
  });
}

void TILEWRIGHT_ON_MACHINE(tree_words)(const TreeWordsParams& params, TreeRows rows, int64_t count,
                                       int64_t* words) {
  with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    with_rows(rows, [&](auto row_at) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = row_at(i);
        words[i] = tree_word(double(gradients[row]), double(hessians[row]), params.gradient_scale,
                             params.hessian_scale, uint32_t(row));
      }
    });
  });
}

void TILEWRIGHT_ON_MACHINE(tree_pairs)(const TreeWordsParams& params, TreeCount* pairs,
                                       int64_t count) {
  with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    for (int64_t i = 0; i < count; ++i) pairs[i] = fine_count(params, gradients, hessians, i);
  });
}

void TILEWRIGHT_ON_MACHINE(tree_accumulate_pairs)(const TreeCodes& codes, const TreeCount* pairs,
                                                  TreeRows rows, int64_t count, int64_t first,
                                                  int64_t last, TreeCount* sums) {
  with_codes(codes, [&](auto code) {
    with_rows(rows, [&](auto row_at) {
      accumulate_pairs<decltype(code)>(codes, pairs, row_at, count, first, last, sums);
    });
  });
}

void TILEWRIGHT_ON_MACHINE(tree_fine_sums)(const TreeWordsParams& params, TreeRows rows,
                                           const uint8_t* flags, int64_t count, TreeCount sums[2]) {
  with_gradients(params, [&](const auto* gradients, const auto* hessians) {
    with_rows(rows, [&](auto row_at) {
      TreeCount all{0, 0}, flagged{0, 0};
      for (int64_t i = 0; i < count; ++i) {
        const TreeCount one = fine_count(params, gradients, hessians, row_at(i));
        const int64_t mask = flags == nullptr ? -1 : -int64_t(flags[i]);
        add_to(all, one);
        flagged.gradient += one.gradient & mask;
        flagged.hessian += one.hessian & mask;
      }
      sums[0] = flagged;
      sums[1] = {all.gradient - flagged.gradient, all.hessian - flagged.hessian};
    });
  });
}

void TILEWRIGHT_ON_MACHINE(tree_accumulate)(const TreeCodes& codes, const int64_t* words,
                                            TreeRows rows, int64_t count, int64_t* packed) {
  with_rows(rows, [&](auto row_at) {
    accumulate(codes, words, row_at, rows.list != nullptr, count, packed);
  });
}

void TILEWRIGHT_ON_MACHINE(tree_flush)(int64_t* packed, TreeCount* sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    add_to(sums[i], count_of(packed[i]));
    packed[i] = 0;
  }
}

void TILEWRIGHT_ON_MACHINE(tree_subtract)(TreeCount* from, const TreeCount* what, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    from[i].gradient -= what[i].gradient;
    from[i].hessian -= what[i].hessian;
  }
}

TreeSplit TILEWRIGHT_ON_MACHINE(tree_best_split)(const TreeSplitParams& params,
                                                 const TreeCodes& codes, int64_t first,
                                                 int64_t last) {
  SplitScan scan(params, node_gain(params));
  for (int64_t i = first; i < last; ++i) {
    const int32_t feature = params.features[i];
    const int64_t bins = codes.bins[feature];
    const TreeCount* sums = params.sums + feature * codes.codes;
    if (params.categorical != nullptr && params.categorical[feature]) {
      scan.scan_categories(feature, sums, bins, codes.codes);
    } else {
      scan.scan(feature, sums, bins, codes.codes);
    }
  }
  return scan.best();
}

void TILEWRIGHT_ON_MACHINE(tree_split_pair)(const TreePairParams& pair, const TreeCodes& codes,
                                            TreeSplit found[2]) {
  const TreeSplitParams &one = pair.nodes[0], &two = pair.nodes[1];
  SplitScan scans[2] = {{one, node_gain(one)}, {two, node_gain(two)}};
  Buffer<TreeCount> counted, rest;
  counted.resize(codes.codes);
  rest.resize(codes.codes);
  int64_t next[2] = {0, 0};
  for (int32_t feature = 0; feature < codes.features; ++feature) {
    const int64_t at = feature * codes.codes;
    int64_t* words = pair.packed + at;
    for (int64_t c = 0; c < codes.codes; ++c) {
      counted[c] = count_of(words[c]);
      words[c] = 0;
    }
    if (pair.sums != nullptr) {
      for (int64_t c = 0; c < codes.codes; ++c) add_to(counted[c], pair.sums[at + c]);
    }
    for (int64_t c = 0; c < codes.codes; ++c) {
      rest[c] = {pair.parent[at + c].gradient - counted[c].gradient,
                 pair.parent[at + c].hessian - counted[c].hessian};
    }
    for (const int which : {0, 1}) {
      int64_t& n = next[which];
      if (n == pair.features[which] || pair.nodes[which].features[n] != feature) continue;
      scans[which].scan(feature, which == 0 ? counted.data() : rest.data(), codes.bins[feature],
                        codes.codes);
      ++n;
    }
  }
  for (const int which : {0, 1}) found[which] = scans[which].best();
}

void TILEWRIGHT_ON_MACHINE(tree_category_table)(const TreeSplitParams& params,
                                                const TreeCodes& codes, const TreeSplit& split,
                                                uint8_t* left) {
  for (int64_t c = 0; c < codes.codes; ++c) left[c] = 1;
  left[codes.codes - 1] = split.default_left;
  if (split.code >= 0) {
    left[split.code] = 0;
    return;
  }
  const CategoryOrder order(params, params.sums + split.feature * codes.codes,
                            codes.bins[split.feature]);
  for (int64_t i = 0; i < split.right_categories; ++i) left[order[i].code] = 0;
}

int64_t TILEWRIGHT_ON_MACHINE(tree_flag_left)(const TreeCodes& codes, const TreeSplit& split,
                                              const uint8_t* table, TreeRows rows, int64_t count,
                                              uint8_t* flags) {
  return with_codes(codes, [&](auto code) {
    return with_rows(rows, [&](auto row_at) {
      using Code = decltype(code);
      return split.default_left
                 ? flag_left<Code, true>(codes, split, table, rows.list, row_at, count, flags)
                 : flag_left<Code, false>(codes, split, table, rows.list, row_at, count, flags);
    });
  });
}

void TILEWRIGHT_ON_MACHINE(tree_divide)(const uint8_t* flags, TreeRows rows, const int64_t* words,
                                        int64_t count, TreeRowsOut left, TreeRowsOut right) {
  divide_rows(flags, rows, words, count, left, right);
}

void TILEWRIGHT_ON_MACHINE(tree_add_values)(TreeRows rows, const uint8_t* flags, int64_t count,
                                            const float values[2], float* scores) {
  const float one = values[0], two = values[1];
  with_rows(rows, [&](auto row_at) {
    for (int64_t i = 0; i < count; ++i) {
      scores[row_at(i)] += flags == nullptr || flags[i] != 0 ? one : two;
    }
  });
}

}  // namespace tilewright
