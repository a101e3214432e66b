// Warp primitives. The last lane to arrive computes the results of all, from what they brought.
#include "simt/simt_internal.h"

namespace tilewright::simt {
namespace {

template <class T>
T& lane_value(void* const* values, int lane) {
  return *static_cast<T*>(values[lane]);
}

template <class Body>
void each_lane(unsigned lanes, const Body& body) {
  for (; lanes; lanes &= lanes - 1) body(__builtin_ctz(lanes));
}

struct ShuffleValue {
  void* value;
  size_t bytes;
  Shuffle kind;
  int operand, width;
};

// The lane that a shuffle reads; its own where the source lies outside of its segment.
int source_lane(const ShuffleValue& v, int lane) {
  const int first = lane & ~(v.width - 1), end = first + v.width;
  switch (v.kind) {
    case Shuffle::kIndex: return first | (v.operand & (v.width - 1));
    case Shuffle::kUp: return lane - v.operand >= first && v.operand >= 0 ? lane - v.operand : lane;
    case Shuffle::kDown: return v.operand < end - lane && v.operand >= 0 ? lane + v.operand : lane;
    case Shuffle::kXor: return (lane ^ v.operand) < end && v.operand >= 0 ? lane ^ v.operand : lane;
  }
  return lane;
}

void do_shuffle(const CallSite&, void* const* values, unsigned arrived) {
  uint64_t result[kWarpSize];
  each_lane(arrived, [&](int lane) {
    const auto& mine = lane_value<ShuffleValue>(values, lane);
    const int source = source_lane(mine, lane);
    // A lane that takes no part has no value: NaN, so that a result made of it shows.
    result[lane] = ~uint64_t(0);
    if (arrived >> source & 1) {
      std::memcpy(&result[lane], lane_value<ShuffleValue>(values, source).value, mine.bytes);
    }
  });
  each_lane(arrived, [&](int lane) {
    const auto& mine = lane_value<ShuffleValue>(values, lane);
    std::memcpy(mine.value, &result[lane], mine.bytes);
  });
}

struct BallotValue {
  bool predicate;
  unsigned result;
};
void do_ballot(const CallSite&, void* const* values, unsigned arrived) {
  unsigned result = 0;
  each_lane(arrived, [&](int lane) {
    result |= unsigned(lane_value<BallotValue>(values, lane).predicate) << lane;
  });
  each_lane(arrived, [&](int lane) { lane_value<BallotValue>(values, lane).result = result; });
}

struct MatchValue {
  uint64_t value;
  unsigned result;
};
void do_match(const CallSite&, void* const* values, unsigned arrived) {
  each_lane(arrived, [&](int lane) {
    auto& mine = lane_value<MatchValue>(values, lane);
    mine.result = 0;
    each_lane(arrived, [&](int other) {
      const bool same = lane_value<MatchValue>(values, other).value == mine.value;
      mine.result |= unsigned(same) << other;
    });
  });
}

struct ReduceValue {
  Reduce kind;
  int64_t value;
};
void do_reduce(const CallSite&, void* const* values, unsigned arrived) {
  bool first = true;
  int64_t result = 0;
  each_lane(arrived, [&](int lane) {
    const auto& mine = lane_value<ReduceValue>(values, lane);
    if (first) {
      result = mine.value;
    } else {
      switch (mine.kind) {
        case Reduce::kAdd: result += mine.value; break;
        case Reduce::kMin: result = std::min(result, mine.value); break;
        case Reduce::kMax: result = std::max(result, mine.value); break;
        case Reduce::kAnd: result &= mine.value; break;
        case Reduce::kOr: result |= mine.value; break;
        case Reduce::kXor: result ^= mine.value; break;
      }
    }
    first = false;
  });
  each_lane(arrived, [&](int lane) { lane_value<ReduceValue>(values, lane).value = result; });
}

const char* name_of(Shuffle kind) {
  switch (kind) {
    case Shuffle::kIndex: return "__shfl_sync";
    case Shuffle::kUp: return "__shfl_up_sync";
    case Shuffle::kDown: return "__shfl_down_sync";
    case Shuffle::kXor: return "__shfl_xor_sync";
  }
  return "";
}

}  // namespace

void shuffle(Shuffle kind, unsigned mask, void* value, size_t bytes, int operand, int width,
             const Where& where) {
  const CallSite site{name_of(kind), where};
  if (width < 1 || width > kWarpSize || (width & (width - 1)) != 0) {
    engine->fail(to_string(site) + ": width " + std::to_string(width) +
                 " is no power of 2 up to 32");
  }
  ShuffleValue mine{value, bytes, kind, operand, width};
  engine->meet(site, mask, &mine, do_shuffle);
}

unsigned ballot(const char* call, unsigned mask, bool predicate, const Where& where) {
  BallotValue mine{predicate, 0};
  engine->meet({call, where}, mask, &mine, do_ballot);
  return mine.result;
}

unsigned match_any(unsigned mask, uint64_t value, const Where& where) {
  MatchValue mine{value, 0};
  engine->meet({"__match_any_sync", where}, mask, &mine, do_match);
  return mine.result;
}

int64_t reduce(Reduce kind, unsigned mask, int64_t value, const Where& where) {
  ReduceValue mine{kind, value};
  engine->meet({"__reduce_sync", where}, mask, &mine, do_reduce);
  return mine.value;
}

}  // namespace tilewright::simt
