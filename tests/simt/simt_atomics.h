// CUDA's atomics. They are real ones, since the blocks of a launch run on several OS threads.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define TILEWRIGHT_SIMT_ATOMIC(name, T) T name(T* address, T value)

TILEWRIGHT_SIMT_ATOMIC(atomicAdd, int);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, unsigned long long);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, float);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, double);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, __half);
TILEWRIGHT_SIMT_ATOMIC(atomicAdd, __nv_bfloat16);
TILEWRIGHT_SIMT_ATOMIC(atomicSub, int);
TILEWRIGHT_SIMT_ATOMIC(atomicSub, unsigned);

TILEWRIGHT_SIMT_ATOMIC(atomicMin, int);
TILEWRIGHT_SIMT_ATOMIC(atomicMin, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicMin, long long);
TILEWRIGHT_SIMT_ATOMIC(atomicMin, unsigned long long);
TILEWRIGHT_SIMT_ATOMIC(atomicMax, int);
TILEWRIGHT_SIMT_ATOMIC(atomicMax, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicMax, long long);
TILEWRIGHT_SIMT_ATOMIC(atomicMax, unsigned long long);

TILEWRIGHT_SIMT_ATOMIC(atomicExch, int);
TILEWRIGHT_SIMT_ATOMIC(atomicExch, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicExch, unsigned long long);
TILEWRIGHT_SIMT_ATOMIC(atomicExch, float);

TILEWRIGHT_SIMT_ATOMIC(atomicAnd, int);
TILEWRIGHT_SIMT_ATOMIC(atomicAnd, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicAnd, unsigned long long);
TILEWRIGHT_SIMT_ATOMIC(atomicOr, int);
TILEWRIGHT_SIMT_ATOMIC(atomicOr, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicOr, unsigned long long);
TILEWRIGHT_SIMT_ATOMIC(atomicXor, int);
TILEWRIGHT_SIMT_ATOMIC(atomicXor, unsigned);
TILEWRIGHT_SIMT_ATOMIC(atomicXor, unsigned long long);

#undef TILEWRIGHT_SIMT_ATOMIC

int atomicCAS(int* address, int expected, int value);
unsigned atomicCAS(unsigned* address, unsigned expected, unsigned value);
unsigned short atomicCAS(unsigned short* address, unsigned short expected, unsigned short value);
unsigned long long atomicCAS(unsigned long long* address, unsigned long long expected,
                             unsigned long long value);
