// Makes plain CUDA C++ compile with g++ for the emulated device: thread coordinates, barriers and
// warp primitives, served by the emulator's .cpp files, which run every CUDA thread of a block as a
// fiber. Nothing of the emulator is defined here, so that kernels can be instrumented without it.
//
// It is stricter than a GPU. Shared memory starts as NaN, and so is the destination of an
// asynchronous copy until its wait. A barrier that some threads never reach or that threads reach
// at different calls is an error that names the kernel, the calls and the block; threads that have
// exited do not count. So is a warp primitive whose mask names lanes that never come.
// __activemask() names only the caller, and a shuffle from an absent lane yields NaN. Launches keep
// to the limits of sm_80. The order of blocks and threads is permuted by a seed
// (TILEWRIGHT_SIMT_ORDER, or set_order). On request every access is checked (checker.h).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>
#include <typeinfo>

// Shared memory is carved by core/cuda/shared.h; a variable of a kernel's own does not compile.
#undef __shared__

namespace tilewright::simt {

using Where = std::source_location;

// Three coordinates in one number: x in bits 0-31, y in 32-47, z in 48-63. Constant for a thread's
// lifetime, which lets the compiler ask once per kernel.
[[gnu::const]] uint64_t thread_index();
[[gnu::const]] uint64_t block_index();
[[gnu::const]] uint64_t block_size();
[[gnu::const]] uint64_t grid_size();
inline uint3 unpack_index(uint64_t bits) {
  return {unsigned(bits), unsigned(bits >> 32 & 0xffff), unsigned(bits >> 48)};
}
inline dim3 unpack_size(uint64_t bits) {
  return {unsigned(bits), unsigned(bits >> 32 & 0xffff), unsigned(bits >> 48)};
}

struct BlockVote {
  int count;    // threads whose predicate holds
  int threads;  // threads that took part
};
BlockVote sync_block(const char* call, bool predicate, const Where& where);

// Every warp primitive: the lanes that `mask` names meet, and the last to come does the work.
enum class Shuffle { kIndex, kUp, kDown, kXor };
enum class Reduce { kAdd, kMin, kMax, kAnd, kOr, kXor };
void sync_warp(unsigned mask, const Where& where);
void shuffle(Shuffle kind, unsigned mask, void* value, size_t bytes, int operand, int width,
             const Where& where);
unsigned ballot(const char* call, unsigned mask, bool predicate, const Where& where);
unsigned match_any(unsigned mask, uint64_t value, const Where& where);
int64_t reduce(Reduce kind, unsigned mask, int64_t value, const Where& where);
unsigned lane_index();

// Tensor cores and asynchronous copies; core/cuda/mma.h and async_copy.h say what they do.
void mma_m16n8k16(bool bfloat16, float* d, const uint32_t* a, const uint32_t* b,
                  const Where& where);
void mma_m16n8k8(float* d, const uint32_t* a, const uint32_t* b, const Where& where);
void load_matrix(uint32_t* registers, int count, bool transposed, const void* row,
                 const Where& where);
void copy_async(void* shared, const void* global, size_t bytes, size_t source_bytes,
                const Where& where);
void commit_copies();
void wait_copies(int groups_in_flight);

// Memory of the block at `offset`, behind the gaps of the parts before it.
void* shared_part(size_t offset, size_t bytes, size_t alignment, int part);
// One access of `bytes` bytes of device memory, at a multiple of that.
void load_pack(void* to, const void* from, size_t bytes);
void store_pack(void* to, const void* from, size_t bytes);
[[noreturn]] void trap(const Where& where);
void fence();

struct KernelRecord;
struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes;
  bool large_shared;
};
// `tag` is a template's instance for the kernel, `type` the kernel's type.
KernelRecord& kernel_record(const std::type_info& tag, const std::type_info& type);
void launch(KernelRecord& record, const LaunchShape& shape, void (*thread)(const void* arguments),
            const void* arguments, size_t arguments_bytes);

// What the host lends to checked launches (checker.h) ends with the innermost scope.
class MemoryScope {
 public:
  MemoryScope();
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  size_t lent_before_;
};

// 0: blocks and threads run in index order; else in an order that the seed permutes.
void set_order(int seed);

}  // namespace tilewright::simt

#define threadIdx (::tilewright::simt::unpack_index(::tilewright::simt::thread_index()))
#define blockIdx (::tilewright::simt::unpack_index(::tilewright::simt::block_index()))
#define blockDim (::tilewright::simt::unpack_size(::tilewright::simt::block_size()))
#define gridDim (::tilewright::simt::unpack_size(::tilewright::simt::grid_size()))

#include "simt/simt_atomics.h"
#include "simt/simt_math.h"
#include "simt/simt_warp.h"
