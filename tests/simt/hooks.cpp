// Serves what g++ -fsanitize=thread calls before every load and store, so that the accesses of
// device code reach the checker. The library of the sanitizer is not linked: host code of the same
// files calls these too, and passes through. Atomic operations of host code, which the compiler
// replaces by calls as well, are carried out as they are.
#include <cstring>

#include "simt/checker.h"

using tilewright::simt::Access;
using tilewright::simt::observe;

#define CALLER __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}

#define ACCESS(bytes)                                                                        \
  void __tsan_read##bytes(void* p) { observe(p, bytes, Access::kRead, CALLER); }             \
  void __tsan_write##bytes(void* p) { observe(p, bytes, Access::kWrite, CALLER); }           \
  void __tsan_unaligned_read##bytes(void* p) { observe(p, bytes, Access::kRead, CALLER); }   \
  void __tsan_unaligned_write##bytes(void* p) { observe(p, bytes, Access::kWrite, CALLER); } \
  void __tsan_volatile_read##bytes(void* p) { observe(p, bytes, Access::kRead, CALLER); }    \
  void __tsan_volatile_write##bytes(void* p) { observe(p, bytes, Access::kWrite, CALLER); }  \
  void __tsan_read_write##bytes(void* p) { observe(p, bytes, Access::kWrite, CALLER); }      \
  void __tsan_unaligned_read_write##bytes(void* p) { observe(p, bytes, Access::kWrite, CALLER); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_read_range(void* p, size_t bytes) { observe(p, bytes, Access::kRead, CALLER); }
void __tsan_write_range(void* p, size_t bytes) { observe(p, bytes, Access::kWrite, CALLER); }

// memcpy and its kin in instrumented code, by checked_memory.h.
void* tilewright_simt_memcpy(void* to, const void* from, size_t bytes) {
  observe(from, bytes, Access::kRead, CALLER);
  observe(to, bytes, Access::kWrite, CALLER);
  return std::memcpy(to, from, bytes);
}
void* tilewright_simt_memmove(void* to, const void* from, size_t bytes) {
  observe(from, bytes, Access::kRead, CALLER);
  observe(to, bytes, Access::kWrite, CALLER);
  return std::memmove(to, from, bytes);
}
void* tilewright_simt_memset(void* to, int value, size_t bytes) {
  observe(to, bytes, Access::kWrite, CALLER);
  return std::memset(to, value, bytes);
}

#define FETCH(bits, T, name)                                          \
  T __tsan_atomic##bits##_fetch_##name(volatile T* p, T value, int) { \
    observe(const_cast<T*>(p), sizeof(T), Access::kAtomic, CALLER);   \
    return __atomic_fetch_##name(p, value, __ATOMIC_SEQ_CST);         \
  }
#define COMPARE_EXCHANGE(bits, T, strength)                                                       \
  int __tsan_atomic##bits##_compare_exchange_##strength(volatile T* p, T* expected, T value, int, \
                                                        int) {                                    \
    observe(const_cast<T*>(p), sizeof(T), Access::kAtomic, CALLER);                               \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST,               \
                                       __ATOMIC_SEQ_CST);                                         \
  }
#define ATOMICS(bits, T)                                            \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {          \
    observe(const_cast<T*>(p), sizeof(T), Access::kAtomic, CALLER); \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                    \
  }                                                                 \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int) {   \
    observe(const_cast<T*>(p), sizeof(T), Access::kAtomic, CALLER); \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                   \
  }                                                                 \
  T __tsan_atomic##bits##_exchange(volatile T* p, T value, int) {   \
    observe(const_cast<T*>(p), sizeof(T), Access::kAtomic, CALLER); \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);         \
  }                                                                 \
  FETCH(bits, T, add)                                               \
  FETCH(bits, T, sub)                                               \
  FETCH(bits, T, and)                                               \
  FETCH(bits, T, or)                                                \
  FETCH(bits, T, xor)                                               \
  FETCH(bits, T, nand)                                              \
  COMPARE_EXCHANGE(bits, T, strong)                                 \
  COMPARE_EXCHANGE(bits, T, weak)
ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)

void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

}  // extern "C"
