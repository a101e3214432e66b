// What a checked launch may touch: the tensors that its arguments point into, the arguments, and
// the constants of its library.
#include <link.h>

#include <algorithm>
#include <filesystem>

#include "simt/checker.h"

namespace tilewright::simt {
namespace {

struct Lent {
  int scopes = 0;
  std::vector<LentMemory> memory;
};
Lent& lent() {
  static thread_local Lent instance;
  return instance;
}

uintptr_t begin_of(const LentMemory& m) { return reinterpret_cast<uintptr_t>(m.begin); }
uintptr_t end_of(const LentMemory& m) { return begin_of(m) + m.bytes; }
bool is_alive(const LentMemory& m) { return !m.alive || m.alive(); }

// The library that holds `code`: where it begins, its name, and its constants.
struct Library {
  uintptr_t code, begin = 0;
  std::string name;
  std::vector<std::pair<uintptr_t, uintptr_t>> constants;
};
int visit_library(dl_phdr_info* info, size_t, void* data) {
  Library& library = *static_cast<Library*>(data);
  bool holds_code = false;
  std::vector<std::pair<uintptr_t, uintptr_t>> constants;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr, end = begin + segment.p_memsz;
    holds_code |= library.code >= begin && library.code < end;
    if (!(segment.p_flags & PF_W)) constants.emplace_back(begin, end);
  }
  if (!holds_code) return 0;
  library.begin = info->dlpi_addr;
  std::error_code none;
  library.name = info->dlpi_name && *info->dlpi_name
                     ? info->dlpi_name
                     : std::filesystem::read_symlink("/proc/self/exe", none).string();
  library.constants = std::move(constants);
  return 1;
}

}  // namespace

MemoryScope::MemoryScope() : lent_before_(lent().memory.size()) { ++lent().scopes; }
MemoryScope::~MemoryScope() {
  --lent().scopes;
  lent().memory.erase(lent().memory.begin() + lent_before_, lent().memory.end());
}
bool in_memory_scope() { return lent().scopes > 0; }

void lend(LentMemory memory) {
  auto& all = lent().memory;
  for (LentMemory& m : all) {
    if (is_alive(m) && m.begin == memory.begin && m.bytes == memory.bytes) {
      m.writable |= memory.writable;
      return;
    }
  }
  all.push_back(std::move(memory));
}

std::vector<LentMemory> lent_to(const void* arguments, size_t bytes) {
  std::vector<LentMemory> found;
  for (const LentMemory& m : lent().memory) {
    if (m.bytes == 0 || !is_alive(m)) continue;
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
      uintptr_t word;
      std::memcpy(&word, static_cast<const char*>(arguments) + i, sizeof(word));
      if (word < begin_of(m) || word >= end_of(m)) continue;
      found.push_back(m);
      break;
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return begin_of(a) < begin_of(b); });
  std::vector<LentMemory> merged;
  for (LentMemory& m : found) {
    if (merged.empty() || begin_of(m) >= end_of(merged.back())) {
      merged.push_back(std::move(m));
      continue;
    }
    LentMemory& last = merged.back();
    last.bytes = std::max(end_of(last), end_of(m)) - begin_of(last);
    last.element_bytes = std::min(last.element_bytes, m.element_bytes);
    last.writable |= m.writable;
    if (last.name != m.name) last.name += " and " + m.name;
  }
  return merged;
}

std::string lent_at(uintptr_t address) {
  for (const LentMemory& m : lent().memory) {
    if (is_alive(m) && address >= begin_of(m) && address < end_of(m)) return m.name;
  }
  return "";
}

Checker::Checker(Engine& engine, const Launch& launch) : engine_(engine), traced_(tracing_is_on()) {
  for (const LentMemory& m : lent_to(launch.arguments, launch.arguments_bytes)) {
    regions_.emplace_back(begin_of(m), end_of(m), m.element_bytes, m.writable, m.name);
  }
  const auto arguments = reinterpret_cast<uintptr_t>(launch.arguments);
  regions_.emplace_back(arguments, arguments + launch.arguments_bytes, 0, false, "the arguments");
  Library library{reinterpret_cast<uintptr_t>(launch.thread)};
  dl_iterate_phdr(visit_library, &library);
  for (const auto& [begin, end] : library.constants)
    regions_.emplace_back(begin, end, 0, false, "constants");
  code_ = library.begin;
  library_ = library.name;
  if (traced_) traces_.resize(kMaxThreads / kWarpSize);
}

}  // namespace tilewright::simt
