// The emulator's own state: what one OS thread needs to run the blocks of a launch, one at a time.
// Kernels never see this file.
#pragma once
#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <cstdint>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include "simt/simt.h"

namespace tilewright::simt {

using Fiber = boost::context::detail::fcontext_t;

inline constexpr int kWarpSize = 32;
inline constexpr int kMaxThreads = 1024;
inline constexpr size_t kMaxShared = 163 * 1024;  // sm_80
inline constexpr size_t kDefaultShared = 48 * 1024;

// Parts of shared memory lie this far apart, a full turn of the 32 banks, so that the gaps do not
// move a part to other banks.
inline constexpr size_t kSharedGap = 128;
inline constexpr int kMaxSharedParts = 64;

inline uint64_t pack_index(dim3 v) { return v.x | uint64_t(v.y) << 32 | uint64_t(v.z) << 48; }

// A barrier or warp primitive as the kernel's source has it.
struct CallSite {
  const char* call = "";
  Where where;
};
bool same_call(const CallSite& a, const CallSite& b);
std::string to_string(const CallSite& site);

// Stacks for fibers, each behind a guard region, kept for the life of the OS thread.
class StackPool {
 public:
  static constexpr size_t kBytes = 240 * 1024;
  static constexpr size_t kGuardBytes = 16 * 1024;

  ~StackPool();
  char* take();  // the stack's top
  void release(char* top) { free_.push_back(top); }
  void release_all() { free_ = all_; }

 private:
  void grow();
  std::vector<char*> free_, all_;
  std::vector<char*> slabs_;
};

struct AsyncCopy {
  char* shared;
  const char* global;
  uint32_t bytes, source_bytes;
};
// What a thread asked for by cp.async and has not waited for yet.
struct AsyncCopies {
  std::vector<AsyncCopy> copies;
  std::vector<size_t> group_ends;  // committed groups: [0, ends[0]), [ends[0], ends[1]), ...
};

struct Thread {
  enum State : uint8_t { kUnstarted, kRuns, kReady, kAtBlockBarrier, kAtWarpCall, kDone };

  uint64_t index = 0;     // threadIdx
  int number = 0;         // within the block
  char* stack = nullptr;  // its top
  Fiber fiber{};          // where it waits
  State state = kUnstarted;
  CallSite site;           // of the barrier or warp primitive it waits in
  unsigned mask = 0;       // of that warp primitive
  void* values = nullptr;  // what it brought to the warp primitive, on its stack
  std::unique_ptr<AsyncCopies> copies;
};

struct Warp;
// Serves all lanes of `arrived` at once; values[lane] is what the lane brought.
using WarpWork = void (*)(const CallSite& site, void* const* values, unsigned arrived);

struct Meeting {
  unsigned mask, arrived;
  CallSite site;
  WarpWork work;
};

struct Warp {
  unsigned gone = 0;  // lanes that exited or never were
  int meetings = 0;
  Meeting meeting[kWarpSize];
};

struct BlockBarrier {
  int arrived = 0, predicates = 0;
  uint32_t generation = 0;
  BlockVote result{};
  CallSite site;
};

// What a kernel's accesses cost: requests of a warp, what they took and the least that their bytes
// need, in sectors of 32 bytes (global memory) and wavefronts (shared memory).
struct MemoryTraffic {
  int64_t global_requests = 0, sectors = 0, fewest_sectors = 0;
  int64_t shared_requests = 0, wavefronts = 0, fewest_wavefronts = 0;
};

struct KernelRecord {
  std::string name;
  std::atomic<int64_t> launches{0};
  // Of the last traced launch, and the sum over all.
  int64_t block_threads = 0, shared_bytes = 0;
  MemoryTraffic traffic;
};

struct Launch {
  KernelRecord* kernel;
  LaunchShape shape;
  void (*thread)(const void* arguments);
  const void* arguments;
  size_t arguments_bytes;
  uint64_t seed;
};

class Checker;

struct Engine {
  Engine();

  void begin_launch(const Launch& launch);
  void run_block(dim3 index);  // throws what went wrong
  void end_launch() { current = nullptr, launch = nullptr; }

  // Called on a fiber.
  BlockVote sync_block(const char* call, bool predicate, const Where& where);
  void meet(const CallSite& site, unsigned mask, void* values, WarpWork work);
  bool in_shared(const void* pointer, size_t bytes) const;
  [[noreturn]] void fail(const std::string& what) const;
  // As fail(), where nothing can be thrown: the thread stops where it is.
  [[noreturn]] void abandon(const std::string& what);
  std::string describe(const std::string& what) const;
  const Thread& thread(int number) const { return threads[number]; }

  Thread* current = nullptr;  // null outside of kernels
  uint64_t block = 0, block_dim = 0, grid_dim = 0;
  const Launch* launch = nullptr;
  char* shared = nullptr;      // of the block, gaps included
  Checker* checker = nullptr;  // while a launch is checked

 private:
  static void run_threads(boost::context::detail::transfer_t from);
  void leave(Fiber* save);
  void finish(Thread& thread);
  void release_barrier();
  void release_meeting(int warp, int meeting, const Thread* except);
  void make_ready(Thread& thread);
  void start_fiber(Fiber* save);
  void order_threads();
  [[noreturn]] void fail_stuck() const;

  int count = 0, live = 0, next = 0;  // threads: all, not yet exited, not yet started
  std::unique_ptr<Thread[]> threads;
  std::unique_ptr<Warp[]> warps;
  uint16_t order[kMaxThreads];
  uint16_t ready[kMaxThreads];  // a ring
  unsigned ready_begin = 0, ready_end = 0;
  BlockBarrier barrier;
  Fiber scheduler{}, abandoned{};
  char* fresh_stack = nullptr;
  std::exception_ptr failure;
  StackPool stacks;
  std::unique_ptr<char[]> shared_storage;
};

// The engine of the calling OS thread, once it has run a block.
extern constinit thread_local Engine* engine __attribute__((tls_model("initial-exec")));
Engine& engine_of_this_thread();

uint64_t mix(uint64_t bits);  // a hash
int64_t launch_count();
// For each kernel that was traced: threads and shared bytes of a block, then the
// fields of MemoryTraffic.
std::vector<std::pair<std::string, std::vector<int64_t>>> memory_report();
std::vector<std::string> launched_kernels();
void reset_counts();

}  // namespace tilewright::simt
