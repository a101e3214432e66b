// What is said about an access that breaks a rule: who, what, where, and with whom it conflicts.
#include <cstdio>

#include "simt/checker.h"

namespace tilewright::simt {
namespace {

const char* verb(Access kind) {
  switch (kind) {
    case Access::kRead: return "reads";
    case Access::kWrite: return "writes";
    case Access::kAtomic: return "updates";
  }
  return "";
}
const char* past(Access kind) {
  switch (kind) {
    case Access::kRead: return "read";
    case Access::kWrite: return "wrote";
    case Access::kAtomic: return "atomically updated";
  }
  return "";
}
std::string triple(uint64_t index) {
  const uint3 i = unpack_index(index);
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}
// Files whose inlined functions device code reads and writes through: not where a mistake is.
bool is_plumbing(const std::string& line) {
  return line.find("/simt/simt") != std::string::npos ||
         line.find("/core/cuda/") != std::string::npos || line.find('?') != std::string::npos;
}

}  // namespace

// "roi_align_kernel.cuh:57", where binutils are at hand and the build has line numbers.
std::string Checker::instruction_name(int32_t instruction) const {
  char number[16];
  std::snprintf(number, sizeof(number), "0x%x", unsigned(instruction) - 1);  // inside of the call
  std::string name;
  if (library_.find('\'') == std::string::npos) {
    const std::string command = "addr2line -i -e '" + library_ + "' " + number + " 2>/dev/null";
    if (FILE* pipe = popen(command.c_str(), "r")) {
      char line[1024];
      while (std::fgets(line, sizeof(line), pipe)) {
        if (name.empty() && !is_plumbing(line)) name = line;
      }
      pclose(pipe);
    }
  }
  if (name.empty()) return std::string("instruction ") + number + " of " + library_;
  name = name.substr(name.rfind('/') + 1);
  return name.substr(0, name.find_first_of(" \n"));
}

std::string Checker::place(const CheckedRegion& region, uintptr_t address) const {
  return "byte " + std::to_string(address - region.begin) + " of " + region.name;
}

std::string Checker::threads_of(const AccessRecord& record, const Self& self) const {
  unsigned lanes = record.lanes;
  if (record.block == block_ && record.warp == self.warp && (lanes & ~(1u << self.lane))) {
    lanes &= ~(1u << self.lane);
  }
  const int number = record.warp * kWarpSize + __builtin_ctz(lanes);
  std::string text = "thread " + triple(engine_.thread(number).index);
  if (record.block != block_) {
    const dim3 grid = engine_.launch->shape.grid;
    const unsigned b = record.block - 1;
    text += " of block " +
            triple(pack_index(dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y)));
  }
  return text;
}

void Checker::fail_conflict(const CheckedRegion& region, size_t index, Access kind,
                            Access other_kind, const AccessRecord& other, const Self& self) {
  std::string text = instruction_name(self.instruction) + " " + verb(kind) + " " +
                     place(region, region.begin + index * region.granule) + ", which ";
  if (other.many_blocks && other.block == block_) {
    text += std::string("threads of other blocks ") + past(other_kind) + " in the same launch";
  } else if (other.block != block_) {
    text += threads_of(other, self) + " " + past(other_kind) + " in the same launch";
  } else {
    text += threads_of(other, self) + (other.many_warps ? " and others " : " ") + past(other_kind) +
            (other.warp == self.warp && !other.many_warps ? " with no __syncwarp() between them"
                                                          : " with no barrier between them");
  }
  engine_.abandon(text + " (" + instruction_name(other.instruction) + ")");
}

void Checker::fail_in_flight(const CheckedRegion& region, size_t index, Access kind,
                             const Self& self) {
  const AccessRecord& copy = region.cells.get()[index].write;
  engine_.abandon(instruction_name(self.instruction) + " " + verb(kind) + " " +
                  place(region, region.begin + index * region.granule) +
                  " between an asynchronous copy into it and the copy's wait (" +
                  instruction_name(copy.instruction) + ")");
}

void Checker::fail_bounds(uintptr_t address, size_t bytes, Access kind, const Self& self) {
  const std::string what = instruction_name(self.instruction) + " " + verb(kind) + " " +
                           std::to_string(bytes) + " bytes ";
  if (const CheckedRegion* region = find(address, address + bytes)) {
    engine_.abandon(what + "at " + place(*region, address) + ", which the launch may only read");
  }
  constexpr uintptr_t kNear = 4096;
  const CheckedRegion* nearest = nullptr;
  uintptr_t distance = kNear;
  const auto consider = [&](const CheckedRegion& region) {
    if (region.granule == 0 || region.end == region.begin) return;
    const uintptr_t away =
        address >= region.begin ? address - std::min(address, region.end) : region.begin - address;
    if (away >= distance) return;
    distance = away;
    nearest = &region;
  };
  for (const CheckedRegion& part : parts_) consider(part);
  // Between parts, the part before is the one that was overrun.
  if (!nearest || !engine_.in_shared(reinterpret_cast<const void*>(address), 1)) {
    for (const CheckedRegion& region : regions_) consider(region);
  }
  std::string where;
  const std::string other = lent_at(address);
  if (nearest) {
    const bool after = address >= nearest->begin;
    const std::string size = std::to_string(nearest->end - nearest->begin);
    if (address < nearest->end && after) {
      where = "at " + place(*nearest, address) + ", across its end";
    } else {
      where = std::to_string(distance) + " bytes " + (after ? "past the end" : "before the start") +
              " of " + nearest->name;
    }
    where += " (" + size + " bytes)";
  } else if (other.empty()) {
    char text[32];
    std::snprintf(text, sizeof(text), "%#zx", size_t(address));
    where = std::string("at ") + text + ", in no memory of the launch";
    if (!in_memory_scope()) where += " (no DeviceGuard is alive)";
  }
  if (!other.empty()) {
    where += (nearest ? ", in " : "in ") + other + ", which is not among the launch's arguments";
  }
  engine_.abandon(what + where + ": out of bounds");
}

}  // namespace tilewright::simt
