// Shared memory and asynchronous copies of the emulated device. A GPU may carry out a copy at any
// time between cp.async and its wait. Here the destination is NaN from the one to the other, so a
// thread that reads it too early, or still needs what it held, is seen.
#include "simt/checker.h"

namespace tilewright::simt {

bool Engine::in_shared(const void* pointer, size_t bytes) const {
  const char* begin = static_cast<const char*>(pointer);
  const size_t size = launch->shape.shared_bytes;
  return size > 0 && begin >= shared &&
         begin + bytes <= shared + size + kMaxSharedParts * kSharedGap;
}

void* shared_part(size_t offset, size_t bytes, size_t alignment, int part) {
  const size_t size = engine->launch->shape.shared_bytes;
  if (offset + bytes > size) {
    engine->fail("the kernel takes " + std::to_string(offset + bytes) +
                 " bytes of shared memory, the launch gave " + std::to_string(size));
  }
  if (part >= kMaxSharedParts) {
    engine->fail("a cursor takes at most " + std::to_string(kMaxSharedParts) +
                 " parts of shared memory");
  }
  char* const begin = engine->shared + offset + part * kSharedGap;
  with_checker([&](Checker& c) {
    c.add_shared_part(part, reinterpret_cast<uintptr_t>(begin), bytes,
                      std::min<size_t>(alignment, 4));
  });
  return begin;
}

namespace {
void check_aligned(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) {
    engine->fail("an access of " + std::to_string(bytes) +
                 " bytes at an address that is no multiple");
  }
}
}  // namespace

void load_pack(void* to, const void* from, size_t bytes) {
  check_aligned(from, bytes);
  observe(from, bytes, Access::kRead, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void store_pack(void* to, const void* from, size_t bytes) {
  check_aligned(to, bytes);
  observe(to, bytes, Access::kWrite, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void copy_async(void* shared, const void* global, size_t bytes, size_t source_bytes,
                const Where& where) {
  const auto aligned = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  if (!aligned(shared) || !aligned(global) || !engine->in_shared(shared, bytes) ||
      engine->in_shared(global, 1)) {
    engine->fail(to_string(CallSite{"copy_async", where}) +
                 ": goes from global to shared memory, " + std::to_string(bytes) +
                 " bytes at multiples of that");
  }
  auto& queue = engine->current->copies;
  if (!queue) queue = std::make_unique<AsyncCopies>();
  const AsyncCopy copy{static_cast<char*>(shared), static_cast<const char*>(global),
                       uint32_t(bytes), uint32_t(source_bytes)};
  const void* const caller = __builtin_return_address(0);
  with_checker([&](Checker& c) { c.copy_issued(copy, caller); });
  queue->copies.push_back(copy);
  std::memset(shared, 0xff, bytes);
}

void commit_copies() {
  auto& queue = engine->current->copies;
  if (!queue) queue = std::make_unique<AsyncCopies>();
  queue->group_ends.push_back(queue->copies.size());
}

// Lets the copies of all groups land but the newest `groups_in_flight`.
void wait_copies(int groups_in_flight) {
  auto& queue = engine->current->copies;
  if (!queue || queue->group_ends.size() <= size_t(groups_in_flight)) return;
  const size_t groups = queue->group_ends.size() - groups_in_flight;
  const size_t landing = queue->group_ends[groups - 1];
  const void* const caller = __builtin_return_address(0);
  for (size_t i = 0; i < landing; ++i) {
    const AsyncCopy& copy = queue->copies[i];
    with_checker([&](Checker& c) { c.copy_landed(copy, caller); });
    std::memcpy(copy.shared, copy.global, copy.source_bytes);
    std::memset(copy.shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  }
  queue->copies.erase(queue->copies.begin(), queue->copies.begin() + landing);
  queue->group_ends.erase(queue->group_ends.begin(), queue->group_ends.begin() + groups);
  for (size_t& end : queue->group_ends) end -= landing;
}

}  // namespace tilewright::simt
