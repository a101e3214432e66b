// The memory report. The accesses of a warp that one instruction makes between two waits (barriers,
// warp primitives), the n-th of every lane together, are one request, as they would be on a GPU
// whose lanes run side by side.
//
// Global memory: a request takes the sectors of 32 bytes that it touches; the fewest are those that
// its bytes would fill. Shared memory: 32 banks of 4 bytes; a request of 8-byte accesses is served
// in two halves of the warp, of 16-byte ones in four quarters; each takes as many wavefronts as
// the busiest bank has different words; the fewest are those of the same words spread evenly.
#include <algorithm>
#include <bit>
#include <tuple>

#include "simt/checker.h"

namespace tilewright::simt {
namespace {

constexpr uintptr_t kSectorBytes = 32, kWordBytes = 4;
constexpr int kBanks = 32;

void add_global(const TracedAccess* begin, const TracedAccess* end, MemoryTraffic& traffic) {
  std::vector<uintptr_t> sectors, places;
  // All accesses of an instruction have one size, so bytes are counted in units of it.
  const uintptr_t unit = begin->bytes;
  for (const TracedAccess* a = begin; a != end; ++a) {
    for (uintptr_t s = a->address / kSectorBytes; s <= (a->address + a->bytes - 1) / kSectorBytes;
         ++s) {
      sectors.push_back(s);
    }
    places.push_back(a->address);
  }
  const auto distinct = [](std::vector<uintptr_t>& values) {
    std::sort(values.begin(), values.end());
    return uintptr_t(std::unique(values.begin(), values.end()) - values.begin());
  };
  ++traffic.global_requests;
  traffic.sectors += int64_t(distinct(sectors));
  traffic.fewest_sectors += int64_t((distinct(places) * unit + kSectorBytes - 1) / kSectorBytes);
}

void add_shared(const TracedAccess* begin, const TracedAccess* end, MemoryTraffic& traffic) {
  ++traffic.shared_requests;
  const int lanes = begin->bytes <= 4 ? 32 : begin->bytes <= 8 ? 16 : 8;
  while (begin != end) {
    const int first_lane = begin->lane / lanes * lanes;
    std::vector<uintptr_t> words;
    for (; begin != end && begin->lane < first_lane + lanes; ++begin) {
      for (uintptr_t w = begin->address / kWordBytes;
           w <= (begin->address + begin->bytes - 1) / kWordBytes; ++w) {
        words.push_back(w);
      }
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    int in_bank[kBanks] = {};
    for (uintptr_t w : words) ++in_bank[w % kBanks];
    traffic.wavefronts += *std::max_element(in_bank, in_bank + kBanks);
    traffic.fewest_wavefronts += int64_t((words.size() + kBanks - 1) / kBanks);
  }
}

}  // namespace

void Checker::trace(uintptr_t address, size_t bytes, bool shared, const Self& self) {
  // A copy of a struct is as many accesses as its alignment, seen from its size, makes of it.
  const size_t step = std::min<size_t>(size_t(1) << std::countr_zero(bytes), 16);
  auto& accesses = traces_[self.warp];
  for (size_t at = 0; at < bytes; at += step) {
    accesses.push_back({address + at, self.instruction, turn_[self.number], uint32_t(at), 0,
                        uint8_t(self.lane), uint8_t(step), shared});
  }
}

void add_traffic(std::vector<TracedAccess>& accesses, MemoryTraffic& traffic) {
  const auto by = [&](auto key) {
    std::stable_sort(accesses.begin(), accesses.end(),
                     [&](const auto& a, const auto& b) { return key(a) < key(b); });
  };
  const auto of_lane = [](const TracedAccess& a) {
    return std::tuple(a.shared, a.instruction, a.turn, a.field, a.lane);
  };
  const auto of_request = [](const TracedAccess& a) {
    return std::tuple(a.shared, a.instruction, a.turn, a.field, a.repeat);
  };
  by(of_lane);
  for (size_t i = 1; i < accesses.size(); ++i) {
    const TracedAccess& before = accesses[i - 1];
    if (of_lane(before) == of_lane(accesses[i])) accesses[i].repeat = before.repeat + 1;
  }
  by([&](const TracedAccess& a) { return std::tuple_cat(of_request(a), std::tuple(a.lane)); });
  for (size_t i = 0, end = 0; i < accesses.size(); i = end) {
    const TracedAccess& a = accesses[i];
    while (end < accesses.size() && of_request(accesses[end]) == of_request(a)) ++end;
    (a.shared ? add_shared : add_global)(&accesses[i], accesses.data() + end, traffic);
  }
  accesses.clear();
}

void Checker::flush_trace() {
  for (auto& accesses : traces_) add_traffic(accesses, engine_.launch->kernel->traffic);
}

}  // namespace tilewright::simt
