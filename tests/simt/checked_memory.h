// Included before all else where device code is instrumented: calls of memcpy and its kin, also
// those that the compiler makes of loops and assignments, go through the checker.
#pragma once
#include <stddef.h>

extern "C" {
void* memcpy(void* to, const void* from, size_t bytes) noexcept __asm__("tilewright_simt_memcpy");
void* memmove(void* to, const void* from, size_t bytes) noexcept __asm__("tilewright_simt_memmove");
void* memset(void* to, int value, size_t bytes) noexcept __asm__("tilewright_simt_memset");
}
