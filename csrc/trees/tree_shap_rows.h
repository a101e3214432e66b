// A block of rows on its way through trees, for SHAP values by quadrature (tree_shap_cpu.h). Rows
// lie in the lanes of registers; edges are visited one after the other for the whole block, so that
// nothing branches by row.
#pragma once
#include <cstring>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/tree_categories.h"
#include "tilewright/trees/tree_shap_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

using Doubles = Vec<double>;
constexpr int64_t kWide = kLanes<double>;
constexpr int32_t kNone = -1;
static_assert(kShapRows % kWide == 0);

inline Doubles all_lanes(bool set) {
  const int64_t bits = set ? -1 : 0;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return Doubles(value);
}

// What an edge multiplies products by, and takes of its sum, at each point: where the row goes this
// way (1), and where it does not (0) though it went the way of all edges of the feature above.
// Where it did not go theirs, an edge multiplies by its share and takes nothing.
struct Coefficients {
  double *down0, *down1, *take0, *take1;
};

// kPairs: sums can be those that each feature has in pairs with a certain one.
template <bool kPairs>
class BlockOfRows {
 public:
  explicit BlockOfRows(const ShapParams& p) : p_(p) {
    x_.resize(p.used_count * p.block_rows);
    sums_.resize(p.used_count * p.block_rows);
    sides_.resize((p.most_depth + 1) * p.block_rows);
    products_.resize(p.most_size * p.block_rows);
    totals_.resize(p.most_size * p.block_rows);
    inverse_.resize(p.most_size);
    taken_.resize(p.most_size);
    take0_.resize(p.most_size);
    take1_.resize(p.most_size);
    down0_.resize(p.most_size);
    down1_.resize(p.most_size);
    path_.resize(p.most_depth + 1);
    if (!kPairs) return;
    path_with_.resize(p.most_depth + 1);
    reached_.resize(p.most_depth + 1);
  }

  // Copies rows; the last one fills up whole registers.
  template <class T>
  void load(const T* x, int64_t first, int64_t count) {
    wide_ = ceil_div(count, kWide);
    for (int64_t r = 0; r < wide_ * kWide; ++r) {
      const T* from = x + (first + min_of(r, count - 1)) * p_.row;
      for (int64_t u = 0; u < p_.used_count; ++u) {
        x_[u * p_.block_rows + r] = double(float(from[p_.used[u] * p_.column]));
      }
    }
  }

  // sum_of(u) become what each feature adds; or with `with`, one of those used, twice what each
  // adds in a pair with it (that of itself is 0).
  void add_up(int64_t output, int32_t with = kNone) {
    with_ = with;
    for (int64_t i = 0; i < sums_.size(); ++i) sums_[i] = 0;
    for (int64_t t = 0; t < p_.tree_count; ++t) {
      const ShapTree& tree = p_.trees[t];
      if (tree.output >= 0 && tree.output != output) continue;
      if (kPairs && with != kNone && !asks(tree, with)) continue;
      value_ = p_.value + (p_.values > 1 ? output : 0);
      points_ = tree.points;
      walk(tree);
    }
  }

  // (block rows,)
  const double* sum_of(int64_t used) const { return &sums_[used * p_.block_rows]; }

 private:
  bool asks(const ShapTree& tree, int32_t feature) const {
    for (int64_t e = tree.begin; e < tree.end; ++e) {
      if (p_.edges[e].feature == feature) return true;
    }
    return false;
  }

  void walk(const ShapTree& tree) {
    const double* weights = p_.weights + tree.point;
    t_ = p_.points + tree.point;
    rest_ = p_.rests + tree.point;
    for (int64_t g = 0; g < wide_; ++g) {
      all_lanes(true).store(&sides_[g * kWide]);
      for (int64_t q = 0; q < points_; ++q) Doubles(weights[q]).store(at(products_, 0, g, q));
    }
    for (int64_t q = 0; q < points_; ++q) {  // the root counts as an edge that all rows go
      inverse_[q] = 1;
      taken_[q] = 0;
    }
    if (kPairs) path_with_[0] = 0;
    for (int64_t e = tree.begin; e < tree.end; ++e) {
      const ShapEdge& edge = p_.edges[e];
      find_sides(edge);
      const Coefficients c = prepare(edge);
      if (!edge.leaf) {
        path_[edge.depth] = &edge;
        has_earlier(edge) ? descend<true>(edge, c) : descend<false>(edge, c);
        continue;
      }
      has_earlier(edge) ? finish_leaf<true>(edge, c) : finish_leaf<false>(edge, c);
      const ShapEdge* done = &edge;
      while (done->right && done->depth > 1) {  // both children of its parent are done
        done = path_[done->depth - 1];
        has_earlier(*done) ? finish<true>(*done) : finish<false>(*done);
      }
    }
  }

  bool is_with(const ShapEdge& edge) const { return kPairs && edge.feature == with_; }
  bool has_earlier(const ShapEdge& edge) const { return edge.earlier > 0 && !is_with(edge); }

  double* at(Buffer<double>& buffer, int64_t depth, int64_t g, int64_t q) const {
    return buffer.data() + ((depth * wide_ + g) * points_ + q) * kWide;
  }
  double* side(int64_t depth, int64_t g) { return &sides_[(depth * wide_ + g) * kWide]; }

  // Which rows go the edge's way, and went that of all edges of its feature above.
  void find_sides(const ShapEdge& edge) {
    const double* column = &x_[edge.feature * p_.block_rows];
    if (has_categories(edge.parent)) {
      find_sides_by_categories(edge, column);
      return;
    }
    const Doubles threshold(edge.threshold), flip = all_lanes(edge.right != edge.default_left);
    for (int64_t g = 0; g < wide_; ++g) {
      const Doubles x = Doubles::loadu(column + g * kWide);
      // False for missing values, which go left where the opposite is asked.
      const Doubles found = (edge.default_left ? x >= threshold : x < threshold) ^ flip;
      (found & Doubles::loadu(side(edge.earlier, g))).store(side(edge.depth, g));
    }
  }
  bool has_categories(int64_t node) const {
    return p_.category_ptr != nullptr && p_.category_ptr[node] < p_.category_ptr[node + 1];
  }
  void find_sides_by_categories(const ShapEdge& edge, const double* column) {
    const int64_t begin = p_.category_ptr[edge.parent], end = p_.category_ptr[edge.parent + 1];
    for (int64_t g = 0; g < wide_; ++g) {
      int64_t found[kWide];
      for (int64_t j = 0; j < kWide; ++j) {
        const auto x = float(column[g * kWide + j]);
        const bool left = x != x ? edge.default_left : !is_among(p_.categories, begin, end, x);
        found[j] = left != edge.right ? -1 : 0;
      }
      const Doubles mask = Doubles::loadu(found);
      (mask & Doubles::loadu(side(edge.earlier, g))).store(side(edge.depth, g));
    }
  }

  // With a(z) = t + (1 - t) z, what a feature's edges multiply by at point t where the row goes
  // their way, and z the product of their shares.
  Coefficients prepare(const ShapEdge& edge) {
    const int64_t here = edge.depth * points_, above = edge.earlier * points_;
    const double z = edge.above * edge.share;
    const double scale = edge.leaf ? double(value_[edge.child * p_.values]) : 1.0;
    const Coefficients c{down0_.data(), down1_.data(), take0_.data() + here, take1_.data() + here};
    if (kPairs) {
      path_with_[edge.depth] = is_with(edge) ? edge.depth : path_with_[edge.depth - 1];
      reached_[edge.depth] = z;
    }
    if (is_with(edge)) {  // products leave its factor out; leaves have what stands for it
      for (int64_t q = 0; q < points_; ++q) {
        c.down0[q] = c.down1[q] = scale;
        c.take0[q] = c.take1[q] = 0;
      }
      return c;
    }
    for (int64_t q = 0; q < points_; ++q) {
      const double a = t_[q] + rest_[q] * z, inverse = 1 / a;
      const double taken = (1 - z) * inverse;
      c.down1[q] = a * inverse_[above + q] * scale;
      c.down0[q] = rest_[q] * z * inverse_[above + q] * scale;
      c.take1[q] = taken - taken_[above + q];
      c.take0[q] = -1 / rest_[q] - taken_[above + q];
      inverse_[here + q] = inverse;
      taken_[here + q] = taken;
    }
    return c;
  }

  template <bool kEarlier>
  void descend(const ShapEdge& edge, const Coefficients& c) {
    const Doubles share(edge.share);
    for (int64_t g = 0; g < wide_; ++g) {
      const Doubles here = Doubles::loadu(side(edge.depth, g));
      const Doubles above = Doubles::loadu(side(edge.earlier, g));
      const double* from = at(products_, edge.depth - 1, g, 0);
      double* to = at(products_, edge.depth, g, 0);
      for (int64_t q = 0; q < points_; ++q) {
        Doubles down = Doubles::blendv(Doubles(c.down0[q]), Doubles(c.down1[q]), here);
        if (kEarlier) down = Doubles::blendv(share, down, above);
        (Doubles::loadu(from + q * kWide) * down).store(to + q * kWide);
      }
    }
  }

  // Adds an edge's sums, of which sum(g, q) are those of a register, to its feature and its parent.
  template <bool kEarlier, class Sum>
  void take(const ShapEdge& edge, const double* take0, const double* take1, Sum sum) {
    double* to = &sums_[edge.feature * p_.block_rows];
    for (int64_t g = 0; g < wide_; ++g) {
      const Doubles here = Doubles::loadu(side(edge.depth, g));
      double* total = at(totals_, edge.depth - 1, g, 0);
      Doubles taken(0);
      for (int64_t q = 0; q < points_; ++q) {
        const Doubles found = sum(g, q, here);
        const Doubles part = Doubles::blendv(Doubles(take0[q]), Doubles(take1[q]), here);
        taken = at::vec::fmadd(part, found, taken);
        const Doubles before = Doubles::loadu(total + q * kWide);
        (edge.right ? before + found : found).store(total + q * kWide);
      }
      if (kEarlier) taken = taken & Doubles::loadu(side(edge.earlier, g));
      (Doubles::loadu(to + g * kWide) + taken).store(to + g * kWide);
    }
  }

  template <bool kEarlier>
  void finish_leaf(const ShapEdge& edge, const Coefficients& c) {
    const Doubles share(edge.share * double(value_[edge.child * p_.values]));
    take<kEarlier>(edge, c.take0, c.take1, [&](int64_t g, int64_t q, const Doubles& here) {
      Doubles down = Doubles::blendv(Doubles(c.down0[q]), Doubles(c.down1[q]), here);
      if (kEarlier) {
        down = Doubles::blendv(share, down, Doubles::loadu(side(edge.earlier, g)));
      }
      if (kPairs && with_ != kNone) down = down * pair_factor(edge, g);
      return Doubles::loadu(at(products_, edge.depth - 1, g, q)) * down;
    });
  }
  // o - z of the feature that pairs are made with; 0 where the leaf does not depend on it.
  Doubles pair_factor(const ShapEdge& leaf, int64_t g) {
    const int32_t depth = path_with_[leaf.depth];
    if (depth == 0) return Doubles(0);
    const double z = reached_[depth];
    return Doubles::blendv(Doubles(-z), Doubles(1 - z), Doubles::loadu(side(depth, g)));
  }

  template <bool kEarlier>
  void finish(const ShapEdge& edge) {
    const int64_t here = edge.depth * points_;
    take<kEarlier>(edge, take0_.data() + here, take1_.data() + here,
                   [&](int64_t g, int64_t q, const Doubles&) {
                     return Doubles::loadu(at(totals_, edge.depth, g, q));
                   });
  }

  const ShapParams& p_;
  int64_t wide_ = 0, points_ = 0;  // registers of rows; points of the tree at work
  const double *t_ = nullptr, *rest_ = nullptr;
  const float* value_ = nullptr;
  Buffer<double> x_, sums_;           // (used features, block rows)
  Buffer<double> sides_;              // (depth, rows), all bits set or none
  Buffer<double> products_, totals_;  // (depth, registers, points, lanes)
  Buffer<double> inverse_, taken_;    // (depth, points): 1 / a, (1 - z) / a
  Buffer<double> take0_, take1_;      // (depth, points)
  Buffer<double> down0_, down1_;      // (points,), of the edge at work
  Buffer<const ShapEdge*> path_;      // by depth
  // Of pairs, by depth: that of the last edge so far of the feature they are made with, or 0; and
  // the product of shares of an edge's feature.
  int32_t with_ = kNone;
  Buffer<int32_t> path_with_;
  Buffer<double> reached_;
};

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
