// The loops that grow the trees of forests on the CPU, and walk rows through them.
#include "tilewright/trees/forest_cpu.h"

#include "tilewright/trees/forest_grower.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class Code, class Stats>
int64_t grow(const ForestTable& table, const ForestRules& rules, const ForestSample& sample,
             const ForestNodes& out) {
  return ForestGrower<Code, Stats>(table, rules, sample, out).grow();
}

template <class Code>
void walk(const ForestTable& table, const ForestNodes& nodes, const uint8_t* wanted, int64_t begin,
          int64_t end, int32_t* leaves) {
  const Code* codes = static_cast<const Code*>(table.codes);
  for (int64_t row = begin; row < end; ++row) {
    if (wanted != nullptr && wanted[row] == 0) continue;
    const Code* of_row = codes + row * table.stride;
    int32_t node = 0;
    while (nodes.left[node] >= 0) {
      const int32_t code = of_row[nodes.feature[node]];
      const bool left =
          code == table.missing ? nodes.default_left[node] != 0 : code <= nodes.code[node];
      node = left ? nodes.left[node] : nodes.right[node];
    }
    leaves[row] = node;
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

int64_t TILEWRIGHT_ON_MACHINE(grow_forest_tree)(const ForestTable& table, const ForestRules& rules,
                                                const ForestSample& sample,
                                                const ForestNodes& out) {
  const bool few = table.outputs == (rules.stats == ForestStats::kValues ? 1 : 2);
  if (table.wide) {
    if (rules.stats == ForestStats::kPacked) {
      return grow<uint16_t, PackedStats>(table, rules, sample, out);
    }
    if (rules.stats == ForestStats::kClasses) {
      return grow<uint16_t, ClassStats<0>>(table, rules, sample, out);
    }
    return grow<uint16_t, ValueStats<0>>(table, rules, sample, out);
  }
  switch (rules.stats) {
    case ForestStats::kPacked: return grow<uint8_t, PackedStats>(table, rules, sample, out);
    case ForestStats::kClasses:
      return few ? grow<uint8_t, ClassStats<2>>(table, rules, sample, out)
                 : grow<uint8_t, ClassStats<0>>(table, rules, sample, out);
    default:
      return few ? grow<uint8_t, ValueStats<1>>(table, rules, sample, out)
                 : grow<uint8_t, ValueStats<0>>(table, rules, sample, out);
  }
}

void TILEWRIGHT_ON_MACHINE(walk_forest_tree)(const ForestTable& table, const ForestNodes& nodes,
                                             const uint8_t* wanted, int64_t begin, int64_t end,
                                             int32_t* leaves) {
  table.wide ? walk<uint16_t>(table, nodes, wanted, begin, end, leaves)
             : walk<uint8_t>(table, nodes, wanted, begin, end, leaves);
}

}  // namespace tilewright
