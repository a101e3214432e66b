#include "tilewright/trees/tree_check.h"

#include <cmath>

#include "tilewright/core/check.h"

namespace tilewright {

TreeWalk::TreeWalk(const char* op, const TreePointers& pointers, int64_t features)
    : op_(op), p_(pointers), features_(features) {
  if (p_.category_ptr != nullptr) {
    bool fits = p_.category_ptr[0] == 0 && p_.category_ptr[p_.nodes] == p_.categories;
    for (int64_t n = 0; n < p_.nodes && fits; ++n) {
      fits = p_.category_ptr[n] <= p_.category_ptr[n + 1];
    }
    TILEWRIGHT_CHECK(op_, fits, "category_ptr must ascend from 0 to the number of categories, ",
                     p_.categories);
  }
  const auto* ptr = p_.tree_ptr;
  TILEWRIGHT_CHECK(op_, ptr[0] == 0 && ptr[p_.trees] == p_.nodes, "tree_ptr must go from 0 ",
                   "to the number of nodes, ", p_.nodes, "; got ", ptr[0], " to ", ptr[p_.trees]);
  for (int64_t t = 0; t < p_.trees; ++t) {
    TILEWRIGHT_CHECK(op_, ptr[t] < ptr[t + 1] && ptr[t + 1] <= p_.nodes,
                     "tree_ptr must ascend: tree ", t, " has nodes [", ptr[t], ", ", ptr[t + 1],
                     ")");
  }
}

const std::vector<std::pair<int32_t, int32_t>>& TreeWalk::levels(int64_t tree) {
  const int64_t first = p_.tree_ptr[tree], count = p_.tree_ptr[tree + 1] - first;
  const auto *left = p_.left + first, *right = p_.right + first, *feature = p_.feature + first;
  const auto* threshold = p_.threshold + first;
  order_.assign(1, {0, 0});
  seen_.assign(size_t(count), false);
  seen_[0] = true;
  for (size_t i = 0; i < order_.size(); ++i) {
    const auto [node, depth] = order_[i];
    if (left[node] < 0 && right[node] < 0) continue;
    for (const int32_t child : {left[node], right[node]}) {
      TILEWRIGHT_CHECK(op_, child >= 0 && child < count && !seen_[size_t(child)], "tree ", tree,
                       ", node ", node, ": child ", child, " is not one of its ", count,
                       " nodes or has another parent");
      seen_[size_t(child)] = true;
      order_.push_back({child, depth + 1});
    }
    TILEWRIGHT_CHECK(op_, feature[node] >= 0 && feature[node] < features_, "tree ", tree, ", node ",
                     node, ": feature ", feature[node], " is not one of x's ", features_);
    TILEWRIGHT_CHECK(op_, !std::isnan(threshold[node]), "tree ", tree, ", node ", node,
                     ": threshold must be a number, got ", threshold[node]);
    if (has_categories(first + node)) check_categories(tree, node, first + node);
  }
  return order_;
}

void TreeWalk::check_categories(int64_t tree, int32_t node, int64_t place) const {
  for (int64_t i = p_.category_ptr[place] + 1; i < p_.category_ptr[place + 1]; ++i) {
    TILEWRIGHT_CHECK(op_, p_.members[i - 1] < p_.members[i], "tree ", tree, ", node ", node,
                     ": categories must ascend, got ", p_.members[i - 1], " before ",
                     p_.members[i]);
  }
}

}  // namespace tilewright
