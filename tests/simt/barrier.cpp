// Where threads wait for each other: block barriers, and the meetings of lanes that every warp
// primitive is; and what is said when they wait for ever.
#include <cstdio>
#include <sstream>
#include <stdexcept>

#include "simt/checker.h"

namespace tilewright::simt {

bool same_call(const CallSite& a, const CallSite& b) {
  return a.where.line() == b.where.line() && a.where.column() == b.where.column() &&
         (a.where.file_name() == b.where.file_name() ||
          std::strcmp(a.where.file_name(), b.where.file_name()) == 0);
}

std::string to_string(const CallSite& site) {
  const char* file = site.where.file_name();
  if (const char* slash = std::strrchr(file, '/')) file = slash + 1;
  return std::string(site.call) + " at " + file + ":" + std::to_string(site.where.line());
}

namespace {
std::string to_string(uint64_t index) {
  const uint3 i = unpack_index(index);
  std::ostringstream text;
  text << '(' << i.x << ", " << i.y << ", " << i.z << ')';
  return text.str();
}
std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}
}  // namespace

std::string Engine::describe(const std::string& what) const {
  std::string text = "emulated device: " + launch->kernel->name + ", block " + to_string(block);
  if (current) text += ", thread " + to_string(current->index);
  return text + ": " + what;
}
void Engine::fail(const std::string& what) const { throw std::runtime_error(describe(what)); }

BlockVote Engine::sync_block(const char* call, bool predicate, const Where& where) {
  Thread& self = *current;
  self.site = {call, where};
  if (barrier.arrived == 0) {
    barrier.site = self.site;
  } else if (!same_call(barrier.site, self.site)) {
    fail("the threads of the block are at different barriers: " + simt::to_string(self.site) +
         " and " + simt::to_string(barrier.site));
  }
  ++barrier.arrived;
  barrier.predicates += predicate;
  if (barrier.arrived == live) {
    release_barrier();
  } else {
    self.state = Thread::kAtBlockBarrier;
    leave(&self.fiber);
  }
  return barrier.result;  // stands until all have arrived at the next barrier
}

void Engine::release_barrier() {
  barrier.result = {barrier.predicates, barrier.arrived};
  barrier.arrived = barrier.predicates = 0;
  ++barrier.generation;
  if (checker) checker->barrier();
  for (int i = 0; i < count; ++i) {
    Thread& thread = threads[order[i]];
    if (thread.state == Thread::kAtBlockBarrier) make_ready(thread);
  }
}

void Engine::meet(const CallSite& site, unsigned mask, void* values, WarpWork work) {
  Thread& self = *current;
  const int number = self.number / kWarpSize;
  const unsigned lane = 1u << self.number % kWarpSize;
  Warp& warp = warps[number];
  self.site = site;
  if (!(mask & lane)) fail(simt::to_string(site) + ": mask " + hex(mask) + " lacks the caller");
  int i = 0;
  while (i < warp.meetings && warp.meeting[i].mask != mask) ++i;
  if (i == warp.meetings) warp.meeting[warp.meetings++] = {mask, 0, site, work};
  Meeting& meeting = warp.meeting[i];
  if (!same_call(meeting.site, site)) {
    fail("lanes of one warp, mask " + hex(mask) + ", are at different calls: " +
         simt::to_string(site) + " and " + simt::to_string(meeting.site));
  }
  meeting.arrived |= lane;
  self.values = values;
  self.mask = mask;
  if (((meeting.arrived | warp.gone) & mask) == mask) {
    release_meeting(number, i, &self);
  } else {
    self.state = Thread::kAtWarpCall;
    leave(&self.fiber);
  }
}

void Engine::release_meeting(int number, int index, const Thread* except) {
  Warp& warp = warps[number];
  const Meeting meeting = warp.meeting[index];
  warp.meeting[index] = warp.meeting[--warp.meetings];
  if (checker) {
    checker->meeting(number, meeting.arrived);
    // Of the warp primitives CUDA has __syncwarp() alone order the memory accesses of its lanes.
    if (!meeting.work) checker->sync_warp(number, meeting.arrived, warp.gone);
  }
  Thread* lanes = &threads[number * kWarpSize];
  if (meeting.work) {
    void* values[kWarpSize] = {};
    for (unsigned rest = meeting.arrived; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      values[lane] = lanes[lane].values;
    }
    meeting.work(meeting.site, values, meeting.arrived);
  }
  const unsigned turn = launch->seed ? mix(launch->seed ^ mix(block + number)) % kWarpSize : 0;
  for (unsigned i = 0; i < kWarpSize; ++i) {
    Thread& thread = lanes[i ^ turn];
    if (meeting.arrived >> (i ^ turn) & 1 && &thread != except) make_ready(thread);
  }
}

// Some threads wait and none can run: says where, by call.
void Engine::fail_stuck() const {
  struct Group {
    const Thread* first;
    int threads;
  };
  std::vector<Group> groups;
  for (int i = 0; i < count; ++i) {
    const Thread& thread = threads[i];
    if (thread.state != Thread::kAtBlockBarrier && thread.state != Thread::kAtWarpCall) continue;
    auto group = groups.begin();
    while (group != groups.end() &&
           !(same_call(group->first->site, thread.site) && group->first->state == thread.state &&
             (thread.state == Thread::kAtBlockBarrier ||
              (group->first->mask == thread.mask &&
               group->first->number / kWarpSize == i / kWarpSize)))) {
      ++group;
    }
    if (group == groups.end()) {
      groups.push_back({&thread, 1});
    } else {
      ++group->threads;
    }
  }
  std::string text = "a barrier that some threads never reach;";
  constexpr size_t kShown = 8;
  for (size_t i = 0; i < std::min(groups.size(), kShown); ++i) {
    const Thread& thread = *groups[i].first;
    text += (i ? ", " : " ") + std::to_string(groups[i].threads) + " of " + std::to_string(live) +
            " threads wait in " + simt::to_string(thread.site) + ", the first " +
            to_string(thread.index);
    if (thread.state != Thread::kAtWarpCall) continue;
    const Warp& warp = warps[thread.number / kWarpSize];
    for (int m = 0; m < warp.meetings; ++m) {
      if (warp.meeting[m].mask != thread.mask) continue;
      text += ", mask " + hex(thread.mask) + ", for lanes " +
              hex(thread.mask & ~(warp.meeting[m].arrived | warp.gone));
    }
  }
  if (groups.size() > kShown) text += ", ...";
  fail(text);
}

uint64_t thread_index() { return engine->current->index; }
uint64_t block_index() { return engine->block; }
uint64_t block_size() { return engine->block_dim; }
uint64_t grid_size() { return engine->grid_dim; }
unsigned lane_index() { return unsigned(engine->current->number % kWarpSize); }
BlockVote sync_block(const char* call, bool predicate, const Where& where) {
  return engine->sync_block(call, predicate, where);
}
void sync_warp(unsigned mask, const Where& where) {
  engine->meet({"__syncwarp", where}, mask, nullptr, nullptr);
}
void trap(const Where& where) { engine->fail(to_string(CallSite{"__trap", where})); }
void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

}  // namespace tilewright::simt
