// Runs the threads of a block as fibers. A fiber runs one thread after the other on the same stack
// for as long as none of them waits; a thread that waits keeps the stack, and the next thread
// starts on another. So threads that never wait cost a function call each.
#include <stdexcept>
#include <utility>

#include "simt/checker.h"

namespace tilewright::simt {
namespace context = boost::context::detail;

constinit thread_local Engine* engine = nullptr;

Engine& engine_of_this_thread() {
  static thread_local std::unique_ptr<Engine> owner;
  if (!owner) {
    owner = std::make_unique<Engine>();
    engine = owner.get();
  }
  return *owner;
}

namespace {
// Whoever goes on after a jump stores where the one before stopped.
void arrive(context::transfer_t from) { *static_cast<Fiber*>(from.data) = from.fctx; }
void jump(Fiber* save, Fiber to) { arrive(context::jump_fcontext(to, save)); }
}  // namespace

uint64_t mix(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
  return bits ^ bits >> 31;
}

Engine::Engine()
    : threads(new Thread[kMaxThreads]),
      warps(new Warp[kMaxThreads / kWarpSize]),
      shared_storage(new char[kMaxShared + (kMaxSharedParts + 1) * kSharedGap + 1024]) {
  for (int i = 0; i < kMaxThreads; ++i) threads[i].number = i;
  const auto address = reinterpret_cast<uintptr_t>(shared_storage.get());
  shared = shared_storage.get() + (1024 - address % 1024);
}

void Engine::begin_launch(const Launch& next_launch) {
  launch = &next_launch;
  const dim3 size = launch->shape.block;
  grid_dim = pack_index(launch->shape.grid);
  if (block_dim == pack_index(size)) return;
  block_dim = pack_index(size);
  count = int(size.x * size.y * size.z);
  int i = 0;
  for (unsigned z = 0; z < size.z; ++z)
    for (unsigned y = 0; y < size.y; ++y)
      for (unsigned x = 0; x < size.x; ++x, ++i) threads[i].index = pack_index(dim3(x, y, z));
}

void Engine::order_threads() {
  for (int i = 0; i < count; ++i) order[i] = uint16_t(i);
  if (launch->seed == 0) return;
  uint64_t random = mix(launch->seed ^ mix(block));
  for (int i = count - 1; i > 0; --i) {
    random = mix(random);
    std::swap(order[i], order[random % uint64_t(i + 1)]);
  }
}

void Engine::run_block(dim3 index) {
  block = pack_index(index);
  order_threads();
  const int last_warp = (count - 1) / kWarpSize;
  for (int i = 0; i <= last_warp; ++i) warps[i].gone = 0, warps[i].meetings = 0;
  if (count % kWarpSize) warps[last_warp].gone = ~0u << count % kWarpSize;
  live = count;
  next = 0;
  ready_begin = ready_end = 0;
  barrier.arrived = barrier.predicates = 0;
  ++barrier.generation;
  if (const size_t bytes = launch->shape.shared_bytes) {
    std::memset(shared, 0xff, bytes + (kMaxSharedParts + 1) * kSharedGap);  // NaN
  }
  if (checker) {
    checker->begin_block(index.x +
                         launch->shape.grid.x * (index.y + launch->shape.grid.y * index.z));
  }
  start_fiber(&scheduler);
  current = nullptr;
  if (checker) checker->end_block();
  if (live == 0 && !failure) return;
  // The fibers that still wait are dropped where they stand; device code owns nothing to clean up.
  stacks.release_all();
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
  fail_stuck();
}

void Engine::start_fiber(Fiber* save) {
  fresh_stack = stacks.take();
  jump(save, context::make_fcontext(fresh_stack, StackPool::kBytes, run_threads));
}

// The body of every fiber.
void Engine::run_threads(context::transfer_t from) {
  arrive(from);
  Engine& e = *engine;
  char* const stack = e.fresh_stack;
  while (e.next < e.count && e.ready_begin == e.ready_end) {
    Thread& thread = e.threads[e.order[e.next++]];
    thread.state = Thread::kRuns;
    thread.stack = stack;
    if (thread.copies) thread.copies->copies.clear(), thread.copies->group_ends.clear();
    e.current = &thread;
    try {
      e.launch->thread(e.launch->arguments);
      e.finish(thread);
    } catch (...) {
      e.failure = std::current_exception();
    }
    if (e.failure) jump(&e.abandoned, e.scheduler);
  }
  // Nothing runs on this stack again before the jump: a new fiber is only started by a thread that
  // waits, and the loop above has found another thread ready, or none left to start.
  e.stacks.release(stack);
  e.leave(&e.abandoned);
}

void Engine::abandon(const std::string& what) {
  failure = std::make_exception_ptr(std::runtime_error(describe(what)));
  jump(&abandoned, scheduler);
  __builtin_unreachable();
}

// Hands the processor to a thread that can run, or to the scheduler when there is none.
void Engine::leave(Fiber* save) {
  if (ready_begin != ready_end) {
    current = &threads[ready[ready_begin++ % kMaxThreads]];
    current->state = Thread::kRuns;
    jump(save, current->fiber);
  } else if (next < count) {
    start_fiber(save);
  } else {
    jump(save, scheduler);
  }
}

void Engine::make_ready(Thread& thread) {
  thread.state = Thread::kReady;
  ready[ready_end++ % kMaxThreads] = uint16_t(thread.number);
}

// A thread that exits no longer counts, so it may be the one that others were waiting for.
void Engine::finish(Thread& thread) {
  thread.state = Thread::kDone;
  --live;
  if (barrier.arrived > 0 && barrier.arrived == live) release_barrier();
  const int number = thread.number / kWarpSize;
  Warp& warp = warps[number];
  warp.gone |= 1u << thread.number % kWarpSize;
  for (int i = warp.meetings - 1; i >= 0; --i) {
    const Meeting& meeting = warp.meeting[i];
    if (((meeting.arrived | warp.gone) & meeting.mask) == meeting.mask) {
      release_meeting(number, i, nullptr);
    }
  }
}

}  // namespace tilewright::simt
