// The checks of the emulated device: what every access of device code must obey, and the trace of
// accesses that the memory report is made of.
//
// Device code is compiled with -fsanitize=thread, and hooks.cpp serves the calls that this puts
// before every load and store; no sanitizer's library is linked. While checks are on, an access
// that breaks a rule is not carried out: its launch ends with an error. Blocks then run one at a
// time, on the launching thread.
//
// Two accesses of one place, not both reads and not both atomic, conflict unless one comes before
// the other: within a block by a barrier between them, within a warp also by a __syncwarp() that
// both lanes take part in. Nothing orders the blocks of a launch. A place is a tensor's element,
// or, in shared memory, as many bytes as the part's type is aligned to, 4 at most.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "simt/simt_internal.h"

namespace tilewright::simt {

enum class Access : uint8_t { kRead, kWrite, kAtomic };

// Memory that launches may use, until the calling thread's innermost MemoryScope ends.
struct LentMemory {
  const void* begin;
  size_t bytes;
  size_t element_bytes;
  bool writable;
  std::string name;
  std::function<bool()> alive;  // where it may end sooner
};
bool in_memory_scope();
void lend(LentMemory memory);
// Of the lent memory, what the arguments point into; overlapping pieces as one.
std::vector<LentMemory> lent_to(const void* arguments, size_t bytes);
// For errors: the name of the lent memory at an address, or "".
std::string lent_at(uintptr_t address);

// Who made the last accesses of one kind, as far as a later one can conflict with them.
struct AccessRecord {
  uint32_t block = 0;  // 1 + the block's number; 0: none
  uint32_t clock = 0;  // the latest
  uint32_t lanes = 0;  // of `warp`
  int32_t instruction = 0;
  uint8_t warp = 0;
  bool many_warps = false, many_blocks = false;
};
struct Cell {
  AccessRecord read, write, atomic;
  bool copy_in_flight = false;  // the destination of an asynchronous copy before its wait
};

struct CheckedRegion {
  uintptr_t begin = 0, end = 0;
  size_t granule = 1;  // bytes per cell; 0: neither a tensor nor shared memory
  size_t cell_count = 0;
  bool writable = false, shared = false;
  std::string name;
  struct Free {
    void operator()(Cell* cells) const { std::free(cells); }
  };
  std::unique_ptr<Cell, Free> cells;  // none where nothing can conflict

  CheckedRegion() = default;
  CheckedRegion(uintptr_t begin, uintptr_t end, size_t granule, bool writable, std::string name);
};

// One access, for the memory report.
struct TracedAccess {
  uintptr_t address;
  int32_t instruction;
  uint32_t turn;    // barriers and warp primitives before it
  uint32_t field;   // the place of a piece within a struct that is copied
  uint32_t repeat;  // accesses of the instruction by this lane since that barrier
  uint8_t lane, bytes;
  bool shared;
};
// Adds up what the warp's accesses cost.
void add_traffic(std::vector<TracedAccess>& accesses, MemoryTraffic& traffic);

class Checker {
 public:
  explicit Checker(Engine& engine, const Launch& launch);

  void begin_block(uint32_t number);
  void end_block() { flush_trace(); }
  void add_shared_part(int part, uintptr_t begin, size_t bytes, size_t granule);
  void barrier();
  void meeting(int warp, unsigned arrived);
  void sync_warp(int warp, unsigned arrived, unsigned gone);

  // The current thread's access. `instruction` is a return address in device code.
  void access(const void* pointer, size_t bytes, Access kind, const void* instruction);
  void copy_issued(const AsyncCopy& copy, const void* instruction);
  void copy_landed(const AsyncCopy& copy, const void* instruction);

 private:
  struct Self {  // the current thread
    int number, warp, lane;
    uint32_t clock;
    int32_t instruction;
  };
  Self self(const void* instruction);
  CheckedRegion* find(uintptr_t begin, uintptr_t end);
  bool unordered(const AccessRecord& record, const Self& self) const;
  void add(AccessRecord& record, const Self& self) const;
  void access_cell(CheckedRegion& region, size_t index, Access kind, const Self& self);
  void trace(uintptr_t address, size_t bytes, bool shared, const Self& self);
  void flush_trace();

  [[noreturn]] void fail_bounds(uintptr_t address, size_t bytes, Access kind, const Self& self);
  [[noreturn]] void fail_conflict(const CheckedRegion& region, size_t index, Access kind,
                                  Access other_kind, const AccessRecord& other, const Self& self);
  [[noreturn]] void fail_in_flight(const CheckedRegion& region, size_t index, Access kind,
                                   const Self& self);
  std::string place(const CheckedRegion& region, uintptr_t address) const;
  std::string threads_of(const AccessRecord& record, const Self& self) const;
  std::string instruction_name(int32_t instruction) const;

  Engine& engine_;
  const bool traced_;
  std::vector<CheckedRegion> regions_;  // tensors and what the launch may only read
  std::vector<CheckedRegion> parts_;    // of shared memory
  CheckedRegion* last_ = nullptr;       // found by the access before
  uintptr_t code_ = 0;                  // where the library of the kernel begins
  std::string library_;

  uint32_t block_ = 0;
  uint32_t now_ = 1;            // counts what orders accesses
  uint32_t barrier_clock_ = 1;  // when the block's last barrier was
  // A thread's clock is the last barrier or __syncwarp() that it took part in. What lanes of its
  // warp did until `floor`, and one lane until `seen`, comes before what it does now.
  uint32_t clock_[kMaxThreads] = {};
  uint32_t floor_[kMaxThreads] = {};
  uint32_t seen_[kMaxThreads][kWarpSize] = {};
  uint32_t turn_[kMaxThreads] = {};                // counts what the thread waited in
  std::vector<std::vector<TracedAccess>> traces_;  // by warp
};

// Calls body(checker) if the caller is a thread of a checked launch. The checker is out of reach
// meanwhile: what it uses itself, or an error that it ends the launch with, is not checked.
template <class Body>
[[gnu::always_inline]] inline void with_checker(const Body& body) {
  Engine* const e = engine;
  if (!e || !e->checker || !e->current) [[likely]]
    return;
  Checker* const checker = std::exchange(e->checker, nullptr);
  body(*checker);
  e->checker = checker;
}

// Every access of device code comes by here; `instruction` is where it returns to.
[[gnu::always_inline]] inline void observe(const void* pointer, size_t bytes, Access kind,
                                           const void* instruction) {
  with_checker([&](Checker& c) {
    if (bytes > 0) c.access(pointer, bytes, kind, instruction);
  });
}

bool checks_are_on();
void set_checks(bool on);
// Whether launches add to the memory report; switching it on empties the report.
bool tracing_is_on();
void set_tracing(bool on);

}  // namespace tilewright::simt
