// The rules of an access: it lies in memory of the launch, and no other thread's access of the same
// place is unordered with it.
#include "simt/checker.h"

#include <atomic>
#include <bit>
#include <cstdlib>
#include <new>

namespace tilewright::simt {
namespace {
std::atomic<bool> checks{[] {
  const char* text = std::getenv("TILEWRIGHT_SIMT_CHECKED");
  return text && text[0] != '\0' && std::strcmp(text, "0") != 0;
}()};
}  // namespace

bool checks_are_on() { return checks; }
void set_checks(bool on) { checks = on; }

CheckedRegion::CheckedRegion(uintptr_t begin, uintptr_t end, size_t granule, bool writable,
                             std::string name)
    : begin(begin), end(end), granule(granule), writable(writable), name(std::move(name)) {
  if (!writable) return;
  cell_count = (end - begin + granule - 1) / granule;
  // calloc: of a large tensor only the pages that are used cost anything.
  cells.reset(static_cast<Cell*>(std::calloc(cell_count, sizeof(Cell))));
  if (!cells && cell_count > 0) throw std::bad_alloc();
}

Checker::Self Checker::self(const void* instruction) {
  const int number = engine_.current->number;
  return {number, number / kWarpSize, number % kWarpSize, std::max(clock_[number], barrier_clock_),
          int32_t(reinterpret_cast<uintptr_t>(instruction) - code_)};
}

// A block begins as after a barrier: what an earlier one did in shared memory is gone.
void Checker::begin_block(uint32_t number) {
  block_ = number + 1;
  barrier();
  for (CheckedRegion& part : parts_) part.end = part.begin;  // not taken yet
  last_ = nullptr;
}

void Checker::barrier() {
  barrier_clock_ = ++now_;
  if (!traced_) return;
  for (uint32_t& turn : turn_) ++turn;
  flush_trace();
}

void Checker::meeting(int warp, unsigned arrived) {
  for (; arrived; arrived &= arrived - 1) ++turn_[warp * kWarpSize + std::countr_zero(arrived)];
}

void Checker::sync_warp(int warp, unsigned arrived, unsigned gone) {
  const uint32_t before = now_++;
  uint32_t* const clock = clock_ + warp * kWarpSize;
  uint32_t* const floor = floor_ + warp * kWarpSize;
  auto* const seen = seen_ + warp * kWarpSize;
  const auto each = [&](const auto& body) {
    for (unsigned rest = arrived; rest; rest &= rest - 1) body(std::countr_zero(rest));
  };
  each([&](int lane) { clock[lane] = now_; });
  if ((arrived | gone) == ~0u) {
    each([&](int lane) { floor[lane] = before; });
    return;
  }
  uint32_t joined[kWarpSize] = {};
  each([&](int lane) {
    for (int other = 0; other < kWarpSize; ++other)
      joined[other] = std::max({joined[other], seen[lane][other], floor[lane]});
  });
  each([&](int lane) { joined[lane] = before; });
  each([&](int lane) { std::copy_n(joined, kWarpSize, seen[lane]); });
}

bool Checker::unordered(const AccessRecord& record, const Self& self) const {
  if (record.block == 0) return false;
  if (record.block != block_ || record.many_blocks) return true;
  if (record.clock < barrier_clock_) return false;
  if (record.many_warps || record.warp != self.warp) return true;
  unsigned others = record.lanes & ~(1u << self.lane);
  if (others == 0 || record.clock <= floor_[self.number]) return false;
  for (; others; others &= others - 1) {
    if (seen_[self.number][std::countr_zero(others)] < record.clock) return true;
  }
  return false;
}

void Checker::add(AccessRecord& record, const Self& self) const {
  const AccessRecord mine{block_, self.clock, 1u << self.lane, self.instruction,
                          uint8_t(self.warp)};
  const bool many_blocks = record.many_blocks || (record.block != 0 && record.block != block_);
  if (record.block != block_ || record.clock < barrier_clock_) {
    record = mine;
  } else if (record.many_warps || record.warp != self.warp) {
    record.many_warps = true;
    record.clock = std::max(record.clock, self.clock);
  } else {
    const unsigned lanes = record.clock <= floor_[self.number] ? 0 : record.lanes;
    const uint32_t clock = std::max(record.clock, self.clock);
    record = mine;
    record.lanes |= lanes;
    record.clock = clock;
  }
  record.many_blocks = many_blocks;
}

void Checker::access_cell(CheckedRegion& region, size_t index, Access kind, const Self& self) {
  Cell& cell = region.cells.get()[index];
  if (region.shared && cell.write.block != block_ && cell.read.block != block_ &&
      cell.atomic.block != block_) {
    cell = {};  // of an earlier block
  }
  if (cell.copy_in_flight) fail_in_flight(region, index, kind, self);
  const auto check = [&](const AccessRecord& other, Access other_kind) {
    if (unordered(other, self)) [[unlikely]] {
      fail_conflict(region, index, kind, other_kind, other, self);
    }
  };
  check(cell.write, Access::kWrite);
  if (kind != Access::kRead) check(cell.read, Access::kRead);
  if (kind != Access::kAtomic) check(cell.atomic, Access::kAtomic);
  switch (kind) {
    case Access::kRead: add(cell.read, self); break;
    case Access::kAtomic: add(cell.atomic, self); break;
    case Access::kWrite:
      cell.write = {};
      add(cell.write, self);
      cell.read = cell.atomic = {};  // they came before
      break;
  }
}

CheckedRegion* Checker::find(uintptr_t begin, uintptr_t end) {
  const auto holds = [&](const CheckedRegion& r) { return begin >= r.begin && end <= r.end; };
  if (last_ && holds(*last_)) return last_;
  for (auto* regions : {&parts_, &regions_}) {
    for (CheckedRegion& region : *regions) {
      if (holds(region)) return last_ = &region;
    }
  }
  return nullptr;
}

void Checker::access(const void* pointer, size_t bytes, Access kind, const void* instruction) {
  const auto begin = reinterpret_cast<uintptr_t>(pointer), end = begin + bytes;
  const auto stack = reinterpret_cast<uintptr_t>(engine_.current->stack);
  if (begin < stack && end <= stack && stack - begin <= StackPool::kBytes) return;
  const Self me = self(instruction);
  CheckedRegion* const region = find(begin, end);
  if (!region || (kind != Access::kRead && !region->writable)) {
    fail_bounds(begin, bytes, kind, me);
  }
  if (region->cells) {
    const size_t first = (begin - region->begin) / region->granule;
    const size_t last = (end - 1 - region->begin) / region->granule;
    for (size_t i = first; i <= last; ++i) access_cell(*region, i, kind, me);
  }
  if (traced_ && region->granule) trace(begin, bytes, region->shared, me);
}

// The destination is written at some time between the copy and its wait.
void Checker::copy_issued(const AsyncCopy& copy, const void* instruction) {
  if (copy.source_bytes) access(copy.global, copy.source_bytes, Access::kRead, instruction);
  access(copy.shared, copy.bytes, Access::kWrite, instruction);
  const auto begin = reinterpret_cast<uintptr_t>(copy.shared);
  CheckedRegion& part = *find(begin, begin + copy.bytes);
  for (uintptr_t at = begin; at < begin + copy.bytes; at += part.granule)
    part.cells.get()[(at - part.begin) / part.granule].copy_in_flight = true;
}

void Checker::copy_landed(const AsyncCopy& copy, const void* instruction) {
  const Self me = self(instruction);
  const auto begin = reinterpret_cast<uintptr_t>(copy.shared);
  CheckedRegion& part = *find(begin, begin + copy.bytes);
  for (uintptr_t at = begin; at < begin + copy.bytes; at += part.granule) {
    const size_t index = (at - part.begin) / part.granule;
    Cell& cell = part.cells.get()[index];
    cell.copy_in_flight = false;
    cell.write = {};
    add(cell.write, me);
  }
}

void Checker::add_shared_part(int number, uintptr_t begin, size_t bytes, size_t granule) {
  if (parts_.empty()) parts_.resize(kMaxSharedParts);
  CheckedRegion& part = parts_[number];
  const bool same_place = part.begin == begin && part.granule == granule;
  if (part.end > part.begin) {
    if (same_place && part.end == begin + bytes) return;
    engine_.fail("part " + std::to_string(number) +
                 " of shared memory has two shapes; all threads take the same parts, and all from "
                 "one cursor");
  }
  if (same_place && part.cell_count * granule >= bytes) {
    part.end = begin + bytes;
  } else {
    part = CheckedRegion(begin, begin + bytes, granule, true,
                         "part " + std::to_string(number) + " of shared memory");
    part.shared = true;
  }
}

}  // namespace tilewright::simt
